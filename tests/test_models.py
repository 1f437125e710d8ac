"""One contract over all bases, and each propagation against loops over neighbours."""

import warnings

import numpy as np
import pytest
import reference as ref
import scipy.sparse as sp
import torch

from promax_nb.models.bases import GCCF, MF, LightGCN, Recommender, SimGCL
from promax_nb.models.graph import Graph, norm_adj
from promax_nb.models.objectives import ProMax

BASES = [MF, LightGCN, GCCF, SimGCL]
WORLD = sp.random(12, 9, 0.35, random_state=0, format='csr')
WORLD.data[:] = 1


@pytest.mark.parametrize('base', BASES)
def test_contract(base):
    model = base(WORLD, dim=4, seed=5)
    assert isinstance(model, Recommender)
    u, i = model()
    assert u.shape[0] == 12 and i.shape[0] == 9 and u.shape[1] == i.shape[1]
    (u @ i.T).square().sum().backward()
    assert model.user.grad.abs().sum() > 0 and model.item.grad.abs().sum() > 0
    assert torch.equal(model.user, base(WORLD, dim=4, seed=5).user) and not torch.equal(
        model.user, base(WORLD, dim=4, seed=6).user
    )
    model.eval()
    assert torch.equal(model()[0], model()[0])
    second = model(model.graph(WORLD + sp.random(12, 9, 0.3, random_state=9)))
    assert second[0].shape == u.shape and not torch.allclose(second[0], u)


def dense(model):
    return [list(x.detach()) for x in (model.user, model.item)]


def test_lightgcn_layers():
    for layers in ((0, 1, 2, 3), (1, 2, 3), (2,)):
        model = LightGCN(WORLD, dim=4, sum_layers=layers).double()
        want = ref.propagate(WORLD.toarray(), *dense(model), 3)
        u, i = model()
        for got, side in ((u, 0), (i, 1)):
            assert torch.allclose(
                got, torch.stack([sum(want[k][side][r] for k in layers) for r in range(len(got))]), rtol=1e-6
            )


def test_gccf_and_mf_second_view():
    model = GCCF(WORLD, dim=4).double()
    want = ref.propagate(WORLD.toarray(), *dense(model), 2, self_loops=True)
    assert torch.allclose(
        model()[0], torch.stack([torch.cat([want[k][0][r] for k in range(3)]) for r in range(12)]), rtol=1e-6
    )
    model = MF(WORLD, dim=4).double()
    want = ref.propagate(WORLD.toarray(), *dense(model), 1)
    assert torch.allclose(model(model.adj)[1], torch.stack(want[1][1]), rtol=1e-6)
    assert torch.equal(model()[0], model.user)


def test_simgcl_noise_has_the_given_length_and_orthant():
    model = SimGCL(WORLD, dim=4, layers=1, sum_layers=(1,), eps=0.9)
    clean, noisy = torch.cat(model()), torch.cat(model.noisy())
    moved = noisy - clean
    known = clean.abs().min(1).values > 0
    assert torch.allclose(moved[known].norm(dim=1), torch.full((int(known.sum()),), 0.9), atol=1e-4)
    assert (moved[known] * clean[known] >= 0).all()


def test_edge_dropout():
    big = norm_adj(sp.random(300, 200, 0.2, random_state=0))
    torch.manual_seed(0)
    kept = big.drop(0.2)
    assert abs(kept.matrix - kept.matrix.T).max() == 0
    assert 0.77 < (kept.matrix.data > 0).mean() < 0.83
    assert np.isclose(big.drop(0.5, rescale=True).matrix.sum() / big.matrix.sum(), 1, atol=0.03)
    looped = norm_adj(sp.random(30, 20, 0.2, random_state=0), self_loops=True)
    same = looped.drop(0.0)
    assert abs(same.matrix - looped.matrix).max() < 1e-7
    model = LightGCN(WORLD, dim=4, edge_drop=0.5)
    assert not torch.equal(model()[0], model()[0])
    model.eval()
    assert torch.equal(model()[0], model()[0])


def test_users_and_items_without_edges_get_zero():
    lonely = sp.csr_matrix(([1.0], ([0], [0])), shape=(3, 2))
    a = norm_adj(lonely).matrix
    assert np.isfinite(a.data).all() and a[1].nnz == 0
    assert torch.isfinite(torch.cat(LightGCN(lonely, dim=2)())).all()


def test_torch_and_scipy_multiply_alike(monkeypatch):
    """The product of MKL and of a GPU, and that of a torch without either: the same numbers, the matrix copied once."""
    graph = norm_adj(WORLD)
    x = torch.randn(21, 4)
    thinner = graph.drop(0.5)
    by_torch, thin = graph(x), thinner(x)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(graph(x), by_torch)  # there is no sparse product in bfloat16
    monkeypatch.setattr(torch.backends.mkl, 'is_available', lambda: False)
    assert torch.allclose(by_torch, graph(x), atol=1e-6)
    assert torch.allclose(thin, thinner(x), atol=1e-6)  # not the fuller matrix kept before
    assert not torch.allclose(thin, by_torch)
    assert graph(x.double()).dtype == torch.float64
    assert graph.on(x.device) is graph.on(x.device)
    assert graph.parts(x.device)[1].dtype == torch.int32  # half the weight of 64 bits


def test_tensors_elsewhere_go_to_torch(monkeypatch):
    """A tensor that is not on the CPU never reaches scipy, forward or backward, and bfloat16 goes as float32."""
    taken = []

    class Elsewhere:
        def to(self, dtype):
            taken.append(dtype)
            return self

        def __matmul__(self, x):
            taken.append(x.device.type)
            return torch.empty_like(x)

    monkeypatch.setattr(Graph, 'on', lambda self, device: Elsewhere())
    graph = norm_adj(WORLD)
    x = torch.empty(21, 4, device='meta', dtype=torch.bfloat16, requires_grad=True)
    graph(x).sum().backward()
    assert taken == [torch.float32, 'meta'] * 2
    monkeypatch.setattr(torch.backends.mkl, 'is_available', lambda: False)
    graph(torch.randn(21, 4))
    assert len(taken) == 4


def test_ratings_of_the_caller_stay_and_stored_zeros_are_no_edges():
    ratings = sp.csr_matrix(np.array([[5.0, 3.0], [0.0, 1.0], [4.0, 0.0]]))
    ratings.data[0] = 0  # stored, and nothing
    before = ratings.copy()
    model = LightGCN(ratings, dim=2)
    assert (ratings.data == before.data).all() and ratings.nnz == before.nnz
    assert model.adj.matrix.nnz == 2 * 3 and model.adj.isolated.tolist() == [False] * 5
    clean = sp.csr_matrix(np.array([[0, 1.0], [0, 1.0], [1.0, 0]]))
    assert abs(norm_adj(ratings).matrix - norm_adj(clean).matrix).max() == 0
    twice = sp.coo_matrix((np.ones(3), ([0, 0, 1], [0, 0, 1])), shape=(2, 2))
    assert abs(norm_adj(twice).matrix - norm_adj(sp.identity(2)).matrix).max() == 0


def test_added_interactions_never_take_an_edge_away():
    """A rating of -1 and an added 1 in the same cell are two things that happened, not none."""
    world = sp.csr_matrix(np.array([[-1.0, 1.0], [1.0, 0.0]]))
    added = sp.csr_matrix(np.array([[1.0, 0.0], [0.0, 0.0]]))
    graph = ProMax(sdr=0, added=added).second_graph(MF(world, dim=2))
    assert graph.matrix[0, 2] > 0


@pytest.mark.parametrize('base', [LightGCN, SimGCL])
def test_nodes_without_edges_are_counted_and_have_a_way_in(base):
    world = sp.csr_matrix(np.array([[1.0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]))
    with pytest.warns(UserWarning, match=r'users without a training interaction: 1, items: 2.*layer0'):
        published = base(world, dim=4, sum_layers=(1, 2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        own = base(world, dim=4, sum_layers=(1, 2, 3), cold='layer0')
        base(world, dim=4)
        base(WORLD[:, np.asarray(WORLD.sum(0)).ravel() > 0], dim=4, sum_layers=(1,))
    users, items = published()
    assert (users[2] == 0).all() and (items[2:] == 0).all()
    own_users, own_items = own()
    assert torch.equal(own_users[2], own.user[2]) and torch.equal(own_items[2:], own.item[2:])
    assert torch.equal(own_users[:2], users[:2]) and torch.equal(own_items[:2], items[:2])
    profiles = torch.randn(3, 2), torch.randn(4, 2)
    at = torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([3, 3])
    for model, moves in ((published, False), (own, True)):
        ProMax(*profiles, s2dr=0)(model, *at)['sdr'].backward()
        assert bool(model.item.grad[2].any()) == moves
    with_edge = own(own.graph(world + sp.csr_matrix(([1.0], ([2], [2])), shape=(3, 4))))  # in view 2 they are not alone
    assert not torch.equal(with_edge[0][2], own.user[2]) and torch.equal(with_edge[1][3], own.item[3])


def test_a_graph_of_ones_own_needs_no_more_than_before():
    """A base may propagate over any callable."""

    class Own(LightGCN):
        def graph(self, interactions):
            inner = norm_adj(interactions)
            return lambda x: inner(x) * 0.5

    users, items = Own(WORLD, dim=4, sum_layers=(0, 1))()
    assert users.shape == (12, 4) and items.shape == (9, 4)


@pytest.mark.parametrize(
    'make,message',
    [
        (lambda: LightGCN(WORLD, layers=2, sum_layers=(3,)), 'layers between 0 and 2'),
        (lambda: LightGCN(WORLD, edge_drop=1.0), 'edge_drop'),
        (lambda: LightGCN(WORLD, cold='warm'), "'zero' or 'layer0'"),
        (lambda: MF(sp.csr_matrix((0, 3))), 'at least one user'),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
