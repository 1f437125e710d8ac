"""What lists are like apart from being right: against plain loops, with intervals that hold the truth."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from promax_nb.data.bookshop import toy_data
from promax_nb.models.beyond import beyond
from promax_nb.models.evaluate import ranked, split_identity, user_metrics
from promax_nb.models.exposure import (
    coverage,
    coverage_by_user,
    gini,
    gini_by_user,
    list_diversity,
    list_measures,
    list_overlap,
    list_popularity,
    measures_of_sides,
    novelty,
    overlap_measures,
    popularity_lift,
    rank_biased_overlap,
    shared_to_depth,
    shown_to,
)
from promax_nb.models.inference import by_sparsity, compare, contrast
from promax_nb.report import lists_line


def mean(numbers):
    numbers = list(numbers)
    return sum(numbers) / len(numbers) if numbers else math.nan


def cos(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def by_loops(lists, train, users, vectors):
    """Every measure of every user, and of the catalogue, by looping over single items."""
    histories = [[i for i in range(train.shape[1]) if row[i]] for row in train.toarray()]
    count = Counter(i for history in histories for i in history)
    active = sum(1 for history in histories if history)
    rows = []
    for u, places in zip(users, lists, strict=True):
        listed = [i for i in places if i >= 0]
        popularity, before = mean(count[i] for i in listed), mean(count[i] for i in histories[u])
        pairs = [(i, j) for i in listed for j in listed if i != j and any(vectors[i]) and any(vectors[j])]
        rows.append({
            'novelty': mean(-math.log2(max(count[i], 1) / active) for i in listed),
            'popularity': popularity,
            'popularity_lift': popularity / before,
            'diversity': mean(1 - cos(vectors[i], vectors[j]) for i, j in pairs),
        })
    shown = Counter(i for places in lists for i in places if i >= 0)
    x = [shown[i] for i in range(train.shape[1])]
    differences = sum(abs(a - b) for a in x for b in x)
    return pd.DataFrame(rows), {'coverage': len(shown) / len(x), 'gini': differences / (2 * len(x) * sum(x))}


def overlaps_by_loops(one, other, p):
    """Jaccard and rank-biased overlap of one user's lists."""
    a, b = [i for i in one if i >= 0], [i for i in other if i >= 0]
    if not a and not b:
        return math.nan, math.nan
    agreement = weights = 0.0
    for d in range(1, max(len(a), len(b)) + 1):
        agreement += p ** (d - 1) * len(set(a[:d]) & set(b[:d])) / d
        weights += p ** (d - 1)
    return len(set(a) & set(b)) / len(set(a) | set(b)), agreement / weights


def random_lists(rng, n_users, n_items, k, full=0.7):
    """Different items in each list; some lists end early, one is empty."""
    lists = np.array([rng.permutation(n_items)[:k] for _ in range(n_users)])
    ends = np.where(rng.random(n_users) < full, k, rng.integers(0, k + 1, n_users))
    ends[0] = 0
    return np.where(np.arange(k) < ends[:, None], lists, -1)


@pytest.fixture
def world():
    rng = np.random.default_rng(0)
    skew = 0.6 * 0.9 ** np.arange(30)  # some items that many have, some that nobody has
    train = sp.csr_matrix((rng.random((40, 30)) < skew).astype(np.float32))
    train.data[train.indptr[5] : train.indptr[6]] = 0  # stored zeros: no history
    vectors = rng.normal(size=(30, 4))
    vectors[[3, 17]] = 0
    users = np.r_[5, rng.permutation(np.delete(np.arange(40), 5))[:24]]
    lists = [random_lists(rng, 25, 30, 6) for _ in range(2)]
    return SimpleNamespace(train=train, vectors=vectors, users=users, lists=lists)


def test_against_loops(world):
    ranked = world.lists[0]
    want, whole = by_loops(ranked, world.train, world.users, world.vectors)
    got = list_measures(ranked, world.train, world.users, world.vectors)
    assert list(got.index) == list(world.users) and want.popularity_lift.isna().sum() >= 2  # no list, no history
    for name, values in want.items():
        np.testing.assert_allclose(got[f'{name}@6'], values, atol=1e-12, rtol=0, equal_nan=True, err_msg=name)
    for name, value in whole.items():
        assert got[f'{name}@6'].mean() == pytest.approx(value, abs=2e-10), name
    counts = shown_to(ranked, 30).sum(0).A1
    assert (coverage(counts), gini(counts)) == pytest.approx(tuple(whole.values()), abs=1e-12)


@pytest.mark.parametrize('p', [0.85, 0.5, 1.0])
def test_overlaps_against_loops(world, p):
    one, other = (ranked.copy() for ranked in world.lists)
    one[4] = np.arange(6)
    other[3], other[4], other[0] = one[3], one[4, ::-1], -1
    want = np.array([overlaps_by_loops(a, b, p) for a, b in zip(one, other, strict=True)])
    np.testing.assert_allclose(list_overlap(one, other), want[:, 0], atol=1e-12, equal_nan=True)
    np.testing.assert_allclose(rank_biased_overlap(one, other, p), want[:, 1], atol=1e-12, equal_nan=True)
    assert np.isnan(want[0]).all() and want[3].tolist() == pytest.approx([1, 1]) and want[4, 1] < want[4, 0] == 1


def test_blocks_of_users_change_nothing(world):
    whole = shared_to_depth(*world.lists)
    assert np.array_equal(shared_to_depth(*world.lists, block=4), whole) and whole.max() > 0


def test_leaving_one_user_out(world):
    """Coverage and Gini without each user, and the variance that the jackknife makes of them."""
    ranked, n = world.lists[0], len(world.lists[0])
    for measure, of_users in ((coverage, coverage_by_user), (gini, gini_by_user)):
        without = []
        for place in range(n):
            rest = np.delete(ranked, place, axis=0)
            without.append(measure(np.bincount(rest[rest >= 0], minlength=30)))
        got = of_users(ranked, 30)
        whole = measure(np.bincount(ranked[ranked >= 0], minlength=30))
        np.testing.assert_allclose(got, whole + (n - 1) * (np.mean(without) - without), atol=2e-10)
        jackknife = (n - 1) / n * np.square(np.array(without) - np.mean(without)).sum()
        assert got.var(ddof=1) / n == pytest.approx(jackknife) and jackknife > 0


def test_lists_that_a_user_alone_has():
    one = np.array([[2, 0, 1]])
    assert coverage_by_user(one, 5).tolist() == [0.6] and gini_by_user(one, 5).tolist() == pytest.approx([0.4])
    nothing = np.full((3, 2), -1)
    assert coverage_by_user(nothing, 5).tolist() == [0, 0, 0] == gini_by_user(nothing, 5).tolist()
    assert np.isfinite(gini_by_user(np.array([[0, 1], [-1, -1]]), 5)).all()


def test_numbers_that_others_print():
    """Examples of RecTools' documentation: MeanInvUserFreq and AvgRecPopularity."""
    lists = np.array([[2, -1], [1, 2], [0, 1]])
    train = sp.csr_matrix(np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0]]))
    assert novelty(lists, train) == pytest.approx([1.5849625, 1.5849625, 0.79248125])
    lists = np.array([[0, 1, -1], [2, 0, 1], [2, 1, -1]])
    train = sp.csr_matrix(np.array([[1, 1, 0], [1, 0, 1], [1, 1, 0]]))
    assert list_popularity(lists, train) == pytest.approx([2.5, 2, 1.5])


def test_what_says_nothing_about_names(world):
    """Items under other names and users in another order: the same numbers."""
    rng = np.random.default_rng(1)
    name, order = rng.permutation(30), rng.permutation(25)
    ranked = world.lists[0]
    renamed = np.where(ranked >= 0, name[ranked], -1)[order]
    back = np.argsort(name)
    got = list_measures(renamed, world.train[:, back], world.users[order], world.vectors[back])
    want = list_measures(ranked, world.train, world.users, world.vectors).iloc[order]
    pd.testing.assert_frame_equal(got, want, atol=1e-12)


def test_ends_of_the_scales():
    train = sp.csr_matrix(np.triu(np.ones((8, 8))))  # item 0 has one reader, item 7 all
    same, apart = np.tile([7], (8, 1)), np.arange(8)[:, None]
    assert gini_by_user(apart, 8).mean() == pytest.approx(0) and gini_by_user(same, 8).mean() == pytest.approx(7 / 8)
    assert coverage_by_user(apart, 8).mean() == 1 and novelty(same, train).tolist() == [0] * 8
    assert novelty(apart, train)[0] == 3 and (popularity_lift(same, train, np.arange(8)) >= 1).all()
    turned = np.array([[1.0, 0], [-2.0, 0]])
    assert list_diversity(np.array([[0, 1]]), turned)[0] == pytest.approx(2)


@pytest.mark.parametrize(
    'wrong, word',
    [
        (np.array([[0, 30]]), '0 to 30'),
        (np.array([[-2, 1]]), '-2'),
        (np.array([[4, 4]]), 'twice'),
        (np.array([1, 2]), 'array'),
        (np.array([[0.0, 1.0]]), 'float64'),
    ],
)
def test_no_lists(wrong, word):
    with pytest.raises(ValueError, match=word):
        shown_to(wrong, 30)


def test_lists_of_other_users():
    with pytest.raises(ValueError, match='same users'):
        list_overlap(np.array([[1, 2]]), np.array([[1, 2], [3, 4]]))


@pytest.fixture(scope='module')
def shop():
    data = toy_data(n_users=150, n_items=60, seed=0)
    inverse = np.linalg.inv((data.train.T @ data.train).toarray() + 20 * np.eye(60))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    scores = data.train @ weights
    noisy = [scores + np.random.default_rng(seed).normal(size=scores.shape) * 0.03 for seed in range(5)]
    popular = np.tile(data.train.sum(0).A1, (150, 1))
    vectors = np.random.default_rng(9).normal(size=(60, 5))
    return SimpleNamespace(data=data, noisy=noisy, popular=popular, vectors=vectors)


def test_table(shop):
    """Every number of the table, from the lists: all users and each group, the mean of the trainings' values."""
    got = beyond(shop.noisy[:2], shop.popular, shop.data, shop.vectors, k=8, n_boot=50)
    counts, tested = shop.data.train.getnnz(1), np.flatnonzero(shop.data.test.getnnz(1))
    base = [run.lists for run in ranked(shop.noisy[:2], shop.data, k=8)]
    (of_ours,) = ranked(shop.popular, shop.data, k=8)
    users, ours = of_ours.users, of_ours.lists
    assert users.tolist() == tested.tolist() and got.group.iloc[0] == 'all'
    groups = [name for name in got.group.unique() if name != 'all']
    assert len(groups) == 4 and got[got.metric == 'novelty@8'].users.iloc[1:].sum() == len(users)
    for _, part in got.groupby('group'):
        inside = (counts[users] >= part['from'].iloc[0]) & (counts[users] <= part.to.iloc[0])
        rows = part.set_index('metric')
        for side, lists in (('base', [x[inside] for x in base]), ('ours', [ours[inside]])):
            found = [by_loops(x, shop.data.train, users[inside], shop.vectors) for x in lists]
            for name in ('novelty', 'popularity', 'popularity_lift', 'diversity'):
                assert rows.loc[f'{name}@8', side] == pytest.approx(mean(table[name].mean() for table, _ in found))
            for name in ('coverage', 'gini'):
                assert rows.loc[f'{name}@8', side] == pytest.approx(mean(whole[name] for _, whole in found))
        first, second = (zip(one[inside], base[1][inside], strict=True) for one in (base[0], ours))
        assert rows.base['overlap@8'] == pytest.approx(mean(overlaps_by_loops(*pair, 0.85)[0] for pair in first))
        shared = mean(overlaps_by_loops(*pair, 0.85)[1] for pair in second)
        assert rows.ours['rbo@8'] == pytest.approx(shared)  # not with the training at its own place
        assert rows.difference.to_numpy() == pytest.approx((rows.ours - rows.base).to_numpy())


def test_a_side_against_itself(shop):
    table = beyond(shop.noisy[0], shop.noisy[0], shop.data, k=8, n_boot=50).set_index(['group', 'metric'])
    alone = table.index.get_level_values('metric').isin(['overlap@8', 'rbo@8'])
    assert (table[alone].ours == 1).all() and table[alone].base.isna().all() and table[alone].difference.isna().all()
    assert (table[~alone][['difference', 'low', 'high']] == 0).all(axis=None) and (table[~alone].p == 1).all()


def test_the_other_way_round(shop):
    sides, how = (shop.noisy[0], shop.popular), dict(k=8, n_boot=50)
    there, back = beyond(*sides, shop.data, **how), beyond(*sides[::-1], shop.data, **how)
    known = there.difference.notna()
    assert np.allclose(there.difference[known], -back.difference[known]) and known.sum() >= 20


def test_popularity_shows_less_and_what_is_popular(shop):
    rows = beyond(shop.noisy[:2], [shop.popular] * 2, shop.data, k=8, n_boot=400)
    rows = rows.set_index(['group', 'metric']).loc['all']
    for name in ('popularity_lift@8', 'gini@8'):
        assert rows.low[name] > 0, name
    for name in ('coverage@8', 'novelty@8', 'overlap@8', 'rbo@8'):
        assert rows.high[name] < 0, name


def test_chance_in_training_is_the_measure_of_an_overlap(shop):
    """More trainings of one method share with the base what its own trainings share."""
    rows = beyond(shop.noisy[:3], shop.noisy[3:], shop.data, k=8, n_boot=400)
    rows = rows.set_index(['group', 'metric']).loc['all']
    assert rows.base['overlap@8'] < 0.9 and abs(rows.difference['overlap@8']) < 0.05
    assert rows.ours['overlap@8'] == pytest.approx(rows.base['overlap@8'], abs=0.05)


def test_own_places_are_left_out():
    users, lists = range(2), [np.array([[0, 1], [2, 3]]), np.array([[0, 2], [2, 3]]), np.array([[4, 5], [4, 5]])]
    among = overlap_measures(lists, lists, users, same=True)
    assert among[0]['overlap@2'].tolist() == pytest.approx([1 / 6, 1 / 2])
    assert overlap_measures(lists[:2], lists[:2], users, same=False)[0].equals(
        overlap_measures(lists[:2], lists[:2], users, same=True)[0]
    )
    assert overlap_measures(lists[:1], lists[:1], users, same=True)[0].isna().all(axis=None)
    assert overlap_measures(lists[:1], lists[:1], users, same=False)[0].eq(1).all(axis=None)


def test_another_split_is_refused(shop):
    elsewhere = toy_data(n_users=150, n_items=60, seed=1)
    card = {'split_identity': split_identity(elsewhere)}
    fit = SimpleNamespace(users=np.ones((150, 2)), items=np.ones((60, 2)), card=card)
    with pytest.raises(ValueError, match='another split'):
        beyond(shop.popular, fit, shop.data)
    for n_vectors in (59, 61):
        with pytest.raises(ValueError, match=f'item vectors has {n_vectors} rows but 60'):
            beyond(shop.popular, shop.noisy[0], shop.data, vectors=np.ones((n_vectors, 3)))


def test_ranked_once_for_all(shop, monkeypatch):
    """Metrics, groups and measures of lists read the lists that were made before; other questions are refused."""
    sides, data = (shop.noisy[:2], shop.popular), shop.data
    want = [ask(*sides, data) for ask in (compare, by_sparsity, beyond)]
    once = [ranked(side, data, k=20) for side in sides]
    assert user_metrics(once[0], data, ks=(3,))[0].equals(user_metrics(sides[0][0], data, ks=(3,))[0])
    monkeypatch.setattr('promax_nb.models.evaluate.topk', lambda *args: pytest.fail('ranked again'))
    for ask, table in zip((compare, by_sparsity, beyond), want, strict=True):
        pd.testing.assert_frame_equal(ask(*once, data), table)
    for other in (dict(mask='train'), dict(split='valid'), dict(ks=(5, 30))):
        with pytest.raises(ValueError, match='rank'):
            compare(*once, data, **other)
    with pytest.raises(ValueError, match='another split'):
        compare(*once, toy_data(n_users=150, n_items=60, seed=1))


def test_in_the_table_of_a_comparison(shop):
    """`compare(beyond=True)` has the rows of `beyond` for everybody beside its own."""
    sides = shop.noisy[:3], [shop.popular + np.random.default_rng(seed).random(60) for seed in range(3)]
    table = compare(*sides, shop.data, ks=(5, 8), beyond=True, vectors=shop.vectors)
    alone = beyond(*sides, shop.data, shop.vectors, k=8).set_index(['group', 'metric']).loc['all']
    pd.testing.assert_frame_equal(compare(*sides, shop.data, ks=(5, 8)).drop(columns='holm'), table.iloc[:10, :-1])
    columns = ['base', 'ours', 'difference', 'low', 'high', 'p', 'method_low', 'method_high']
    pd.testing.assert_frame_equal(table.loc[alone.index, columns], alone[columns])
    assert len(table) == 10 + 8 and table.loc['coverage@8', 'method_high'] < 0
    assert table.loc[['overlap@8', 'rbo@8']].filter(like='method').isna().all(axis=None)
    assert table.loc[['overlap@8', 'rbo@8'], 'high'].lt(0).all()


def test_a_correction_hides_nothing_in_the_sentence(shop):
    """Coverage and lift are named before looking: the sentence rests on their own intervals."""
    table = beyond(shop.noisy[:2], shop.popular, shop.data, k=8, n_boot=50)
    table = table.assign(method_low=table.low, method_high=table.high, method_p=0.01, holm=0.4)
    assert 'no difference shown' not in lists_line(table)
    lift = table.metric == 'popularity_lift@8'
    assert lists_line(table.assign(method_low=table.method_low.mask(lift, -1))).count('no difference shown') == 1


def test_several_recommenders(shop):
    """Overlaps of several are with the first of them."""
    several = {'a': shop.noisy[:2], 'b': shop.noisy[2:4], 'popular': shop.popular}
    table = compare(several, data=shop.data, ks=(8,), beyond=True, metrics=['overlap@8', 'gini@8'])
    table = table.set_index(['method', 'metric'])
    one = beyond(shop.noisy[:2], shop.popular, shop.data, k=8).set_index(['group', 'metric']).loc['all']
    for metric in ('overlap@8', 'gini@8'):
        assert table.loc[('popular', metric), 'ours'] == pytest.approx(one.ours[metric])
    assert table.loc[('b', 'overlap@8'), 'difference'] > table.loc[('popular', 'overlap@8'), 'difference']


def test_who_has_no_value_is_left_out(shop):
    """Items without a profile vector: lists without two of the others have no diversity, on either side."""
    vectors = shop.vectors.copy()
    vectors[6:] = 0
    table = beyond(shop.noisy[0], shop.popular, shop.data, vectors, k=8, n_boot=50).set_index(['group', 'metric'])
    (base,), (ours,) = ranked(shop.noisy[0], shop.data, k=8), ranked(shop.popular, shop.data, k=8)
    values = [list_diversity(run.lists, vectors) for run in (base, ours)]
    both = np.isfinite(values).all(0)
    row = table.loc[('all', 'diversity@8')]
    assert 0 < both.sum() == row.users < table.loc[('all', 'gini@8'), 'users']
    assert [row.base, row.ours] == pytest.approx([value[both].mean() for value in values])
    nothing = beyond(shop.noisy[0], shop.popular, shop.data, np.zeros((60, 2)), k=8, n_boot=50)
    unknown = nothing.metric == 'diversity@8'
    assert nothing[unknown].base.isna().all() and nothing[nothing.metric == 'gini@8'].p.notna().all()


def test_equal_catalogue_numbers_are_no_difference(shop):
    """Other lists, and everything is covered on both sides: rounding makes no difference of it."""
    rng = np.random.default_rng(0)
    sides = [[random_lists(rng, 97, 13, 7, full=1)[1:] for _ in range(2)] for _ in range(2)]
    measures = measures_of_sides(dict(enumerate(sides)), sp.csr_matrix(np.ones((97, 13))), range(96))
    row = contrast(*measures.values()).loc['coverage@7']
    assert (row.base, row.ours, row.difference, row.low, row.high, row.p) == (1, 1, 0, 0, 0, 1)


def test_intervals_of_the_catalogue_hold_the_truth():
    """Users drawn from many: the interval of a difference of coverages, and of Ginis, covers the mean difference."""
    rng = np.random.default_rng(0)
    n_items, k, drawn = 80, 5, 60
    populations = []
    for slope in (0.08, 0.05):
        liking = rng.gumbel(size=(4000, n_items)) - slope * np.arange(n_items)
        populations.append(np.argsort(-liking, axis=1)[:, :k])
    train = sp.csr_matrix(np.ones((drawn, n_items)))
    estimates, errors = [], []
    for _ in range(200):
        rows = rng.choice(4000, drawn, replace=False)
        lists = {'base': [populations[0][rows]], 'ours': [populations[1][rows]]}
        base, ours = measures_of_sides(lists, train, np.arange(drawn)).values()
        difference = (ours[0] - base[0])[['coverage@5', 'gini@5']]
        estimates.append(difference.mean())
        errors.append(difference.std() / np.sqrt(drawn))
    estimates, errors = np.array(estimates), np.array(errors)
    held = (np.abs(estimates - estimates.mean(0)) < 1.96 * errors).mean(0)
    assert (held >= 0.93).all() and (np.abs(estimates.mean(0)) > 3 * errors.mean(0) / np.sqrt(200)).all()
    assert held[1] < 1, 'an interval that never fails says nothing'
