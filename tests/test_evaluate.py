"""Metrics against plain loops, masking, comparisons on one split."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from promax_nb.data.bookshop import toy_data
from promax_nb.models import evaluate as ranking
from promax_nb.models.bases import MF
from promax_nb.models.evaluate import (
    evaluate,
    held_out,
    per_user,
    split_identity,
    topk,
    user_metrics,
)
from promax_nb.models.inference import by_sparsity, compare
from promax_nb.models.objectives import BPR
from promax_nb.models.results import load_fit
from promax_nb.models.scorers import as_scorer, best_columns
from promax_nb.models.train import fit


def by_hand(users, items, truth, seen, k):
    """The metrics of every user who holds something out, by loops and sorting."""
    out = {}
    for u in range(len(users)):
        want = set(np.flatnonzero(truth[[u]].toarray()))
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
    cut['test'].data[cut['test'].indptr[3] : cut['test'].indptr[4]] = 0  # stored zeros: nothing is held out
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


class Scores:
    """Somebody's model: nothing but `scores`."""

    def __init__(self, table):
        self.table = table

    def scores(self, rows):
        return self.table[rows]


def kinds_of_scorer(users, items):
    """The same scores in every form that is read."""
    table = users @ items.T
    model = MF(sp.csr_matrix(np.ones(table.shape)), dim=users.shape[1]).double()
    with torch.no_grad():
        model.user.copy_(torch.as_tensor(users))
        model.item.copy_(torch.as_tensor(items))
    return {
        'pair': (users, items),
        'tensors': (torch.as_tensor(users), torch.as_tensor(items)),
        'fit result': SimpleNamespace(users=users, items=items, card={}),
        'base': model,
        'array': table,
        'frame': pd.DataFrame(table),
        'tensor': torch.as_tensor(table),
        'sparse': sp.csr_matrix(table),
        'object': Scores(table),
        'object of sparse rows': Scores(sp.csr_matrix(table)),
        'function': lambda rows: table[rows],
        'scorer': as_scorer(table),
    }


@pytest.fixture(scope='module')
def wide():
    "70 users, 5,000 items: wide enough for groups of columns, and to be cut into blocks."
    rng = np.random.default_rng(0)
    pairs = sp.random(70, 5000, 0.02, random_state=1, format='csr')
    return rng.normal(size=(70, 8)), rng.normal(size=(5000, 8)), pairs


def in_full(users, items, seen, k):
    """Lists from the whole table, sorted; -1 where nothing is left."""
    scores = users @ items.T
    scores[seen.toarray() > 0] = -np.inf
    order = np.argsort(-scores, axis=1, kind='stable')[:, :k]
    return np.where(np.isinf(np.take_along_axis(scores, order, 1)), -1, order)


@pytest.mark.parametrize('columns, cells', [(2**14, 2**21), (700, 7000), (33, 100), (4999, 5000)])
def test_lists_in_blocks_are_those_of_the_whole(wide, monkeypatch, columns, cells):
    monkeypatch.setattr(ranking, 'COLUMNS', {'cpu': columns})
    monkeypatch.setattr(ranking, 'CELLS', {'cpu': cells})
    users, items, seen = wide
    np.testing.assert_array_equal(topk(users, items, 20, seen), in_full(users, items, seen, 20))
    np.testing.assert_array_equal(topk(users, items, 20, seen, rows=[9, 3]), in_full(users, items, seen, 20)[[9, 3]])
    few = sp.csr_matrix(np.arange(5000) > 7, dtype=np.float32)[np.zeros(70, int)]  # eight items are left
    np.testing.assert_array_equal(topk(users, items, 20, few), in_full(users, items, few, 20))


def test_equal_scores_in_blocks_give_the_best_and_nobody_twice(wide, monkeypatch):
    rng = np.random.default_rng(0)
    users, items = rng.integers(-2, 3, (70, 3)).astype(float), rng.integers(-2, 3, (5000, 3)).astype(float)
    best = -np.sort(-(users @ items.T), axis=1)[:, :20]
    for columns in (2**14, 900):
        monkeypatch.setattr(ranking, 'COLUMNS', {'cpu': columns})
        lists = topk(users, items, 20)
        np.testing.assert_array_equal((users[:, None] * items[lists]).sum(2), best)
        assert all(len(set(row)) == 20 for row in lists.tolist())
    small = topk(users, items[:200], 9)  # a narrow table is ranked by torch alone, equal scores as it has them
    np.testing.assert_array_equal(small, (torch.tensor(users) @ torch.tensor(items[:200]).T).topk(9).indices)


def test_groups_of_columns_hide_nothing():
    scores = torch.full((3, 4096), -torch.inf)
    scores[0, 5::256] = torch.arange(16.0)  # all in one group
    scores[1, -3:] = torch.tensor([1.0, 3.0, 2.0])
    scores[2, 7] = torch.nan
    columns, values = best_columns(scores, 16)
    assert columns[0].tolist() == list(range(5 + 15 * 256, 0, -256)) and columns[1, :3].tolist() == [4094, 4095, 4093]
    assert values[2, 0].isnan() and torch.isinf(values[1, 3:]).all()
    odd = torch.tensor(np.random.default_rng(0).normal(size=(4, 3007)))
    assert torch.equal(best_columns(odd, 11)[0], odd.topk(11).indices)


def test_a_fit_is_ranked_where_its_model_is(world):
    users, items = world.vectors
    run = SimpleNamespace(model=torch.nn.Linear(2, 2, device='meta'), users=users, items=items)
    assert [table.device.type for table in ranking.on_its_device(run)] == ['meta', 'meta']
    for model in (None, torch.nn.Linear(2, 2), torch.nn.Identity()):
        here = SimpleNamespace(model=model, users=users, items=items)
        assert ranking.on_its_device(here) is here


def test_scores_that_are_no_numbers_are_refused_in_blocks():
    users = torch.tensor([[0.0, 1.0], [0.0, torch.inf]])  # 0 x inf is no number
    with pytest.raises(ValueError, match='some scores are NaN'):
        ranking._of_vectors(users, torch.zeros(3000, 2), 5)



@pytest.mark.parametrize('kind', kinds_of_scorer(np.eye(2), np.eye(2)))
def test_every_kind_of_scorer_gives_the_numbers_of_two_tables(world, kind):
    """Lists, metrics, comparison and groups read nothing but scores."""
    scorer = kinds_of_scorer(*world.vectors)[kind]
    truth, seen = held_out(world)
    assert (topk(scorer, 7, seen, rows=[3, 1], block=1) == topk(*world.vectors, 7, seen, rows=[3, 1])).all()
    assert per_user(scorer, truth, seen, block=7).equals(per_user(*world.vectors, truth, seen))
    assert evaluate(scorer, truth=truth, seen=seen, ks=(3,)) == evaluate(*world.vectors, truth, seen, ks=(3,))
    noisy = world.vectors[0] + 1, world.vectors[1]
    for table in (compare([noisy, noisy], scorer, world, ks=(5,)), by_sparsity(noisy, scorer, world, 'recall@5')):
        assert table.ours.notna().all()
    assert compare(noisy, scorer, world).equals(compare(noisy, world.vectors, world))


def test_both_ways_to_call_are_the_same_bits(world):
    truth, seen = held_out(world)
    users, items = world.vectors
    want = per_user(users, items, truth, seen, (5, 20), 7)
    for table in (
        per_user((users, items), truth, seen, (5, 20), 7),
        per_user(users=users, items=items, truth=truth, seen=seen, ks=(5, 20)),
        per_user(users, items=items, truth=truth, seen=seen, ks=(5, 20)),
        per_user(as_scorer((users, items)), truth=truth, seen=seen, ks=(5, 20)),
    ):
        assert table.equals(want)


def test_scores_of_others_are_never_written_to(world):
    table = world.vectors[0] @ world.vectors[1].T
    kept = table.copy()
    for scorer in (table, lambda rows: table[rows[0] : rows[-1] + 1], torch.as_tensor(table)):
        topk(scorer, 5, world.train)
    for scorer in (lambda rows: torch.as_tensor(table)[rows[0] : rows[-1] + 1],):
        topk(scorer, 5, world.train, rows=np.arange(40))
    assert (table == kept).all()


def test_what_needs_vectors_says_so(world):
    assert as_scorer(world.vectors).need_vectors('a map')[0].shape == (40, 6)
    with pytest.raises(ValueError, match='a list of similar items needs vectors'):
        as_scorer(np.ones((40, 30))).need_vectors('a list of similar items')


def test_integers_and_minus_infinity_rank_too():
    """Counts are scores; minus infinity is an item that cannot be recommended."""
    counts = np.array([[3, 1, 2], [0, 5, 4]])
    assert topk(counts, 2).tolist() == [[0, 2], [1, 2]]
    some = np.where(counts == 3, -np.inf, counts)
    assert topk(some, 3).tolist() == [[2, 1, -1], [1, 2, 0]]


@pytest.mark.parametrize(
    'what,message',
    [
        (lambda w: SimpleNamespace(train=1), 'a SimpleNamespace cannot rank'),
        (lambda w: toy_data(60, 40, seed=0), 'a RecData cannot rank'),
        (lambda w: (as_scorer(w.vectors), as_scorer(w.vectors)), r'as a list \[a, b, c\]'),
        (lambda w: (*w.vectors, w.vectors[0]), 'as a list'),
        (lambda w: (w.vectors, w.vectors), 'as a list'),
        (lambda w: Scores, 'Scores is a class'),
        (lambda w: [], 'empty list'),
        (lambda w: lambda rows: np.ones(30), 'came as'),
        (lambda w: lambda rows: np.ones((len(rows) + 1, 30)), 'came as'),
        (lambda w: lambda rows: np.ones((len(rows), 7)), 'came as'),
        (lambda w: lambda rows: np.full((len(rows), 30), np.nan), 'NaN'),
        (lambda w: np.ones((40, 31)), '40 users and 31 items'),
        (lambda w: list(w.vectors), '40 users and 6 items'),
    ],
)
def test_what_cannot_rank_is_refused(world, what, message):
    with pytest.raises(ValueError, match=message):
        compare(world.vectors, what(world), world)


def test_lists_without_rows_need_to_know_how_many():
    with pytest.raises(ValueError, match='pass rows'):
        topk(lambda rows: np.ones((len(rows), 3)))
    assert topk(lambda rows: np.ones((len(rows), 3)), k=1, rows=[5]).shape == (1, 1)


def small_fit(data, seed=0, **more):
    return fit(MF(data, dim=4, seed=seed), BPR(), data, epochs=1, batch=256, device='cpu', **more)


def test_fits_of_another_split_are_refused(tmp_path):
    here, there = toy_data(60, 40, seed=0), toy_data(60, 40, seed=0)
    order = np.random.default_rng(5).permutation(60)
    there.train, there.valid, there.test = (m[order] for m in (there.train, there.valid, there.test))
    fits = {'here': small_fit(here), 'there': small_fit(there)}
    assert len(compare(fits['here'], fits['here'], here)) and len(compare(fits['there'], [fits['there']], there))
    for base, ours, name in (('there', 'here', 'base'), ('here', 'there', 'ours')):
        with pytest.raises(ValueError, match=f'{name} was trained on other training interactions and other validation'):
            compare(fits[base], [fits[ours], fits[ours]], here)
        with pytest.raises(ValueError, match=f'{name} was trained on other'):
            by_sparsity(fits[base], fits[ours], here)
    with pytest.raises(ValueError, match='another split'):
        compare(fits['here'], load_fit(fits['there'].save(tmp_path / 'saved')), here)
    swapped = SimpleNamespace(train=here.train, valid=here.test, test=here.valid)
    with pytest.raises(ValueError, match='trained on other validation interactions'):
        user_metrics(fits['here'], swapped)


def test_cards_of_the_first_version_are_read():
    """They hold one hash of all splits."""
    here, other = toy_data(60, 40, seed=0), toy_data(60, 40, seed=1)
    result = small_fit(here)
    assert result.card['split_identity'] == split_identity(here)
    del result.card['split_identity']
    assert len(compare(result, result, here))
    with pytest.raises(ValueError, match='trained on other data'):
        compare(result, result, other)
    plain = SimpleNamespace(train=other.train, valid=other.valid, test=other.test)  # no hash to compare with
    assert len(compare(result, result, plain))


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
