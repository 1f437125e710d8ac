"""The lazy optimiser moves what a batch has touched and nothing else; the exact one is Adam."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from promax_nb.data.bookshop import toy_data
from promax_nb.models.bases import MF, LightGCN
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.optimisers import ByRows, LazyAdam, Rows, idle_steps, is_by_rows, optimizer_name, squares
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
        sum(BPR()(ByRows(model, optimizer), *batch).values()).backward()
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
        sum(BPR()(ByRows(lazy, ours), *batch).values()).backward()
        (sum(BPR()(exact, *batch).values()) + 0.02 * squares(exact)).backward()
        ours.step()
        adam.step()
    assert torch.allclose(lazy.user, exact.user, atol=1e-6) and torch.allclose(lazy.item, exact.item, atol=1e-6)


def test_sdr_moves_all_items_and_few_users():
    rng = np.random.default_rng(0)
    su, si = (rng.normal(size=(count, 6)).astype(np.float32) for count in (80, 60))
    model = MF(DATA, dim=4)
    seen = ByRows(model, LazyAdam(model.parameters()))
    terms = ProMax(su, si, sdr=1.0, s2dr=0)(seen, *(torch.tensor([number]) for number in (3, 7, 1)))
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


def test_missed_steps_at_once_are_the_steps_of_adam():
    draw = torch.Generator().manual_seed(0)
    how = {'lr': 1e-3, 'betas': (0.9, 0.999), 'eps': 1e-8, 'reg': 1e-4}
    weight = torch.nn.Parameter(0.1 * torch.randn(5, 4, generator=draw))
    adam = torch.optim.Adam([weight], lr=how['lr'])
    for step in range(130):
        if step == 100:
            kept = [x.clone() for x in (weight.detach(), *(adam.state[weight][k] for k in ('exp_avg', 'exp_avg_sq')))]
        gradient = 1e-3 * torch.randn(5, 4, generator=draw) if step < 100 else 0
        weight.grad = gradient + 2 * how['reg'] * weight.detach()
        adam.step()
    steps = torch.full((5, 1), 30.0)
    here, mean, square = idle_steps(*kept, steps, torch.full((5, 1), 100.0), how)
    assert (here - weight).abs().max() < 0.01 * (kept[0] - weight).abs().max()
    assert torch.allclose(mean, adam.state[weight]['exp_avg'], rtol=0.05, atol=1e-9)
    still = idle_steps(*kept, torch.zeros(5, 1), steps, how)
    assert all(torch.equal(one, other) for one, other in zip(still, kept, strict=True))
    fresh = [kept[0], torch.zeros(5, 4), torch.zeros(5, 4)]
    assert all(x.isfinite().all() for x in idle_steps(*fresh, torch.zeros(5, 1), torch.zeros(5, 1), how))


def test_rows_that_wait_for_a_step_are_kept_with_the_rest():
    """Read, looked at again, stored and read back between reading and step: the same table at the end."""
    draw = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(5000, 3, generator=draw), torch.randn(8, 3, generator=draw)

    def steps(interrupted):
        table = torch.nn.Parameter(start.clone())
        optimizer = LazyAdam([table], lr=0.1, reg=0.01)
        for number, gradient in enumerate(gradients):
            ids = torch.arange(number % 3, 5000, 1 + number % 2)
            rows = Rows(table, optimizer.catch_up)
            loss = (rows[ids] * gradient).sum()
            if interrupted:
                assert torch.equal(rows[ids[[4, 0, 4]]], table[ids[[4, 0, 4]]])  # read once more
                kept = optimizer.state_dict()
                optimizer = LazyAdam([table], lr=0.1, reg=0.01)
                optimizer.load_state_dict(kept)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        optimizer.flush()
        return table, optimizer.state[table]

    (once, kept), (again, other) = steps(False), steps(True)
    assert torch.equal(once, again)
    assert all(torch.equal(kept[name], other[name]) for name in ('exp_avg', 'exp_avg_sq', 'moved'))


@pytest.mark.parametrize('reg', [0.0, 1e-5])
def test_a_lazy_training_is_that_of_adam(reg):
    how = SHORT | {'epochs': 6, 'lr': 0.003, 'reg': reg, 'batch': 16, 'eval_every': 6}
    lazy, adam = (fit(MF(DATA, dim=4), BPR(), DATA, optimizer=name, **how) for name in ('lazy', 'adam'))
    start = MF(DATA, dim=4)
    for ours, theirs, first in ((lazy.users, adam.users, start.user), (lazy.items, adam.items, start.item)):
        moved = np.linalg.norm(theirs - first.detach().numpy())
        assert np.linalg.norm(ours - theirs) < 0.05 * moved


def test_vectors_over_a_graph_row_by_row():
    model = MF(DATA, dim=4)
    seen = ByRows(model, LazyAdam(model.parameters()))
    whole, rows = model(model.adj), seen(model.adj)
    ids = torch.tensor([5, 0, 59, 5])
    for by_rows, table in zip(rows, whole, strict=True):
        assert torch.allclose(by_rows[ids], table[ids], atol=1e-6)
    draw = torch.randn(2, 4, 4)
    sum((by_rows[ids] * x).sum() for by_rows, x in zip(rows, draw, strict=True)).backward()
    ours = [table.grad.to_dense() for table in model.parameters()]
    model.zero_grad()
    sum((table[ids] * x).sum() for table, x in zip(whole, draw, strict=True)).backward()
    theirs = [table.grad for table in model.parameters()]
    assert all(torch.allclose(mine, table, atol=1e-6) for mine, table in zip(ours, theirs, strict=True))


def test_both_losses_read_few_rows():
    rng = np.random.default_rng(0)
    su, si = (rng.normal(size=(count, 6)).astype(np.float32) for count in DATA.shape)
    added = sp.random(*DATA.shape, 0.01, random_state=0, format='csr', dtype=np.float32)
    objective = ProMax(su, si, added, s2dr=0.5, terms='sampled', anchors=8, columns=8, every=1)
    model = MF(DATA, dim=4)
    batch = torch.tensor([3, 5]), torch.tensor([7, 8]), torch.tensor([1, 2])
    sum(objective(ByRows(model, LazyAdam(model.parameters())), *batch).values()).backward()
    assert model.user.grad.is_sparse and model.item.grad.is_sparse
    fitted = fit(MF(DATA, dim=4), objective, DATA, optimizer='lazy', **SHORT)
    assert np.isfinite(fitted.users).all() and (fitted.history['s2dr'] > 0).all()


@pytest.mark.parametrize('terms', ['exact', 'sampled'])
def test_losses_that_read_all_items_agree_row_by_row(terms):
    """Whoever reads a whole table keeps it: what is read after it writes nothing where nothing is late."""
    rng = np.random.default_rng(0)
    su, si = (rng.normal(size=(count, 6)).astype(np.float32) for count in DATA.shape)
    added = sp.random(*DATA.shape, 0.01, random_state=0, format='csr', dtype=np.float32)
    objective = ProMax(su, si, added, s2dr=0.05, terms=terms, anchors=len(su), batch_anchors=len(su), every=1)
    ours, theirs = (fit(MF(DATA, dim=4), objective, DATA, optimizer=name, **SHORT) for name in ('lazy', 'adam'))
    assert np.allclose(ours.items, theirs.items, atol=1e-4) and np.allclose(ours.users, theirs.users, atol=1e-4)


def test_by_rows_from_a_size_on(monkeypatch):
    assert optimizer_name(MF(DATA, dim=4), 'auto') == 'adam'
    monkeypatch.setattr('promax_nb.models.optimisers.MANY_ROWS', 100)
    assert optimizer_name(MF(DATA, dim=4), 'auto') == 'lazy'
    assert optimizer_name(MF(DATA, dim=4), 'adam') == 'adam'
    assert optimizer_name(LightGCN(DATA, dim=4), 'auto') == 'adam'
    fitted = fit(MF(DATA, dim=4), BPR(), DATA, **SHORT)
    assert fitted.card['train']['optimizer'] == 'lazy'

    class Other(MF):
        def forward(self, adj=None):
            return self.user.tanh(), self.item

    class Longer(MF):
        def extra_loss(self, users, pos):
            return {'length': self.user.pow(2).mean()}

    assert not is_by_rows(Other(DATA, dim=4)) and not is_by_rows(Longer(DATA, dim=4)) and is_by_rows(MF(DATA, dim=4))
