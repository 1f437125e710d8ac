"""Metrics against plain loops, masking, comparisons that find what is there and nothing else."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from promax_nb.models.evaluate import by_sparsity, compare, evaluate, held_out, paired, per_user, topk


def by_hand(users, items, truth, seen, k):
    """The metrics of every user who holds something out, by loops and sorting."""
    out = {}
    for u in range(len(users)):
        want = set(truth[u].indices)
        if not want:
            continue
        rank = [
            i
            for i in sorted(range(len(items)), key=lambda i: -float(users[u] @ items[i]))
            if i not in set(seen[u].indices)
        ][:k]
        hits = [i in want for i in rank]
        dcg = sum(h / math.log2(n + 2) for n, h in enumerate(hits))
        ideal = sum(1 / math.log2(n + 2) for n in range(min(len(want), k)))
        out[u] = {
            f'recall@{k}': sum(hits) / len(want),
            f'precision@{k}': sum(hits) / k,
            f'ndcg@{k}': dcg / ideal,
            f'hit@{k}': float(any(hits)),
            f'mrr@{k}': 1 / (hits.index(True) + 1) if any(hits) else 0.0,
        }
    return out


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    part = rng.random((40, 30))
    cut = {
        s: sp.csr_matrix(((part >= a) & (part < b)).astype(np.float32))
        for s, a, b in (('train', 0, 0.2), ('valid', 0.2, 0.25), ('test', 0.25, 0.35))
    }
    cut['test'][3] = 0
    cut['test'].eliminate_zeros()
    return SimpleNamespace(**cut, vectors=(rng.normal(size=(40, 6)), rng.normal(size=(30, 6))))


@pytest.mark.parametrize('k', [1, 5, 20, 30])
@pytest.mark.parametrize('mask', ['train', 'train+valid'])
def test_against_loops(world, k, mask):
    truth, seen = held_out(world, 'test', mask)
    got, want = per_user(*world.vectors, truth, seen, (k,), block=7), by_hand(*world.vectors, truth, seen, k)
    assert list(got.index) == list(want) and 3 not in want
    for u, row in want.items():
        for m, v in row.items():
            assert got.loc[u, m] == pytest.approx(v, abs=1e-12), (u, m)
    assert evaluate(*world.vectors, truth, seen, (k,))[f'recall@{k}'] == pytest.approx(
        np.mean([r[f'recall@{k}'] for r in want.values()])
    )


def test_seen_items_never_appear_and_short_lists_are_padded():
    u, i = torch.randn(5, 3), torch.randn(6, 3)
    seen = sp.csr_matrix(np.eye(5, 6) + np.eye(5, 6, 1) > 0)
    got = topk(u, i, 6, seen)
    assert ((got >= 0).sum(1) == 4).all()
    for r in range(5):
        assert not set(got[r]) & set(seen[r].indices)


def test_masks_differ_when_validation_items_rank_first():
    data = SimpleNamespace(
        train=sp.csr_matrix((1, 3)), valid=sp.csr_matrix([[1.0, 0, 0]]), test=sp.csr_matrix([[0, 1.0, 0]])
    )
    v = np.array([[1.0]]), np.array([[3.0], [2.0], [1.0]])
    assert evaluate(*v, *held_out(data, mask='train+valid'), ks=(1,))['recall@1'] == 1
    assert evaluate(*v, *held_out(data, mask='train'), ks=(1,))['recall@1'] == 0


def test_compare_finds_and_does_not_find(world):
    def noisy(seed, size):
        return world.vectors[0] + np.random.default_rng(seed).normal(size=(40, 6)) * size, world.vectors[1]

    world.test = sp.csr_matrix(
        (world.vectors[0] @ world.vectors[1].T > 3) & (world.train.toarray() + world.valid.toarray() == 0)
    )
    found = compare(noisy(0, 3.0), noisy(1, 0.3), world, ks=(5,)).loc['recall@5']
    assert found.low > 0 and found.p < 0.01 and found.difference == pytest.approx(found.ours - found.base)
    seeds = compare([noisy(s, 3.0) for s in range(3)], [noisy(s, 3.0) for s in range(5, 8)], world, ks=(5,)).loc[
        'recall@5'
    ]
    assert seeds.low < 0 < seeds.high and seeds.base_sd > 0
    assert np.isnan(found.base_sd)


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    import pandas as pd

    rng, hit = np.random.default_rng(1), 0
    for t in range(200):
        a = pd.DataFrame({'recall@5': rng.normal(0, 1, 80)})
        row = paired(a, a + rng.normal(0.1, 0.5, (80, 1)), n_boot=300, seed=t).loc['recall@5']
        hit += row.low <= 0.1 <= row.high
    assert 0.88 <= hit / 200 <= 0.99, hit / 200


def test_groups_cover_everybody(world):
    g = by_sparsity(world.vectors, world.vectors, world, edges=[4, 8])
    assert g.users.sum() == len(per_user(*world.vectors, world.test)) and (g.difference == 0).all()
    assert (g.to.iloc[:-1].values < g['from'].iloc[1:].values).all()


@pytest.mark.parametrize(
    'call,message',
    [
        (lambda w: evaluate(*w.vectors, sp.csr_matrix((40, 30))), 'nobody has a held-out'),
        (lambda w: evaluate(w.vectors[0], np.ones((30, 2)), w.test), 'same width'),
        (lambda w: evaluate(w.vectors[0] * np.nan, w.vectors[1], w.test), 'NaN'),
        (lambda w: topk(*w.vectors, 3, sp.csr_matrix((2, 2))), 'same data'),
        (lambda w: compare(w.vectors, w.vectors, w, mask='none'), 'mask'),
        (lambda w: compare(w.vectors, w.vectors, w, split='train'), 'split'),
    ],
)
def test_bad_input(world, call, message):
    with pytest.raises(ValueError, match=message):
        call(world)
