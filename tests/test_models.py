"""One contract over all bases, and each propagation against loops over neighbours."""

import numpy as np
import pytest
import reference as ref
import scipy.sparse as sp
import torch

from promax_nb.models.bases import GCCF, MF, LightGCN, Recommender, SimGCL
from promax_nb.models.graph import Graph, norm_adj

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


def test_other_device_path_equals_scipy():
    """The torch product (used on accelerators) and scipy's agree; the 'meta' of a GPU is not needed to check the arithmetic."""
    g = norm_adj(WORLD)
    x = torch.randn(21, 4)
    m = g.matrix
    t = torch.sparse_csr_tensor(
        torch.from_numpy(m.indptr.astype(np.int64)),
        torch.from_numpy(m.indices.astype(np.int64)),
        torch.from_numpy(m.data),
        m.shape,
    )
    assert torch.allclose(t @ x, g.matmul(x), atol=1e-6)
    assert isinstance(g, Graph) and g.n_users == 12


@pytest.mark.parametrize(
    'make,message',
    [
        (lambda: LightGCN(WORLD, layers=2, sum_layers=(3,)), 'layers between 0 and 2'),
        (lambda: LightGCN(WORLD, edge_drop=1.0), 'edge_drop'),
        (lambda: MF(sp.csr_matrix((0, 3))), 'at least one user'),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
