"""Losses and teachers against plain-loop references in double precision, values and gradients."""

import numpy as np
import pytest
import reference as ref
import scipy.sparse as sp
import torch

from promax_nb.models import losses as losses_room
from promax_nb.models import objectives as objectives_room
from promax_nb.models.bases import MF, LightGCN, SimGCL
from promax_nb.models.distributions import confidence, entropy, js, kl, sharpness, softmax
from promax_nb.models.losses import infonce, softmax_term
from promax_nb.models.objectives import BPR, ProMax, Teacher


def draw(seed, *sizes):
    return [
        torch.randn(*s, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + k), requires_grad=True)
        for k, s in enumerate(sizes)
    ]


def same(ours, theirs, inputs, rtol=1e-6):
    """Equal values and equal gradients with respect to every input."""
    assert torch.allclose(ours, theirs, rtol=rtol, atol=1e-12), (float(ours), float(theirs))
    grads = (torch.autograd.grad(x, inputs, retain_graph=True) for x in (ours, theirs))
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, rtol=rtol, atol=1e-12), (a - b).abs().max()


@pytest.mark.parametrize('seed', range(3))
def test_bpr(seed):
    x = draw(seed, (6, 4), (6, 4), (6, 4))
    same(losses_room.bpr_loss(*x), ref.bpr(*x), x)


@pytest.mark.parametrize('tau,floor', [(0.2, 0.1), (0.05, 0.3), (1.0, 0.0)])
def test_teacher(tau, floor):
    su, si = draw(1, (5, 3), (9, 3))
    su, si = su.detach(), si.detach()
    p, w = losses_room.teacher(su, si, tau, floor)
    want_p, want_w = ref.teacher(su, si, tau, floor)
    assert torch.allclose(p, want_p, rtol=1e-6) and torch.allclose(w, want_w, rtol=1e-6)


@pytest.mark.parametrize('tau', [0.2, 0.05, 0.01])
def test_sdr(tau):
    u, items = draw(2, (5, 4), (13, 4))
    p, w = (x.detach() for x in losses_room.teacher(*draw(3, (5, 3), (13, 3)), tau=0.2))
    same(losses_room.sdr_loss(u, items, p, w, tau), ref.sdr(u, items, p, w, tau), (u, items))


@pytest.mark.parametrize('users,items', [([0, 1, 2, 3], [4, 3, 2, 1]), ([0, 0, 0, 2, 2], [1, 1, 3, 3, 0]), ([1], [1])])
@pytest.mark.parametrize('tau', [0.2, 0.5])
def test_s2dr(users, items, tau):
    u1, i1, u2, i2 = x = draw(4, (4, 3), (5, 3), (4, 3), (5, 3))
    ours = losses_room.s2dr_loss((u1, i1), (u2, i2), torch.tensor(users), torch.tensor(items), tau)
    same(ours, ref.s2dr((u1, i1), (u2, i2), users, items, tau), x)


def published_infonce(a, b, tau=0.2):
    """InfoNCE with 1e-5 added inside the log, as the published code has it."""
    a, b = (torch.nn.functional.normalize(x, dim=1) for x in (a, b))
    e = torch.exp(a @ b.T / tau)
    return -torch.log(e.diagonal() / e.sum(1) + 1e-5).mean()


@pytest.mark.parametrize('rows,width,noise,close', [(64, 16, 100, True), (1500, 32, 1, True), (1500, 32, 100, False)])
def test_s2dr_is_close_to_the_published_log_with_an_offset(rows, width, noise, close):
    """The published code adds 1e-5 inside the log of the same-kind terms; we do not. The difference stays below
    a tenth of a percent, unless the two views have nothing in common and the batch is large."""
    u1, direction = (x.detach() for x in draw(5, (rows, width), (rows, width)))
    u2 = u1 + noise * direction
    change = abs(float(published_infonce(u1, u2) / infonce(u1, u2) - 1))
    assert change > 1e-6 and (change < 1e-3) == close


@pytest.mark.parametrize('tau', [0.2, 0.005])
def test_softmax_term_blocks_and_shift(tau):
    a, b = draw(6, (11, 4), (7, 4))
    w, v = torch.rand(11, dtype=torch.float64), torch.randint(1, 4, (7,)).double()
    plain = (w * torch.logsumexp(a @ b.T / tau + v.log(), 1)).sum()
    for block in (1, 3, 11, 100):
        same(softmax_term(a, b, w, v, tau=tau, block=block), plain, (a, b), 1e-9)
    assert torch.autograd.gradcheck(lambda a, b: softmax_term(a, b, w, v, tau=max(tau, 0.2), block=4), (a, b))


def test_softmax_term_with_one_side_constant():
    a, b = draw(7, (4, 3), (5, 3))
    assert torch.allclose(
        torch.autograd.grad(softmax_term(a, b.detach()), a)[0], torch.autograd.grad(softmax_term(a, b), a)[0]
    )
    assert torch.allclose(
        torch.autograd.grad(softmax_term(a.detach(), b), b)[0], torch.autograd.grad(softmax_term(a, b), b)[0]
    )
    with torch.no_grad():
        assert torch.isfinite(softmax_term(a, b))


def test_simgcl_contrast():
    world = sp.random(6, 5, 0.5, random_state=0, format='csr')
    model = SimGCL(world, dim=4).double()
    users, items = [0, 0, 3, 5], [1, 2, 2, 4]
    torch.manual_seed(1)
    views = model.noisy(), model.noisy()
    torch.manual_seed(1)
    ours = model.extra_loss(torch.tensor(users), torch.tensor(items))['simgcl']
    (u1, i1), (u2, i2) = views
    same(ours, ref.simgcl(u1, u2, i1, i2, users, items, model.weight, model.tau), tuple(model.parameters()))


def test_objective_sums_the_references():
    """ProMax on LightGCN: every term equals its formula, on the very vectors that the model gives."""
    r, extra = sp.random(7, 6, 0.4, random_state=0, format='csr'), sp.random(7, 6, 0.2, random_state=3, format='csr')
    model = LightGCN(r, dim=4).double()
    su, si = (x.detach().float() for x in draw(8, (7, 3), (6, 3)))
    users, pos, neg = [0, 1, 1, 4], [2, 0, 5, 5], [1, 1, 2, 0]
    terms = ProMax(su, si, extra, sdr=0.7, s2dr=0.3).double()(model, *(torch.tensor(x) for x in (users, pos, neg)))
    u, i = model()
    distinct = sorted(set(users))
    p, w = ref.teacher(su[distinct].double(), si.double(), 0.2, 0.1)
    same(terms['bpr'], ref.bpr(u[users], i[pos], i[neg]), tuple(model.parameters()))
    same(terms['sdr'], 0.7 * ref.sdr(u[distinct], i, p, w, 0.2), tuple(model.parameters()), 1e-5)
    both = model(model.graph((r + extra) > 0))
    same(terms['s2dr'], 0.3 * ref.s2dr((u, i), both, users, pos, 0.2), tuple(model.parameters()))


def test_teacher_modes_agree_and_report():
    su, si = torch.randn(40, 6), torch.randn(25, 6)
    batch = torch.tensor([3, 1, 39])
    want, w = losses_room.teacher(su, si)
    for kw in ({}, {'memory': 0}, {'topk': 24}):
        t = Teacher(su, si, **kw)
        assert torch.allclose(t.rows(batch)(slice(None)), want[batch], atol=1e-6) and torch.allclose(
            t.weight, w, atol=1e-6
        )
    approx = Teacher(su, si, topk=5)
    got = approx.rows(batch)(slice(None))
    assert torch.allclose(got.sum(1), torch.ones(3)) and torch.allclose(
        got.max(1).values, want[batch].max(1).values, atol=1e-6
    )
    assert objectives_room.teacher_report(approx)['share_at_floor'] == float((w <= 0.1).float().mean())


def test_users_and_items_without_a_profile():
    """A user without a profile weighs 0 in every form; items without one are as if they were not there."""
    su, si = torch.randn(30, 6), torch.randn(25, 6)
    su[[2, 9]] = 0
    si[[0, 24]] = 0
    rest = torch.arange(1, 24)
    batch = torch.arange(30)
    want_p, want_w = ref.teacher(su[3:6].double(), si[rest].double(), 0.2, 0.1)
    for kw in ({}, {'memory': 0}, {'topk': 23}):
        t = Teacher(su, si, **kw)
        p = t.rows(batch)(slice(None))
        assert (p[:, [0, 24]] == 0).all() and torch.allclose(p.sum(1), torch.ones(30))
        assert torch.allclose(p[3:6, rest].double(), want_p, rtol=1e-4)
        assert torch.allclose(t.weight[3:6].double(), want_w, rtol=1e-3)
        assert t.weight[[2, 9]].tolist() == [0, 0] and (t.weight > 0).sum() == 28
        report = objectives_room.teacher_report(t)
        assert (report['users_without_profile'], report['items_without_profile']) == (2, 2)
        assert report['weight_min'] >= 0.1
    spread = Teacher(su, si, topk=3).rows(batch)(slice(None))
    assert (spread[:, [0, 24]] == 0).all() and torch.allclose(spread.sum(1), torch.ones(30))
    relative = Teacher(su, si, form='relative')
    assert relative.weight[[2, 9]].tolist() == [0, 0]
    assert torch.equal(
        relative.weight[3:9], Teacher(su[[u for u in range(30) if u not in (2, 9)]], si, form='relative').weight[2:8]
    )
    with pytest.raises(ValueError, match='every item profile vector is zero'):
        Teacher(su, torch.zeros(25, 6))
    p, w = losses_room.teacher(su, si)
    assert torch.allclose(p, Teacher(su, si).table, atol=1e-6) and w[2] == 0


@pytest.mark.parametrize('tau', [0.2, 0.01, 0.005])
def test_sdr_says_nothing_about_items_without_a_profile(tau):
    """Value and gradients are those of a catalogue without these items, also where one has the largest logit."""
    u, items = draw(2, (5, 4), (13, 4))
    p, w = (x.detach() for x in losses_room.teacher(*draw(3, (5, 3), (9, 3)), tau=0.2))
    known = torch.ones(13, dtype=torch.bool)
    known[[0, 4, 7, 12]] = False
    wide = torch.zeros(5, 13, dtype=torch.float64)
    wide[:, known] = p
    ours = losses_room.sdr_loss(u, items, wide, w, tau, known)
    same(ours, ref.sdr(u, items[known], p, w, tau), (u, items))
    assert (torch.autograd.grad(ours, items)[0][~known] == 0).all()


def test_columns_that_do_not_count_take_no_part_where_exponentials_end():
    """In single precision exp(-400) is zero: the shift must not come from a column that is left out."""
    rows, columns = torch.eye(3), torch.cat([torch.eye(3), -torch.eye(3)])
    counted = torch.tensor([0.0, 1, 1, 1, 1, 1])
    value = softmax_term(rows[:1], columns, count=counted, tau=0.0025)
    assert torch.isclose(value, torch.tensor(4.0).log())  # four columns at cosine 0, one at -1


def test_profiles_that_are_missing_are_said():
    su, si = torch.randn(7, 3), torch.randn(6, 3)
    su[1] = 0
    with pytest.warns(UserWarning, match='1 of 7 users, who weigh nothing in SDR, and 0 of 6 items'):
        objective = ProMax(su, si, s2dr=0)
    assert objective.report()['teacher']['users_without_profile'] == 1
    r = sp.random(7, 6, 0.4, random_state=0, format='csr')
    model = MF(r, dim=4)
    objective(model, torch.tensor([1, 1]), torch.tensor([0, 1]), torch.tensor([2, 3]))['sdr'].backward()
    assert not model.user.grad.any() and not model.item.grad.any()
    si[4] = 0
    with pytest.warns(UserWarning, match='1 of 6 items, which are left out of it'):
        objective = ProMax(su, si, s2dr=0)
    objective(model, torch.tensor([0, 2]), torch.tensor([0, 1]), torch.tensor([2, 3]))['sdr'].backward()
    assert not model.item.grad[4].any() and model.item.grad[[0, 1, 2, 3, 5]].any(1).all()


def test_distributions_of_numpy_and_torch_agree_with_loops():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4, 6)) * 3
    known = np.array([True, False, True, True, True, False])
    want = np.array([[float(x) for x in ref.softmax(torch.as_tensor(row / 0.5))] for row in z])
    p, q = softmax(z, 0.5), softmax(rng.normal(size=(4, 6)))
    assert np.allclose(p, want, rtol=1e-12) and np.allclose(softmax(torch.as_tensor(z), 0.5), p, rtol=1e-12)
    some = softmax(z, 0.5, known)
    assert np.allclose(some[:, known], softmax(z[:, known], 0.5)) and (some[:, ~known] == 0).all()
    assert np.allclose(softmax(torch.as_tensor(z), 0.5, torch.as_tensor(known)), some)
    loops = {
        'entropy': [-sum(x * np.log(x) for x in row) for row in p],
        'kl': [sum(x * np.log(x / y) for x, y in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)],
    }
    mid = (p + q) / 2
    tp, tq = torch.as_tensor(p), torch.as_tensor(q)
    assert np.allclose(entropy(p), loops['entropy']) and np.allclose(entropy(tp), loops['entropy'])
    assert np.allclose(kl(p, q), loops['kl']) and np.allclose(kl(tp, tq), loops['kl'])
    assert np.allclose(js(p, q), (kl(p, mid) + kl(q, mid)) / 2) and np.allclose(js(tp, tq), js(p, q))
    assert isinstance(entropy(tp), torch.Tensor) and isinstance(entropy(p), np.ndarray)
    assert (
        np.allclose(sharpness(some, 4), sharpness(some[:, known])) and (sharpness(some, 4) > sharpness(some) - 1).all()
    )
    w = confidence(sharpness(p), 'relative', known=np.array([True, False, True, True]))
    t = confidence(sharpness(tp), 'relative', known=torch.tensor([True, False, True, True]))
    assert (
        np.allclose(w, t) and w[1] == 0 and np.isclose(w[[0, 2, 3]].mean(), confidence(sharpness(p[[0, 2, 3]])).mean())
    )


def test_confidence_forms():
    sharp = torch.linspace(0.01, 0.06, 50)
    published, relative = losses_room.confidence(sharp), losses_room.confidence(sharp, 'relative')
    assert (published == 0.1).all(), 'inert at the published settings'
    assert relative.std() > 0.01 and torch.isclose(relative.mean(), published.mean())
    with pytest.raises(ValueError, match="'published' or 'relative'"):
        losses_room.confidence(sharp, 'other')


def test_sdr_moves_the_student_towards_the_teacher():
    su, si = torch.randn(20, 4), torch.randn(15, 4)
    p, w = losses_room.teacher(su, si)
    u, i = torch.randn(20, 8, requires_grad=True), torch.randn(15, 8, requires_grad=True)
    before = losses_room.sdr_loss(u, i, p, w).item()
    opt = torch.optim.Adam([u, i], lr=0.05)
    for _ in range(100):
        opt.zero_grad()
        losses_room.sdr_loss(u, i, p, w).backward()
        opt.step()
    bound = float((w * entropy(p)).mean())
    assert bound <= losses_room.sdr_loss(u, i, p, w).item() < before and (before - bound) > 5 * (
        losses_room.sdr_loss(u, i, p, w).item() - bound
    )


def test_bf16_is_close():
    u, items = torch.randn(30, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    p, w = losses_room.teacher(torch.randn(30, 4), torch.randn(50, 4))
    full = losses_room.sdr_loss(u, items, p, w)
    with torch.autocast('cpu', torch.bfloat16):
        low = losses_room.sdr_loss(u, items, p, w)
    a, b = torch.autograd.grad(full, u)[0], torch.autograd.grad(low, u)[0]
    assert (
        full.item() == pytest.approx(low.item(), rel=5e-3)
        and torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99
    )


@pytest.mark.parametrize(
    'make,message',
    [
        (lambda: ProMax(sdr=0.5, s2dr=0), 'pass su and si'),
        (lambda: ProMax(torch.ones(3, 2), torch.ones(4, 2)), 'pass added'),
        (lambda: ProMax(torch.ones(3, 2), torch.ones(4, 5), s2dr=0), 'same width'),
        (lambda: ProMax(sdr=-1), 'must not be negative'),
        (lambda: ProMax(torch.full((3, 2), torch.nan), torch.ones(4, 2), s2dr=0), 'NaN'),
        (lambda: Teacher(torch.ones(3, 2), torch.ones(4, 2), topk=9), 'topk=9'),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_profiles_fewer_than_ids_and_wrong_added():
    r = sp.random(7, 6, 0.4, random_state=0, format='csr')
    at = [torch.tensor([0])] * 3
    with pytest.raises(ValueError, match='one vector per id'):
        ProMax(torch.ones(5, 2), torch.ones(6, 2), s2dr=0)(MF(r), *at)
    with pytest.raises(ValueError, match='augment the same data'):
        ProMax(sdr=0, added=sp.csr_matrix((3, 3)))(MF(r), *at)


def test_zero_weights_give_the_base():
    r = sp.random(7, 6, 0.4, random_state=0, format='csr')
    at = torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([3, 3])
    assert set(ProMax(sdr=0, s2dr=0)(MF(r), *at)) == set(BPR()(MF(r), *at)) == {'bpr'}
    assert np.isclose(
        float(ProMax(sdr=0, s2dr=0)(MF(r), *at)['bpr'].detach()), float(BPR()(MF(r), *at)['bpr'].detach())
    )
