"""Intervals over users and trainings that find what is there and nothing else, corrections, several side by side."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_evaluate import kinds_of_scorer

from promax_nb.data.bookshop import toy_data
from promax_nb.models.inference import (
    by_sparsity,
    claimed,
    compare,
    contrast,
    decided,
    holm,
    interval,
    paired,
    paired_p,
    resampled,
    two_level,
)
from promax_nb.report import as_table, verdict
from promax_nb.views.charts import comparison_plot, sparsity_plot


def null_pairs(n_users, n_pairs, spread, seed=0):
    """One method trained 3 + 3 times, n_pairs times: few users with hits, each hit worth less the more a user holds."""
    draw = np.random.default_rng(seed)
    chance = draw.beta(0.15, 1.5, (n_users, 1))
    worth = 1 / draw.geometric(0.4, (n_users, 1))
    trained = np.exp(spread * draw.normal(size=(6, 1, n_pairs)))
    values = (draw.random((6, n_users, n_pairs), dtype=np.float32) < chance * trained) * worth
    return values[:3], values[3:]


def found(table):
    return (table.method_low > 0) | (table.method_high < 0)


@pytest.mark.parametrize(
    'n_users,spread', [(300, 0.0), (300, 0.2), (300, 1.0), (5000, 0.0), (5000, 0.03), (5000, 0.2), (20_000, 0.02)]
)
def test_of_500_null_pairs_at_most_seven_percent_differ(n_users, spread):
    """faults.md 8: the interval over users alone finds a difference in up to 60 % of them."""
    chunk = 500 if n_users < 20_000 else 50
    tables = [two_level(*null_pairs(n_users, chunk, spread, seed)) for seed in range(500 // chunk)]
    assert found(pd.concat(tables)).mean() <= 0.07


def test_users_alone_find_a_difference_between_equals():
    base, ours = null_pairs(5000, 500, 0.1)
    assert (paired_p(base.mean(0), ours.mean(0)) < 0.05).mean() > 0.3
    assert found(two_level(base, ours)).mean() <= 0.07


def test_what_is_there_is_found():
    """A true gain of four times the error that nobody knows: in most pairs, with three trainings a side."""
    base, ours = null_pairs(5000, 500, 0.05)
    error = (ours.mean((0, 1)) - base.mean((0, 1))).std()
    assert found(two_level(base, ours + 4 * error)).mean() > 0.7


def test_trainings_that_are_all_the_same_leave_the_paired_t_test():
    rng = np.random.default_rng(0)
    users = rng.normal(size=(2, 40, 3))
    base, ours = (np.repeat(side[None], 3, axis=0) for side in users)
    table = two_level(base, ours)
    want = stats.ttest_rel(users[1], users[0])
    assert np.allclose(table.method_p, want.pvalue) and np.allclose(table.method_df, 39)
    low, high = want.confidence_interval()
    assert np.allclose(table.method_low, low) and np.allclose(table.method_high, high)
    assert np.allclose(table.se_trainings, 0)


def test_users_that_are_all_the_same_leave_welchs_t_test():
    rng = np.random.default_rng(1)
    base, ours = rng.normal(size=(3, 1, 2)), 2 * rng.normal(size=(4, 1, 2))
    table = two_level(np.repeat(base, 25, axis=1), np.repeat(ours, 25, axis=1))
    want = stats.ttest_ind(ours[:, 0], base[:, 0], equal_var=False)
    assert np.allclose(table.method_p, want.pvalue) and np.allclose(table.method_df, want.df)
    assert np.allclose(table.se_users, 0)


@pytest.mark.parametrize('spread', [0.0, 2.0])
def test_two_levels_by_hand(spread):
    """Sums over trainings and users, written out; with and without a spread of the trainings."""
    rng = np.random.default_rng(5)
    base, ours = (rng.normal(size=(n, 6)) + spread * rng.normal(size=(n, 1)) for n in (3, 4))
    table = two_level(base[:, :, None], ours[:, :, None]).iloc[0]
    gains = [ours[:, u].mean() - base[:, u].mean() for u in range(6)]
    middle = sum(gains) / 6
    users = sum((gain - middle) ** 2 for gain in gains) / 5 / 6
    trainings = both = unsure = 0.0
    for side in (base, ours):
        n, grand = len(side), side.mean()
        mine = sum((row.mean() - grand) ** 2 for row in side) / (n - 1) / n
        left = [side[r, u] - side[r].mean() - side[:, u].mean() + grand for r in range(n) for u in range(6)]
        both += sum(x**2 for x in left) / ((n - 1) * 5) / (6 * n)
        trainings, unsure = trainings + mine, unsure + mine**2 / (n - 1)
    total = users + max(0.0, trainings - both)
    df = max(2, total**2 / (unsure + (total - trainings) ** 2 / 5))
    half = stats.t.ppf(0.975, df) * math.sqrt(total)
    assert (table.method_low, table.method_high) == (pytest.approx(middle - half), pytest.approx(middle + half))
    assert table.method_df == pytest.approx(df)
    assert table.method_p == pytest.approx(2 * stats.t.sf(abs(middle) / math.sqrt(total), df))
    assert table.se_users**2 + table.se_trainings**2 == pytest.approx(total)


def test_a_lucky_spread_of_trainings_leaves_an_interval_that_ends():
    """Trainings that differ by as much as chance in users explains: little is left, and it is known by three."""
    base, ours = null_pairs(300, 500, 0.0, seed=3)
    table = two_level(base, ours)
    widths = (table.method_high - table.method_low) / np.hypot(table.se_users, table.se_trainings)
    assert table.method_df.min() >= 2 and widths.max() <= 2 * stats.t.ppf(0.975, 2) + 1e-6


def test_what_never_varies_is_certain():
    base = np.zeros((3, 5, 2))
    table = two_level(base, base + [0.0, 1.0])
    assert table.method_p.tolist() == [1, 0] and table.method_low.tolist() == table.method_high.tolist() == [0, 1]


def frames(values):
    return [pd.DataFrame({'recall@20': row, 'ndcg@20': row / 2}) for row in values]


def test_methods_are_not_spoken_of_with_fewer_than_three_trainings():
    rng = np.random.default_rng(2)
    base, ours = frames(rng.random((3, 50))), frames(rng.random((3, 50)) + 0.5)
    enough = contrast(base, ours)
    assert enough.method_low.gt(0).all() and enough.low.gt(0).all()
    for few in ((base[:2], ours), (base, ours[:1]), (base[:2], ours[:2])):
        table = contrast(*few)
        assert table.filter(like='method').isna().all(axis=None) and table.low.gt(0).all()
    assert contrast(base[:1], ours, fixed=['base']).method_low.gt(0).all()
    assert contrast(base[:1], ours, fixed=['ours']).method_low.isna().all()
    with pytest.raises(ValueError, match='do not cover the same users'):
        contrast(base, [table.iloc[:10] for table in ours])


def test_resampling_means_and_sums():
    """Means of drawn users; and measures of sums, where each draw counts every user a whole number of times."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(50, 2))
    means = resampled(values, n_boot=400)
    assert means.shape == (400, 2) and np.allclose(means.mean(0), values.mean(0), atol=0.05)
    low, high = interval(means, 0.9)
    assert np.allclose([(means[:, 0] < low[0]).mean(), (means[:, 0] > high[0]).mean()], 0.05, atol=0.005)
    tables = rng.integers(0, 2, (50, 3, 3)).astype(float)
    sums = resampled(tables, measure=lambda c: c, n_boot=20, seed=1)
    draws = np.random.default_rng(1).multinomial(50, np.full(50, 1 / 50), 20)
    assert np.allclose(sums, np.stack([sum(n * t for n, t in zip(d, tables, strict=True)) for d in draws]))
    assert paired_p(values[:, 0], values[:, 0]) == 1 and np.isnan(paired_p(values[:1], values[:1])).all()
    assert paired_p(values, values + [0, 5])[1] < 1e-6


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    rng, hit = np.random.default_rng(1), 0
    for t in range(200):
        a = pd.DataFrame({'recall@5': rng.normal(0, 1, 80)})
        row = paired(a, a + rng.normal(0.1, 0.5, (80, 1)), n_boot=300, seed=t).loc['recall@5']
        hit += row.low <= 0.1 <= row.high
    assert 0.88 <= hit / 200 <= 0.99, hit / 200


# ---- many comparisons


def test_holm():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, np.nan, 0.5]).tolist() == pytest.approx([1, np.nan, 1], nan_ok=True)
    assert holm([0.01], of=10).tolist() == pytest.approx([0.1]) and holm([]).size == 0
    p = np.random.default_rng(0).random((2000, 8))
    assert np.mean([holm(row).min() < 0.05 for row in p]) <= 0.07 < np.mean(p.min(1) < 0.05)


@pytest.fixture(scope='module')
def shop():
    return toy_data(300, 80, seed=3)


@pytest.fixture(scope='module')
def methods(shop):
    """Three trainings each of two methods that know the tastes up to noise, and one that knows them better."""
    likes = (shop.extras['truth']['user_likes']).astype(float)
    items = shop.train.T @ likes

    def noisy(size, *seeds):
        tables = [likes + size * np.random.default_rng(seed).normal(size=likes.shape) for seed in seeds]
        return [(users, items) for users in tables]

    return {'one': noisy(1.5, 1, 2, 3), 'two': noisy(1.5, 4, 5, 6), 'better': noisy(0.2, 7, 8, 9)}


def test_several_in_one_table(shop, methods):
    table = compare(methods, data=shop, ks=(5,))
    assert len(table) == 10 and set(table.against) == {'one'} and table.method.tolist() == ['two', 'better'] * 5
    for name in ('two', 'better'):
        pair = compare(methods['one'], methods[name], shop, ks=(5,))
        mine = table[table.method == name].set_index('metric')[list(pair)]
        pd.testing.assert_frame_equal(mine.drop(columns='holm'), pair.drop(columns='holm'), check_dtype=False)
    assert np.allclose(table.holm, holm(table.method_p)) and (table.holm >= table.method_p).all()
    assert 'corrected for 10 comparisons' in table.attrs['correction'] and table.attrs['seeds'] == [3, 3, 3]
    shown = dict(zip(table.method + table.metric, decided(table), strict=True))
    assert shown['betterrecall@5'] and not shown['tworecall@5']
    assert compare(list(methods.values()), data=shop, ks=(5,)).difference.equals(table.difference)


def test_against_whom(shop, methods):
    def pairs(against):
        table = compare(methods, data=shop, ks=(5,), metrics=['recall@5'], against=against)
        return list(zip(table.against, table.method, strict=True)), table

    assert pairs('all')[0] == list(combinations(methods, 2))
    assert pairs('two')[0] == [('two', 'one'), ('two', 'better')]
    best, table = pairs('best')
    assert best == [('better', 'one'), ('better', 'two')] and (table.difference < 0).all()
    # the best is known after looking: three pairs were possible
    assert table.holm.tolist() == holm(table.method_p, of=3).tolist() > holm(table.method_p).tolist()


def test_fewer_metrics_are_corrected_less(shop, methods):
    everything = compare(methods['one'], methods['better'], shop).loc['recall@20']
    one = compare(methods['one'], methods['better'], shop, metrics=['recall@20']).loc['recall@20']
    assert one.holm == one.method_p == everything.method_p < everything.holm


@pytest.mark.parametrize(
    'call,message',
    [
        (lambda m, d: compare(m), 'no data is given'),
        (lambda m, d: compare({'one': m['one']}, data=d), 'nothing to compare with'),
        (lambda m, d: compare(m['one'][0], data=d), 'nothing to compare with'),
        (lambda m, d: compare(m, data=d, against='beter'), "against='beter' is no side.*use better"),
        (lambda m, d: compare(m, data=d, fixed=['three']), "fixed='three' is no side"),
        (lambda m, d: compare(m, data=d, metrics=['recall@50']), "metrics='recall@50' is no"),
        (lambda m, d: compare(m | {'two': []}, data=d), 'two is an empty list'),
    ],
)
def test_refused(shop, methods, call, message):
    with pytest.raises(ValueError, match=message):
        call(methods, shop)


def test_groups_have_both_intervals(shop, methods):
    groups = by_sparsity(methods['one'], methods['better'], shop, 'recall@5')
    assert groups.method_low.notna().all() and np.allclose(groups.holm, holm(groups.method_p))
    assert groups.base_seeds.tolist() == [3] * len(groups)
    alone = by_sparsity(methods['one'][:1], methods['better'][:1], shop, 'recall@5')
    assert alone.method_low.isna().all() and alone.holm.isna().all() and alone.low.notna().all()


def test_every_kind_of_scorer_can_be_a_side(shop):
    rng = np.random.default_rng(0)
    kinds = kinds_of_scorer(rng.normal(size=(300, 4)), rng.normal(size=(80, 4)))
    table = compare(kinds, data=shop, ks=(5,), metrics=['ndcg@5'], n_boot=10, fixed=list(kinds))
    assert len(table) == len(kinds) - 1 and (table.difference.abs() < 1e-9).all() and (table.method_p > 0.9).all()


# ---- what is said


def test_verdicts_say_what_they_are_about(shop, methods):
    three = verdict(compare(methods['one'], methods['better'], shop).loc['recall@20'])
    assert three.startswith('ProMax is better than its base on recall@20 by +') and '3 + 3 trainings' in three
    assert '--seeds' not in three
    same = verdict(compare(methods['one'], methods['two'], shop).loc['recall@20'])
    assert same.startswith('No difference between ProMax and its base is shown on recall@20')
    for n in (1, 2):
        few = verdict(compare(methods['one'][:n], methods['better'][:n], shop).loc['recall@20'])
        assert few.startswith(f'In these {n} + {n} trainings ProMax is better than its base on recall@20')
        assert '--seeds 0,1,2' in few and 'interval over users' in few
        same = verdict(compare(methods['one'][:n], methods['one'][:n], shop).loc['recall@20'])
        assert same.startswith('No difference on recall@20') and '--seeds 0,1,2' in same
    table = compare(methods, data=shop, metrics=['recall@20'])
    said = [verdict(row) for _, row in table.iterrows()]
    assert said[0].startswith('No difference between two and one is shown')
    assert said[1].startswith('better is better than one on recall@20') and 'Holm' in said[1]


def test_a_claim_in_a_table_of_many_rests_on_the_corrected_p():
    row = pd.DataFrame({'base': [0.1], 'difference': 0.01, 'low': 0.005, 'high': 0.015, 'relative': 0.1, 'p': 0.001})
    row = row.assign(method_low=0.001, method_high=0.019, method_p=0.03, holm=0.3, metric='recall@20')
    assert 'No difference' in verdict(row.assign(against='a', method='b').iloc[0])
    assert 'better' in verdict(row.iloc[0]), 'one metric that was named before looking'
    assert not decided(row)[0] and decided(row.assign(holm=0.04))[0]
    assert claimed(row)[0][0] == 0.001 and claimed(row.assign(method_low=np.nan))[0][0] == 0.005


def test_tables_and_figures_speak_of_the_interval_they_show(shop, methods):
    three = compare(methods['one'], methods['better'], shop)
    one = compare(methods['one'][0], methods['better'][0], shop)
    assert 'and trainings' in as_table(three) and 'Holm' in as_table(three)
    assert 'and trainings' not in as_table(one) and '95 % over users' in as_table(one)
    for table, words in ((three, 'over users and trainings'), (one, 'over users, these trainings only')):
        figure = comparison_plot(table)
        assert words in figure.layout.xaxis.title.text
        row = table[table.base > 0].iloc[-1]
        bar = figure.data[0].error_x.array[0] * row.base / 100
        assert bar == pytest.approx(claimed(table)[1][row.name] - row.difference)
    marks = comparison_plot(three.assign(holm=0.5)).data[0].marker.symbol
    assert set(marks) == {'circle-open'}
    groups = by_sparsity(methods['one'], methods['better'], shop, 'recall@5')
    plot = sparsity_plot(groups, 'recall@5')
    for text in (plot.layout.title.subtitle.text, plot.data[1].hovertext[0]):
        assert 'over users and trainings' in text


def test_counting_draws_is_gathering_rows():
    rng, table = np.random.default_rng(7), np.random.default_rng(0).normal(size=(50, 2, 3))
    gathered = [table[rng.integers(50, size=50)].mean(0) for _ in range(40)]
    np.testing.assert_allclose(resampled(table, n_boot=40, seed=7), gathered, atol=1e-12)
    users, sums = np.ones(2**13), lambda drawn: drawn  # 2**24 / 2**13 = 2,048 draws at a time: two pieces
    np.testing.assert_array_equal(resampled(users, sums, 2100), np.full(2100, 2.0**13))
