"""The lazy optimiser moves what a batch has touched and nothing else; the exact one is Adam."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from promax_nb.data.bookshop import toy_data
from promax_nb.models.bases import MF, LightGCN
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.optimisers import ByRows, LazyAdam, Rows, squares
from promax_nb.models.sameness import training_parts
from promax_nb.models.train import TrainConfig, fit

DATA = toy_data(80, 60)
SHORT = dict(epochs=2, eval_every=1, batch=64, progress=False)


def moved(before, after):
    return (before != after).any(1)


def test_a_lazy_step_moves_the_rows_of_the_batch_alone():
    model = MF(DATA, dim=4)
    users, items = model.user.detach().clone(), model.item.detach().clone()
    optimizer = LazyAdam(model.parameters(), lr=0.1, reg=1e-3)
    batch = torch.tensor([3, 5, 3]), torch.tensor([7, 8, 9]), torch.tensor([1, 2, 7])
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        sum(BPR()(ByRows(model), *batch).values()).backward()
        optimizer.step()
    assert set(moved(users, model.user).nonzero()[:, 0].tolist()) == {3, 5}
    assert set(moved(items, model.item).nonzero()[:, 0].tolist()) == {1, 2, 7, 8, 9}


def test_where_all_rows_are_touched_lazy_is_adam():
    lazy, exact = MF(DATA, dim=4), MF(DATA, dim=4)
    ours = LazyAdam(lazy.parameters(), lr=0.01, reg=0.02)
    adam = torch.optim.Adam(exact.parameters(), lr=0.01)
    everybody = torch.arange(60)
    with torch.no_grad():
        lazy.user.data, exact.user.data = lazy.user.data[:60].clone(), exact.user.data[:60].clone()
    ours.param_groups[0]['params'], adam.param_groups[0]['params'] = list(lazy.parameters()), list(exact.parameters())
    for shift in (1, 2, 3):
        batch = everybody, everybody, everybody.roll(shift)
        ours.zero_grad()
        adam.zero_grad()
        sum(BPR()(ByRows(lazy), *batch).values()).backward()
        (sum(BPR()(exact, *batch).values()) + 0.02 * squares(exact)).backward()
        ours.step()
        adam.step()
    assert torch.allclose(lazy.user, exact.user, atol=1e-6) and torch.allclose(lazy.item, exact.item, atol=1e-6)


def test_sdr_moves_all_items_and_few_users():
    rng = np.random.default_rng(0)
    su, si = (rng.normal(size=(count, 6)).astype(np.float32) for count in (80, 60))
    model = MF(DATA, dim=4)
    terms = ProMax(su, si, sdr=1.0, s2dr=0)(ByRows(model), *(torch.tensor([number]) for number in (3, 7, 1)))
    sum(terms.values()).backward()
    assert model.user.grad.is_sparse and not model.item.grad.is_sparse
    assert (model.item.grad != 0).any(1).sum() == 60


def test_lazy_training_resumes_to_the_same_numbers(tmp_path):
    straight = fit(MF(DATA, dim=4), BPR(), DATA, optimizer='lazy', **SHORT | {'epochs': 4})
    fit(MF(DATA, dim=4), BPR(), DATA, folder=tmp_path, optimizer='lazy', **SHORT)
    resumed = fit(MF(DATA, dim=4), BPR(), DATA, folder=tmp_path, optimizer='lazy', **SHORT | {'epochs': 4})
    assert np.array_equal(straight.users, resumed.users) and np.array_equal(straight.items, resumed.items)
    exact = fit(MF(DATA, dim=4), BPR(), DATA, **SHORT | {'epochs': 4})
    assert not np.array_equal(straight.users, exact.users)


def test_lazy_is_refused_where_vectors_come_from_all_rows_and_other_names_too():
    with pytest.raises(ValueError, match='LightGCN computes its vectors from all'):
        fit(LightGCN(DATA, dim=4), BPR(), DATA, optimizer='lazy', **SHORT)
    with pytest.raises(ValueError, match="optimizer='sgd' is unknown"):
        TrainConfig(optimizer='sgd')


def test_the_default_is_the_training_of_before():
    """A folder of a version that knew no choice is continued."""
    parts = training_parts(MF(DATA, dim=4), BPR(), DATA, TrainConfig(seed=0))
    assert not any('optimizer' in name for name in parts)
    lazy = training_parts(MF(DATA, dim=4), BPR(), DATA, TrainConfig(seed=0, optimizer='lazy'))
    assert lazy['training setting optimizer'] == 'lazy'


def test_rows_stand_for_their_table():
    table = torch.nn.Parameter(torch.arange(6.0).reshape(3, 2))
    rows = Rows(table)
    assert len(rows) == 3 and rows.shape == (3, 2) and rows.device == table.device
    assert torch.equal(rows[1:], table[1:]) and torch.equal(rows[torch.tensor([True, False, True])], table[[0, 2]])
    assert torch.equal(torch.cat([rows.table, table]), torch.cat([table, table]))


def test_squares_have_the_value_and_the_gradient_of_squares():
    model = MF(sp.csr_matrix(np.eye(3, 4)), dim=2).double()
    squares(model).backward()
    assert torch.allclose(model.user.grad, 2 * model.user)
    assert torch.isclose(squares(model), sum((parameter**2).sum() for parameter in model.parameters()))
