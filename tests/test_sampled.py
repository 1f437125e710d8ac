"""Losses from samples: exact where nothing is left out, right in the mean where something is, chosen and told."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from promax_nb.models import objectives as objectives_room
from promax_nb.models.bases import MF, LightGCN
from promax_nb.models.losses import s2dr_loss, teacher
from promax_nb.models.objectives import ProMax, Teacher, teacher_report
from promax_nb.models.sampled import draw_columns, sampled_s2dr
from promax_nb.models.train import fit

M, N, B = 60, 50, 96


def vectors(seed, *sizes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 8, dtype=torch.float64, generator=generator) for n in sizes]


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.integers(n, size=B)) for n in (M, N, N)]


def objective(**how):
    su, si = (x.float() for x in vectors(5, M, N))
    added = sp.random(M, N, 0.03, random_state=1, format='csr')
    return ProMax(su, si, added, **{'sdr': 0.7, 's2dr': 0.3, 'teacher_tau': 0.1, 'every': 1, **how})


def base(kind=LightGCN):
    return kind(sp.random(M, N, 0.1, random_state=0, format='csr'), dim=8)


def gradient(one, model):
    model.zero_grad()
    terms = one(model, *batch())
    sum(terms.values()).backward()
    return {name: float(value.detach()) for name, value in terms.items()}, model.user.grad.clone()


@pytest.mark.parametrize('own,size', [([], 7), ([0, 1, 2], 5), ([3, 9, 48, 49], 11), ([49], 1)])
def test_every_other_column_is_drawn_equally_often(own, size):
    torch.manual_seed(0)
    own, drawn = torch.tensor(own, dtype=torch.long), torch.zeros(N)
    for _ in range(1000):
        ids, count = draw_columns(own, N, size)
        assert len(ids) == len(own) + size and (ids[: len(own)] == own).all()
        drawn.index_add_(0, ids, count)
    named = torch.zeros(N, dtype=torch.bool)
    named[own] = True
    each = (N - len(own)) / size
    assert (drawn[named] == 1000).all()
    assert (drawn[~named] / 1000 - 1).abs().max() < 5 * (each / 1000) ** 0.5


@pytest.mark.parametrize('kind', [LightGCN, MF])
def test_with_all_anchors_and_all_columns_nothing_is_estimated(kind):
    model = base(kind)
    exact, exact_gradient = gradient(objective(terms='exact'), model)
    found, found_gradient = gradient(objective(terms='sampled', anchors=M, batch_anchors=M, columns=N), model)
    assert found == pytest.approx(exact, rel=1e-5)
    assert torch.allclose(found_gradient, exact_gradient, atol=1e-6)


def estimates(how, draws=200):
    """Term -> exact value and gradient, values and gradients of some draws, all of the vectors of one view."""
    torch.manual_seed(0)
    one, exact = objective(terms='sampled', **how), objective(**{**how, 'terms': 'exact'})
    view, second = ([x.float() for x in vectors(seed, M, N)] for seed in (1, 2))
    users, items, _ = batch()
    together = torch.cat(view).requires_grad_()
    of_view = together[:M], together[M:]
    terms = {
        'sdr': (lambda: exact.reshaping(users, *of_view), lambda: one.sampled_reshaping(users, items, *of_view)),
        's2dr': (
            lambda: s2dr_loss(of_view, second, users, items),
            lambda: sampled_s2dr(of_view, second, users, items, 0.2, one.anchors, one.columns),
        ),
    }

    def measured(term):
        value = term()
        return float(value.detach()), torch.autograd.grad(value, together)[0]

    for name, (whole, part) in terms.items():
        values, gradients = zip(*(measured(part) for _ in range(draws)), strict=True)
        yield name, *measured(whole), np.array(values), torch.stack(gradients)


def test_anchors_bring_no_bias():
    for name, value, gradient, values, gradients in estimates({'anchors': 12, 'columns': N}):
        error = values.std() / len(values) ** 0.5
        assert 0 < error and abs(values.mean() - value) < 4 * error, name
        mean = gradients.mean(0)
        left = (gradients - mean).square().sum((1, 2)).mean().sqrt() / len(gradients) ** 0.5
        assert 0.5 * left < (mean - gradient).norm() < 1.5 * left, name


def test_few_columns_bring_a_small_bias():
    for name, value, gradient, values, gradients in estimates({'anchors': M, 'columns': 12}):
        assert abs(values.mean() - value) < 0.02 * value, name
        assert (gradients.mean(0) - gradient).norm() < 0.2 * gradient.norm(), name


def test_with_a_sharp_teacher_its_best_items_are_worth_naming():
    """A teacher of temperature .02 is a few items, which few columns seldom meet."""
    how = {'anchors': 12, 'columns': 6, 'teacher_tau': 0.02}
    plain, named = (next(estimates({**how, 'top': top}, 300)) for top in (0, 3))
    assert abs(named[3].mean() - named[1]) < 0.5 * abs(plain[3].mean() - plain[1])
    su, si = (x.float() for x in vectors(5, M, N))
    one, users = Teacher(su, si, tau=0.02), torch.tensor([7, 3])
    assert torch.equal(one.best(users, 2), teacher(su, si, 0.02)[0][users].topk(2).indices)


def test_steps_that_are_left_out_are_made_up_for():
    torch.manual_seed(0)
    one, model = objective(terms='sampled', anchors=M, columns=N, every=4), base(MF)
    exact = {name: float(term.detach()) for name, term in objective(terms='exact')(model, *batch()).items()}
    steps = [one(model, *batch()) for _ in range(200)]
    there = [float(terms['sdr'].detach()) for terms in steps if terms['sdr']]
    assert 30 < len(there) < 70 and there == pytest.approx([4 * exact['sdr']] * len(there), rel=1e-5)
    assert all((terms['sdr'] == 0) == (terms['s2dr'] == 0) for terms in steps)


def test_s2dr_from_a_sample_reads_only_its_rows():
    """The gradient reaches anchors and columns, nobody else, and no user who is not in the batch."""
    torch.manual_seed(0)
    views = [[x.requires_grad_() for x in vectors(seed, M, N)] for seed in (1, 2)]
    users, items, _ = batch()
    sampled_s2dr(*views, users, items, anchors=4, size=4).backward()
    reached = [int(x.grad.any(1).sum()) for view in views for x in view]
    whole = [[x.detach().requires_grad_() for x in view] for view in views]
    s2dr_loss(*whole, users, items).backward()
    assert reached[0] <= 8 and max(reached) < int(whole[0][1].grad.any(1).sum())


def test_the_teacher_of_a_sample_is_the_teacher():
    su, si = (x.float() for x in vectors(3, M, N))
    si[4] = 0
    one, users = Teacher(su, si, tau=0.1), torch.tensor([3, 5])
    p, w, count = one.sample(users, torch.arange(N), torch.ones(N))
    want, weight = teacher(su[users], si, 0.1)
    assert torch.allclose(p, want, atol=1e-6) and torch.allclose(w, weight, atol=1e-5) and count[4] == 0
    assert one._buffers['table'] is None and one._buffers['sharpness'] is None, 'nothing was made of all users'


def test_the_choice_is_made_by_size_and_told(monkeypatch):
    assert objective().report()['terms'] == objective(terms='exact').report()['terms'] == 'exact'
    monkeypatch.setattr(objectives_room, 'EXACT_TERMS', M * N - 1)
    told = objective(anchors=9).report()
    assert [told[name] for name in ('terms', 'anchors', 'columns', 'batch_anchors')] == ['sampled', 9, 4096, 256]
    assert objective(terms='exact').report()['terms'] == 'exact'
    with pytest.raises(ValueError, match="use 'exact', 'sampled' or 'auto'"):
        objective(terms='some')
    with pytest.raises(ValueError, match='at least 1'):
        objective(terms='sampled', anchors=0)


def test_the_report_of_a_large_teacher_looks_at_some_users(monkeypatch):
    su, si = (x.float() for x in vectors(3, M, N))
    whole = teacher_report(Teacher(su, si, tau=0.05))
    monkeypatch.setattr(objectives_room, 'ENOUGH', M * N // 2)
    large = Teacher(su, si, tau=0.05)
    part = teacher_report(large)
    assert whole['users_looked_at'] == M and part['users_looked_at'] == M // 2 and large._buffers['weight'] is None
    assert part['weight_mean'] == pytest.approx(whole['weight_mean'], rel=0.1)


def test_a_training_from_samples_resumes_to_the_same_numbers(tmp_path):
    from promax_nb.data.bookshop import toy_data

    data = toy_data(40, 40)
    su, si = (x.float() for x in vectors(5, *data.train.shape))

    def go(folder, epochs):
        one = ProMax(su, si, data.valid, terms='sampled', anchors=8, columns=8, every=2)
        how = dict(batch=64, lr=0.01, checkpoint_seconds=0, eval_every=1, device='cpu', progress=False)
        return fit(LightGCN(data, dim=8), one, data, folder=folder, epochs=epochs, **how)

    whole = go(tmp_path / 'whole', 4)
    go(tmp_path / 'parts', 2)
    parts = go(tmp_path / 'parts', 4)
    assert np.array_equal(whole.users, parts.users) and whole.history['s2dr'].equals(parts.history['s2dr'])
    assert whole.card['objective']['terms'] == 'sampled'
