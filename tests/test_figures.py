"""Figures and the tables behind them: right numbers against plain loops, readable looks, sentences for bad input."""

import datetime
import gzip
import json
import re
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp

from promax_nb.data.bookshop import toy_data
from promax_nb.data.interactions import RecData
from promax_nb.models import evaluate
from promax_nb.models.inference import mean_of_runs
from promax_nb.retrieval.vectors import unit_rows
from promax_nb.views.charts import comparison_plot, loss_curves, sparsity_plot
from promax_nb.views.distributions import distributions, entropies
from promax_nb.views.figures import before_after, profile_map
from promax_nb.views.gains import degree_gain_plot, gain_by, retrieval_plot
from promax_nb.views.look import GREY
from promax_nb.views.maps import Projection
from promax_nb.views.neighbours import neighbours_kept
from promax_nb.views.nodes import node_table
from promax_nb.views.one_user import distribution_plot
from promax_nb.views.packing import explorer_data
from promax_nb.views.population import (
    alignment_uniformity,
    alignment_uniformity_plot,
    divergence_plot,
    entropy_plot,
    lists_plot,
)
from promax_nb.views.ranks import held_out_ranks, rank_change, retrieval_table
from promax_nb.views.scene import Scene
from promax_nb.views.stills import still_map

M, N = 50, 60


def vectors(seed, m=M, n=N, width=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, width)).astype(np.float32), rng.normal(size=(n, width)).astype(np.float32)


@pytest.fixture(scope='module')
def scene():
    data = toy_data(M, N, seed=1)
    rng = np.random.default_rng(0)
    added = sp.csr_matrix(((rng.random((M, N)) < 0.03) & (data.train.toarray() == 0)).astype(np.float32))
    history = pd.DataFrame(
        {'epoch': [1, 2, 3], 'bpr': [0.7, 0.5, 0.4], 'seconds': 0.1, 'recall@20': [np.nan, np.nan, 0.1]}
    )
    return Scene(
        data,
        [f'reader {i} likes noir' for i in range(M)],
        [f'book {i} is slow' for i in range(N)],
        vectors(0),
        [vectors(1), vectors(2)],
        [vectors(3), vectors(4)],
        added,
        raw=vectors(5, width=12),
        settings={'width': 6},
        histories={'base': history, 'ProMax': history},
    )


def maps(m=M, n=N, seed=0, words=None):
    rng = np.random.default_rng(seed)
    coords = {k: rng.normal(size=(m + n, 2)).astype(np.float32) for k in ('profiles', 'base', 'reshaped')}
    words = words or [f'word{k}, other{k}' for k in range(10)]
    codes = rng.integers(len(words), size=m + n)
    table = pd.DataFrame(
        {'cluster': range(len(words)), 'x': 0.0, 'y': np.linspace(-1, 1, len(words)), 'size': 10, 'text': words}
    )
    facts = {'trustworthiness': 0.91, 'neighbours_kept': 0.4}
    return SimpleNamespace(
        coords=coords,
        n_users=m,
        n_items=n,
        labels={'profiles': table},
        clusters={'profiles': codes},
        record={'maps': {k: facts for k in coords}, 'sampled': False},
    )


def every_figure(scene, projection):
    return {
        'map': profile_map(scene, projection),
        'number': profile_map(scene, projection, 'profile sharpness'),
        'words': profile_map(scene, projection, 'cluster'),
        'pair': before_after(scene, projection, 'sparsity group'),
        'overlay': before_after(scene, projection, 'distance moved', 'overlay', 7),
        'user': distribution_plot(scene, 3),
        'entropy': entropy_plot(scene),
        'divergence': divergence_plot(scene),
        'alignment': alignment_uniformity_plot(scene),
        'gain': degree_gain_plot(scene, 'ndcg@10'),
        'retrieval': retrieval_plot(scene),
        'training': loss_curves(scene.histories),
    }


# the numbers behind the pictures


def plain_softmax(u, items, tau):
    """Cosines and softmax by loops."""
    norm = lambda x: sum(float(v) ** 2 for v in x) ** 0.5  # noqa: E731
    e = [np.exp(sum(float(a) * float(b) for a, b in zip(u, i, strict=True)) / (norm(u) * norm(i)) / tau) for i in items]
    return np.array(e) / sum(e)


def test_distributions_equal_plain_loops(scene):
    t = distributions(scene, 7, tau=0.3, teacher_tau=0.15, floor=0.02)
    p, a, b = (
        plain_softmax(x[0][7], x[1], tau)
        for x, tau in ((scene.vectors, 0.15), (scene.before[0], 0.3), (scene.after[0], 0.3))
    )
    for column, known in (('p', p), ('q_before', a), ('q_after', b)):
        np.testing.assert_allclose(t[column], known, rtol=1e-4)
    h = -sum(x * np.log(x) for x in p)
    kl = lambda x, y: sum(i * np.log(i / j) for i, j in zip(x, y, strict=True))  # noqa: E731
    for side, q in (('before', a), ('after', b)):
        assert t.attrs[f'kl_{side}'] == pytest.approx(kl(p, q), rel=1e-4)
        assert t.attrs[f'js_{side}'] == pytest.approx((kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2, rel=1e-4)
    assert t.attrs['entropy'] == pytest.approx(h, rel=1e-5) and t.attrs['sharpness'] == pytest.approx(
        1 - h / np.log(N), rel=1e-3
    )
    assert t.attrs['weight'] == pytest.approx(max(1 - h / np.log(N), 0.02), rel=1e-3)
    assert len(t) == N and t.p.sum() == pytest.approx(1)


def test_distributions_equal_the_teacher_of_the_loss(scene):
    from promax_nb.models.losses import teacher
    from promax_nb.models.objectives import Teacher

    p, w = teacher(*scene.vectors, tau=0.1, floor=0.2)
    for user in (0, 9, M - 1):
        t = distributions(scene, user, teacher_tau=0.1, floor=0.2)
        np.testing.assert_allclose(t.p, p[user], rtol=1e-4)
        assert t.attrs['weight'] == pytest.approx(float(w[user]), rel=1e-4)
    relative = replace(scene, settings={'confidence': 'relative', 'floor': 0.1})
    known = Teacher(*scene.vectors, tau=0.2, form='relative', floor=0.1).weight
    assert distributions(relative, 4).attrs['weight'] == pytest.approx(float(known[4]), rel=1e-3)
    np.testing.assert_allclose(node_table(relative, neighbours=None)['confidence weight'][:M], known, rtol=1e-3)


def test_items_of_the_user_are_marked(scene):
    t = distributions(scene, 11)
    for name, m in (
        ('train', scene.data.train),
        ('valid', scene.data.valid),
        ('test', scene.data.test),
        ('added', scene.added),
    ):
        assert t[name].dtype == bool and (t[name] == (m[11].toarray()[0] > 0)).all()


def test_the_teacher_follows_tau_unless_it_has_its_own(scene):
    own = replace(scene, settings={'tau': 0.2, 'teacher_tau': 0.05})
    assert (
        distributions(own, 0).attrs['teacher_tau'] == 0.05
        and distributions(own, 0, tau=0.5).attrs['teacher_tau'] == 0.5
    )
    assert distributions(scene, 0).attrs['teacher_tau'] == 0.2


def test_change_of_basis(scene):
    from promax_nb.retrieval.embed import whiten

    for shared in (True, False):
        su, si = whiten(*scene.raw, dim=6, shared=shared)
        np.testing.assert_allclose(
            distributions(scene, 2, shared=shared).p, distributions(replace(scene, vectors=(su, si)), 2).p, rtol=1e-3
        )
    assert not np.allclose(distributions(scene, 2, shared=True).p, distributions(scene, 2, shared=False).p)


def test_profiles_without_trainings(scene):
    only = Scene(scene.data, vectors=scene.vectors)
    t = distributions(only, 0)
    assert t.q_before.isna().all() and np.isnan(t.attrs['kl_after']) and t.p.sum() == pytest.approx(1)
    names = [f.name for f in distribution_plot(only, 0).data]
    assert 'profile p' in names and 'base q' not in names
    assert len(entropy_plot(only).data) == 1


def test_an_empty_profile_fits_everything_alike(scene):
    su, si = (x.copy() for x in scene.vectors)
    su[5] = 0
    t = distributions(replace(scene, vectors=(su, si)), 5)
    np.testing.assert_allclose(t.p, 1 / N)
    assert t.attrs['sharpness'] == pytest.approx(0, abs=1e-9)
    assert t.attrs['weight'] == 0  # nothing was written about this user, so nothing pulls
    assert node_table(replace(scene, vectors=(su, si)), neighbours=None)['confidence weight'][5] == 0


def test_an_item_without_a_profile_is_not_in_p(scene):
    from promax_nb.models.objectives import Teacher

    su, si = (x.copy() for x in scene.vectors)
    si[[7, 8]] = 0
    partly = replace(scene, vectors=(su, si))
    t = distributions(partly, 4)
    rest = np.delete(np.arange(N), [7, 8])
    assert (t.p[[7, 8]] == 0).all() and t.p.sum() == pytest.approx(1)
    np.testing.assert_allclose(t.p[rest], plain_softmax(su[4], si[rest], 0.2), rtol=1e-4)
    entropy = -sum(p * np.log(p) for p in t.p[rest])
    assert t.attrs['sharpness'] == pytest.approx(1 - entropy / np.log(N - 2), abs=1e-6)
    assert t.attrs['weight'] == pytest.approx(float(Teacher(su, si, tau=0.2).weight[4]), rel=1e-4)
    assert entropies(partly).entropy_p[4] == pytest.approx(entropy / np.log(N - 2), abs=1e-6)
    assert np.isfinite(t.attrs['kl_after'])
    distribution_plot(partly, 4)  # zeros on a logarithmic axis


def test_where_no_item_has_a_profile_all_are_alike(scene):
    su, si = scene.vectors
    nothing = replace(scene, vectors=(su, np.zeros_like(si)))
    t = distributions(nothing, 4)
    np.testing.assert_allclose(t.p, 1 / N)
    assert t.attrs['sharpness'] == pytest.approx(0) and entropies(nothing).entropy_p[4] == pytest.approx(1)


def test_distributions_need_no_torch():
    code = '''
import sys, numpy as np, scipy.sparse as sp
from promax_nb.data.interactions import RecData
from promax_nb.views.scene import Scene
from promax_nb.views.distributions import distributions
from promax_nb.views.one_user import distribution_plot
n = 20_000
one = lambda k: sp.csr_matrix((np.ones(2, np.float32), ([0, 1], [k, k])), shape=(2, n))
rng = np.random.default_rng(0)
pair = lambda: (rng.normal(size=(2, 32)), rng.normal(size=(n, 32)))
s = Scene(RecData(one(0), one(1), one(2)), vectors=pair(), before=pair(), after=pair())
t = distributions(s, 1)
assert len(t) == n and abs(t.p.sum() - 1) < 1e-9 and t.test.sum() == 1, t
size = len(distribution_plot(s, 1).to_json())
assert size < 200_000, size  # lines and bands, not 60,000 dots
assert 'torch' not in sys.modules and 'umap' not in sys.modules
'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_entropies_of_many_users(scene):
    t = entropies(scene)
    for user in (0, 13):
        a = distributions(scene, user).attrs
        assert t.kl_before[user] == pytest.approx(a['kl_before'], rel=1e-6) and t.js_after[user] == pytest.approx(
            a['js_after'], rel=1e-6
        )
        assert t.entropy_p[user] == pytest.approx(a['entropy'] / np.log(N), rel=1e-6)
    few = entropies(scene, most=10)
    assert len(few) == 10 and few.user.is_unique and few.equals(entropies(scene, most=10))
    merged = few.merge(t, on='user', suffixes=('', '_all'))
    np.testing.assert_allclose(merged.kl_after, merged.kl_after_all)


# the table of nodes


def plain_rank(pair, user, item, hidden):
    scores = {j: float(np.dot(pair[0][user].astype(np.float64), pair[1][j].astype(np.float64))) for j in range(N)}
    return 1 + sum(s > scores[item] for j, s in scores.items() if j != item and j not in hidden)


def test_rank_change_against_plain_loops(scene):
    t, d = node_table(scene, neighbours=None), scene.data

    def change(u, i):
        hidden = set((d.train + d.valid)[u].indices)
        old, new = (
            np.mean([np.log2(plain_rank(r, u, i, hidden)) for r in runs]) for runs in (scene.before, scene.after)
        )
        return old - new

    rise = t['rank change of held-out items']
    user = int(np.flatnonzero(np.diff(d.test.indptr) > 1)[0])
    assert rise[user] == pytest.approx(np.mean([change(user, i) for i in d.test[user].indices]))
    item = int(d.test.indices[0])
    assert rise[M + item] == pytest.approx(np.mean([change(u, item) for u in d.test.tocsc()[:, item].nonzero()[0]]))
    empty = np.flatnonzero(np.diff(d.test.indptr) == 0)
    assert rise[empty].isna().all()


def test_equal_scores_share_their_mean_rank(scene):
    flat = (np.zeros((M, 4)), np.zeros((N, 4)))
    t = node_table(replace(scene, before=flat, after=flat), neighbours=None)
    assert (t['rank change of held-out items'].dropna() == 0).all()
    found = retrieval_table(replace(scene, vectors=flat), (1, 20))
    assert found.recall[0] == 0 and found.recall[1] <= 0.2  # ranks near the middle, not all first


def test_node_table_has_one_row_per_node_in_order(scene):
    t, d = node_table(scene, maps()), scene.data
    assert list(t.columns[:6]) == ['node', 'kind', 'row', 'id', 'name', 'profile'] and len(t) == M + N
    assert (
        (t.node == np.arange(M + N)).all()
        and list(t.row) == [*range(M), *range(N)]
        and list(t.kind) == ['user'] * M + ['item'] * N
    )
    assert list(t['id']) == [*d.users.user, *d.items.item] and [
        scene.name(k, r) for k, r in zip(t.kind, t.row, strict=True)
    ] == list(t['name'])
    assert list(t.profile) == [*scene.users.profile, *scene.items.profile]
    assert (t.interactions == [*np.diff(d.train.indptr), *d.train.getnnz(0)]).all()
    for column in ('sparsity group', 'confidence weight', 'profile sharpness'):
        assert t[column][:M].notna().all() and t[column][M:].isna().all()
    for column in ('genre', 'year'):
        assert t[column][:M].isna().all() and t[column][M:].notna().all()
    assert ',' not in ''.join(t.genre.dropna()) and t.year.dtype == float and 'text' not in t and 'title' not in t
    assert set(t.attrs['units']) == set(t.columns[6:]) | {'kind'}


def test_sparsity_groups_are_named_by_their_range(scene):
    t = node_table(scene, neighbours=None)[:M]
    for name, part in t.groupby('sparsity group'):
        low, high = map(int, re.fullmatch(r'\d+: (\d+)-(\d+)', name).groups())
        assert part.interactions.min() == low and part.interactions.max() == high
    assert 2 <= t['sparsity group'].nunique() <= 4


def test_neighbours_kept_against_plain_loops(scene):
    t = node_table(scene, neighbours=5)['neighbours kept']

    def near(pair, k):
        x = np.concatenate(pair).astype(np.float64)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        c = x @ x[k]
        c[k] = -np.inf
        return set(np.argsort(-c)[:5])

    for k in (0, 33, M + 4):
        assert t[k] == pytest.approx(len(near(scene.before[0], k) & near(scene.after[0], k)) / 5)
    same = replace(scene, after=scene.before)
    assert (node_table(same, neighbours=5)['neighbours kept'] == 1).all()
    p = maps()
    p.kept = {'before_after': np.full(M + N, 0.25)}
    assert (node_table(scene, p)['neighbours kept'] == 0.25).all()


def test_projection_adds_moves_and_clusters(scene):
    p = maps()
    p.coords['reshaped'] = p.coords['base'] + np.float32([3, 4])
    p.coords['profiles'][2] = np.nan
    p.clusters['profiles'][2] = -1
    t = node_table(scene, p, neighbours=None)
    spread = np.sqrt(p.coords['base'].var(0).sum())
    np.testing.assert_allclose(t['distance moved'], 5 / spread, rtol=1e-4)
    assert (
        pd.isna(t.cluster[2])
        and t.cluster[3]
        == f'{p.clusters["profiles"][3]}: word{p.clusters["profiles"][3]}, other{p.clusters["profiles"][3]}'
    )
    del p.clusters  # made by hand: the nearest label
    t = node_table(scene, p, neighbours=None)
    k = np.abs(p.labels['profiles'].y - p.coords['profiles'][3][1]).argmin()
    assert t.cluster[3].startswith(f'{k}:') and pd.isna(t.cluster[2])


def test_gains_and_agreement_are_columns(scene):
    t = node_table(scene, neighbours=5)
    sides = [evaluate.ranked(runs, scene.data) for runs in (scene.before, scene.after)]
    before, after = (mean_of_runs(evaluate.user_metrics(runs, scene.data))['recall@20'] for runs in sides)
    gain = t['gain in recall@20'].iloc[: scene.data.n_users].dropna()
    assert len(gain) == len(before) and np.allclose(gain, after - before)
    assert t['gain in recall@20'].iloc[scene.data.n_users :].isna().all()
    spaces = [unit_rows(np.concatenate(scene.spaces()[name])) for name in ('profiles', 'base')]
    assert np.allclose(t['profiles and base agree'], neighbours_kept(*spaces, 5))


def test_columns_that_nothing_can_fill_are_left_out(scene):
    t = node_table(Scene(scene.data))
    assert not {
        'confidence weight',
        'rank change of held-out items',
        'neighbours kept',
        'distance moved',
        'cluster',
    } & set(t)
    assert (t.profile == '').all()


def test_attributes_of_all_kinds():
    rng = np.random.default_rng(0)
    eye = [sp.csr_matrix(np.roll(np.eye(60), k, axis=1)) for k in range(3)]
    users = pd.DataFrame(
        {
            'user': range(60),
            'age': [str(a) for a in rng.integers(18, 60, 60)],
            'zip': [f'z{k}' for k in range(60)],
            'member': rng.random(60) < 0.5,
            'kind': rng.choice(['x', 'y'], 60),
            'same': 'a',
        }
    )
    items = pd.DataFrame(
        {
            'item': range(60),
            'tags': [['a', 'b'], ['c']] * 30,
            'age': rng.random(60),
            'genre': ['Noir|War', 'Comedy, War'] * 30,
            'none': None,
        }
    )
    t = node_table(Scene(RecData(*eye, users, items)))
    assert t.age[:60].tolist() == users.age.astype(float).tolist() and np.allclose(t['item: age'][60:], items.age)
    assert (
        set(t.member.dropna()) == {'True', 'False'}
        and set(t['user: kind'].dropna()) == {'x', 'y'}
        and set(t.kind) == {'user', 'item'}
    )
    assert (
        set(t.tags.dropna()) == {'a', 'c'}
        and set(t.genre.dropna()) == {'Noir', 'Comedy'}
        and not {'zip', 'same', 'none'} & set(t)
    )


# any column as a colour: what it holds, and what colours the first items (None: left out)
LISTS = pd.ArrowDtype(pa.list_(pa.string()))
COLUMNS = {
    'lists': ([['a', 'b'], ['c'], []], ['a', 'c', None]),
    'arrays, as lists come back from parquet': ([np.array(['a', 'b'], object), np.array([]), None, ['c']], ['a', None]),
    'tuples': ([('a', 'b'), ('c',), None], ['a', 'c', None]),
    'sets': ([{'b', 'a'}, frozenset('c')], ['a', 'c']),
    'lists in lists': ([[['a'], ['b']], [[None, 'c']]], ['a', 'c']),
    'lists with holes': ([[None, 'a'], [float('nan'), 'b'], [pd.NA]], ['a', 'b', None]),
    'tables of numbers': ([np.eye(2), np.zeros((1, 1))], [1, 0]),
    'dictionaries': ([{'name': 'a'}, {'b': 2}, None], ['a', 'b', None]),
    'arrow lists': (pd.Series([['a', 'b'], ['c'], None], dtype=LISTS), ['a', 'c', None]),
    'arrow numbers': (pd.Series([1, None, 3], dtype='int64[pyarrow]'), [1, None, 3]),
    'nullable numbers': (pd.array([1, None, 3], dtype='Int64'), [1, None, 3]),
    'nullable truths': (pd.array([True, None, False], dtype='boolean'), ['True', None, 'False']),
    'nullable texts': (pd.array(['a', None, 'b'], dtype='string'), ['a', None, 'b']),
    'truths': (np.array([True, False]), ['True', 'False']),
    'truths with holes': ([True, None, False], ['True', None, 'False']),
    'categories': (pd.Categorical(['a', None, 'b']), ['a', None, 'b']),
    'categories that are numbers': (pd.Categorical([2, None, 5]), [2, None, 5]),
    'dates': (pd.to_datetime(['2020-01-01', None, '1999-07-03']), [2020, None, 1999.5]),
    'dates with a zone': (pd.to_datetime(['2020-02-01', '1999-07-03']).tz_localize('Asia/Tokyo'), [2020.085, 1999.5]),
    'dates of python': ([datetime.date(2020, 1, 1), None, datetime.date(1999, 7, 3)], [2020, None, 1999.5]),
    'months': (pd.PeriodIndex(['2020-01', '2021-01'], freq='M'), [2020, 2021]),
    'spans': (pd.to_timedelta(['36h', None, '12h']), [1.5, None, 0.5]),
    'spans of numpy': ([np.timedelta64(36, 'h'), np.timedelta64(12, 'h')], [1.5, 0.5]),
    'decimals': ([Decimal('1.5'), None, Decimal('2')], [1.5, None, 2]),
    'lists written as text': (["['a', 'b']", '[]', "['c']"], ['a', None, 'c']),
    'numbers as texts': (['1.5', '', '2'], [1.5, None, 2]),
    'bytes': ([b'a', b'b'], ['a', 'b']),
    'mixed': ([1, 'a', None, 2.5], ['1', 'a', None, '2.5']),
    'infinite': ([np.inf, 1.0, 2.0], [None, 1, 2]),
    'complex': (np.array([1j, 2j]), ['1j', '2j']),
    'nothing': ([None, float('nan'), pd.NA, pd.NaT, ''], None),
    'one value': (['a', 'a'], None),
    'very many categories': ([f'plot {k}' for k in range(N)], None),
}


def repeated(column):
    """A column for all items."""
    column = pd.Series(column)
    return column.iloc[np.arange(N) % len(column)].reset_index(drop=True)


def test_figures_of_one_scene_rank_once(scene, monkeypatch):
    made = []
    once = evaluate.lists_of_tested
    monkeypatch.setattr(evaluate, 'lists_of_tested', lambda *args: made.append(args) or once(*args))
    fresh = replace(scene)
    figures = degree_gain_plot(fresh), gain_by(fresh, 'interactions', 'ndcg@10'), lists_plot(fresh, 5)
    assert len(made) == len(scene.before) + len(scene.after)
    again = gain_by(fresh, 'interactions', 'recall@30')
    assert len(made) == 2 * (len(scene.before) + len(scene.after)), 'longer lists are made'
    pd.testing.assert_frame_equal(figures[1], gain_by(scene, 'interactions', 'ndcg@10'))
    pd.testing.assert_frame_equal(again, gain_by(scene, 'interactions', 'recall@30'))
    with pytest.raises(ValueError, match='these lists have 5 places and 6 are wanted'):
        scene.ranked('before', 5)[0].shorter(6)


@pytest.mark.parametrize('name', COLUMNS)
def test_any_column_of_data_can_be_a_colour(scene, name):
    given, expected = COLUMNS[name]
    items = scene.data.items.assign(odd=repeated(given))
    odd = replace(scene, data=replace(scene.data, items=items))
    p = whole_maps()
    t = node_table(odd, p, neighbours=None)
    assert ('odd' in t) == (expected is not None)
    if expected is None:
        return
    found = t.odd[M : M + len(expected)]
    known = [value is not None for value in expected]
    assert found.notna().tolist() == known and t.odd[:M].isna().all()
    for value, right in zip(found[known], np.array(expected, dtype=object)[known], strict=True):
        assert value == (right if isinstance(right, str) else pytest.approx(right, abs=3e-3))
    assert profile_map(odd, p, 'odd', table=t).data and still_map(odd, p, 'odd')
    columns = json.loads(gzip.decompress(explorer_data(odd, p)['scene']))['columns']
    assert 'odd' in [column['name'] for column in columns]


@pytest.mark.parametrize('name', [name for name, (_, expected) in COLUMNS.items() if name != 'nothing'])
def test_any_column_of_ones_own_colours_a_map_and_groups_users(scene, name):
    given = pd.Series(COLUMNS[name][0])
    t = node_table(scene, neighbours=None)
    t['own'] = given.iloc[np.arange(M + N) % len(given)].reset_index(drop=True)
    fig = profile_map(scene, maps(), 'own', table=t)
    assert sum(len(trace.customdata) for trace in fig.data if trace.customdata is not None) == M + N
    if name != 'one value':
        assert len(gain_by(scene, t.own[:M])) > 1


def whole_maps():
    """Maps with a record that can be told in words."""
    p = maps()
    record = {
        'parameters': {'neighbours': 15, 'min_dist': 0.1, 'epochs': 500},
        'versions': {'umap-learn': '0'},
        'maps': {},
        'before_after': None,
    }
    counts = dict.fromkeys(('rows', 'shown', 'queries', 'users', 'items', 'seed'), 1)
    return Projection(p.coords, M, N, record | counts | {'sampled': False}, {}, p.labels, p.clusters)


def test_lists_of_a_saved_run_are_drawn(scene, tmp_path):
    from promax_nb.data.saved import load, save

    items = scene.data.items.assign(tags=repeated([['slow', 'dark'], ['light'], []]))
    data = replace(scene.data, items=items)
    fresh, back = node_table(Scene(data)), node_table(Scene(load(save(data, tmp_path))))
    assert set(fresh.tags.dropna()) == set(back.tags.dropna()) == {'slow', 'light'}
    assert fresh.tags.isna().equals(back.tags.isna())


@pytest.mark.parametrize('spaces', [['base'], ['base', 'reshaped'], None])
def test_the_legend_of_a_still_is_not_cut(scene, monkeypatch, spaces):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn, draw = [], FigureCanvasAgg.print_png

    def watched(canvas, file):
        draw(canvas, file)
        drawn.append(canvas.figure)

    monkeypatch.setattr(FigureCanvasAgg, 'print_png', watched)
    still_map(scene, maps(), 'genre', spaces)
    (fig,) = drawn
    box = fig.legends[0].get_window_extent()
    label = fig.axes[0].xaxis.label.get_window_extent()
    assert len(fig.legends[0].get_texts()) == 2 + 8
    assert 0 <= box.x0 and box.x1 <= fig.bbox.x1 and 0 <= box.y0 and box.y1 <= label.y0


@pytest.mark.parametrize('nothing', [None, float('nan'), pd.NA, pd.NaT, ''], ids=repr)
def test_what_has_no_title_is_called_by_its_id(scene, nothing):
    titles = pd.Series([nothing, 'Salt', *scene.data.items.title[2:]], dtype=object)
    partly = replace(scene, data=replace(scene.data, items=scene.data.items.assign(title=titles)))
    first = f'item {scene.data.items["item"][0]}'
    assert partly.name('item', 0) == first and partly.name('item', 1) == 'Salt'
    assert list(node_table(partly, neighbours=None)['name'][M : M + 2]) == [first, 'Salt']
    assert any(first in text for text in distribution_plot(partly, 0).data[0].hovertext)


def test_a_scene_forgets_what_was_made_from_other_trainings(scene):
    other = replace(scene)
    before = node_table(other, neighbours=5)
    other.before.append(vectors(9))  # one more seed
    after = node_table(other, neighbours=5)
    rank = 'rank change of held-out items'
    assert not before[rank].equals(after[rank]) and before['neighbours kept'].equals(after['neighbours kept'])


# what ranks may have no vectors


def by_scores(scene):
    """The same recommenders as tables of scores and as functions, without vectors."""
    first, second = ([users @ items.T for users, items in runs] for runs in (scene.before, scene.after))
    return replace(scene, before=first, after=[lambda rows, s=scores: s[rows] for scores in second])


def test_scores_alone_rank_as_vectors_do(scene):
    bare = by_scores(scene)
    pd.testing.assert_frame_equal(rank_change(bare), rank_change(scene))
    pd.testing.assert_frame_equal(retrieval_table(bare, (5, 20)), retrieval_table(scene, (5, 20)))
    pd.testing.assert_frame_equal(gain_by(bare, 'interactions'), gain_by(scene, 'interactions'))
    assert degree_gain_plot(bare).to_json() == degree_gain_plot(scene).to_json()
    known, found = node_table(scene), node_table(bare)
    assert set(known) - set(found) == {'neighbours kept', 'profiles and base agree'}
    pd.testing.assert_frame_equal(found, known[list(found)])
    t = distributions(bare, 3)
    assert t.q_before.isna().all() and np.isnan(t.attrs['kl_after']) and (t.p == distributions(scene, 3).p).all()
    assert len(distribution_plot(bare, 3).data) and list(entropies(bare)) == ['user', 'entropy_p']


def test_a_scorer_is_asked_and_left_as_it_was(scene):
    scores = scene.before[0][0] @ scene.before[0][1].T
    kept = scores.copy()
    held_out_ranks(scores, scene.data.test, scene.data.train)
    assert (scores == kept).all()


def test_what_needs_vectors_says_so(scene):
    from promax_nb.views.maps import project_scene
    from promax_nb.views.population import population

    bare = by_scores(scene)
    with pytest.raises(ValueError, match='a divergence needs vectors.*before= has scores only'):
        divergence_plot(bare)
    with pytest.raises(ValueError, match='scores alone have no map'):
        project_scene(Scene(scene.data, before=bare.before), progress=False)
    with pytest.raises(ValueError, match='no vectors at all'):
        alignment_uniformity(Scene(scene.data, before=bare.before))
    with pytest.raises(ValueError, match=r"the scores are \(50, 6\) but data has 50 users and 60 items"):
        Scene(scene.data, before=scene.before[0][0])
    assert list(bare.spaces()) == ['profiles'] and 'How far from the profiles are they?' not in population(bare)


# what the population figures say


def test_alignment_and_uniformity_against_plain_loops(scene):
    t = alignment_uniformity(scene)
    assert list(t.space) == ['profiles', 'base', 'base', 'reshaped', 'reshaped'] and list(t.seed) == [0, 0, 1, 0, 1]
    u, i = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in scene.after[1])
    e = scene.data.train.tocoo()
    assert t.alignment[4] == pytest.approx(
        np.mean([((u[a] - i[b]) ** 2).sum() for a, b in zip(e.row, e.col, strict=True)]), rel=1e-4
    )
    pairs = [np.exp(-2 * ((i[a] - i[b]) ** 2).sum()) for a in range(N) for b in range(N) if a != b]
    assert t.uniformity_items[4] == pytest.approx(np.log(np.mean(pairs)), rel=1e-4)
    assert t.uniformity[4] == pytest.approx((t.uniformity_items[4] + t.uniformity_users[4]) / 2)


def test_retrieval_equals_the_evaluation(scene):
    from promax_nb.models.evaluate import held_out, per_user

    t = retrieval_table(scene, (5, 10, 20, 9999))
    assert list(t.k) == [5, 10, 20]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in scene.vectors]
    for column, pair in (('recall', unit), ('base', scene.before[0]), ('reshaped', scene.after[0])):
        known = per_user(*pair, *held_out(scene.data), (5, 10, 20)).mean()
        np.testing.assert_allclose(t[column], [known[f'recall@{k}'] for k in t.k])
    assert (t.low < t.recall).all() and (t.recall < t.high).all()


def test_chance_is_what_random_vectors_find(scene):
    free = [N - (scene.data.train + scene.data.valid)[u].nnz for u in range(M) if scene.data.test[u].nnz]
    t = retrieval_table(scene, (10,))
    assert t.chance[0] == pytest.approx(np.mean([10 / f for f in free]))
    tries = [retrieval_table(replace(scene, vectors=vectors(100 + k)), (10,)).recall[0] for k in range(40)]
    assert abs(np.mean(tries) - t.chance[0]) < 4 * np.std(tries) / 40**0.5


def test_the_gain_of_each_user(scene):
    from promax_nb.models.evaluate import user_metrics

    fig = degree_gain_plot(scene, 'ndcg@10')
    a, b = (
        sum(s[1:], s[0])['ndcg@10'] / 2
        for s in (user_metrics(r, scene.data, ks=(10,)) for r in (scene.before, scene.after))
    )
    dots = next(t for t in fig.data if t.name == 'a user')
    np.testing.assert_allclose(dots.y, b - a)
    assert dots.meta == 'nodes' and list(dots.customdata) == a.index.tolist(), 'a page opens who was clicked'
    degree = np.diff(scene.data.train.indptr)[a.index]
    assert (np.abs(np.log(np.asarray(dots.x) / degree)) < 0.09).all()
    means = next(t for t in fig.data if t.name.startswith('mean'))
    for low, high, sym in zip(
        means.y - means.error_y.arrayminus, means.y + means.error_y.array, means.marker.symbol, strict=True
    ):
        includes_zero = low <= 0 <= high
        assert sym == ('diamond-open' if includes_zero else 'diamond')


# looks


@pytest.fixture(scope='module')
def figures(scene):
    return every_figure(scene, maps())


# panels that share an axis with a labelled one, and the rug, whose ticks are its labels
BARE = {
    'pair': {'yaxis2'},
    'user': {'xaxis', 'yaxis2'},
    'divergence': {'yaxis2'},
    'gain': {'xaxis'},
    'training': {'xaxis'},
}


def test_axes_are_labelled_and_no_background_is_brought_along(figures):
    for name, fig in figures.items():
        axes = {key: axis for key, axis in fig.to_dict()['layout'].items() if re.match(r'[xy]axis', key)}
        bare = {key for key, axis in axes.items() if not axis.get('title', {}).get('text')}
        assert bare == BARE.get(name, set()), name
        assert fig.layout.paper_bgcolor == fig.layout.plot_bgcolor == 'rgba(0,0,0,0)' and fig.layout.title.text, name
        assert fig.layout.font.color == GREY and all(a['gridcolor'].startswith('rgba(128') for a in axes.values()), name


def contrast(a, b):
    """WCAG contrast of two colours '#rrggbb'."""

    def light(c):
        v = [int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        return sum(
            w * (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4)
            for w, x in zip((0.2126, 0.7152, 0.0722), v, strict=True)
        )

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_texts_are_readable_on_white_and_on_dark(figures):
    assert contrast(GREY, '#ffffff') > 4 and contrast(GREY, '#181818') > 4
    assert contrast('#ffffff', '#fefefe') < 1.1 < 20 < contrast('#000000', '#ffffff')  # the measure can fail


def test_nothing_of_the_data_is_in_a_template(figures):
    for name, fig in figures.items():
        # the lines of a training show plotly's own box: numbers and the name, which is escaped
        allowed = {None, 'text'} if name == 'training' else {'text', 'skip', 'y'}
        for t in fig.data:
            assert t.hovertemplate is None and t.texttemplate is None, (name, t.name)
            assert t.hoverinfo in allowed, (name, t.name)


def test_kinds_differ_in_shape_everywhere(figures):
    for name in ('map', 'number', 'words', 'pair', 'overlay'):
        for t in figures[name].data:
            if t.customdata is None:
                continue
            expected = {'circle' if node < M else 'diamond' for node in t.customdata}
            assert expected == {t.marker.symbol}, name
        shown = [t for t in figures[name].data if t.showlegend is not False]
        assert {'users', 'items'} <= {t.name for t in shown}, name


def test_distributions_differ_in_more_than_colour(figures):
    lines = {
        t.name: t
        for t in figures['user'].data
        if t.name in ('profile p', 'base q', "reshaped q'") and 'lines' in t.mode
    }
    assert len({t.line.dash for t in lines.values()}) == 3
    for name in ('entropy', 'divergence'):
        assert len({t.line.dash for t in figures[name].data}) == len({t.name for t in figures[name].data}), name


def test_every_node_is_drawn_once(figures):
    drawn = np.concatenate([t.customdata for t in figures['words'].data if t.customdata is not None])
    assert sorted(drawn) == list(range(M + N))
    names = {t.name for t in figures['words'].data}
    assert 'other' in names and len({t.marker.color for t in figures['words'].data if t.customdata is not None}) <= 8


def test_numbers_have_a_colour_bar_with_their_meaning(figures, scene):
    bar = figures['number'].layout.coloraxis.colorbar.title.text.replace('<br>', ' ')
    assert bar.startswith('profile sharpness:') and 'log N' in bar
    sharp = node_table(scene, neighbours=None)['profile sharpness']
    assert figures['number'].layout.coloraxis.cmax == pytest.approx(np.nanpercentile(sharp, 99))
    change = profile_map(scene, maps(), 'rank change of held-out items').layout.coloraxis
    assert change.cmin == -change.cmax  # the middle colour means no change


def test_skewed_numbers_are_coloured_by_logarithm(scene):
    p, t = maps(), node_table(scene, neighbours=None)
    t['seen'] = np.r_[np.ones(M + N - 5), np.full(5, 1000.0)]
    bar = profile_map(scene, p, 'seen', table=t).layout.coloraxis
    assert (
        bar.cmax == pytest.approx(3)
        and 'log scale' in bar.colorbar.title.text.replace('<br>', ' ')
        and '1,000' in bar.colorbar.ticktext
    )
    t['seen'] = 1.0
    assert profile_map(scene, p, 'seen', table=t).layout.coloraxis.cmax > 1  # a constant is no division by zero


def test_the_pair_is_linked_and_the_overlay_shows_the_furthest(figures, scene):
    pair = figures['pair'].layout
    assert pair.xaxis2.matches == 'x' and pair.yaxis2.matches == 'y' and pair.yaxis.scaleanchor == 'x'
    p = maps()
    far = np.linalg.norm(p.coords['reshaped'] - p.coords['base'], axis=1)
    moved = next(t for t in figures['overlay'].data if t.name == 'moved furthest (7)')
    top = np.argsort(-far)[:7]
    np.testing.assert_allclose(np.asarray(moved.x)[0::3], p.coords['base'][top, 0])
    np.testing.assert_allclose(np.asarray(moved.x)[1::3], p.coords['reshaped'][top, 0])
    assert np.isnan(np.asarray(moved.x, float)[2::3]).all()
    assert (
        next(t for t in before_after(scene, p, form='overlay', arrows=0).data if t.name.startswith('moved')).x.size == 0
    )


def test_honesty_is_below_the_title(figures):
    assert (
        'trustworthiness 0.91' in figures['map'].layout.title.subtitle.text
        and 'neighbours kept 0.40' in figures['pair'].layout.title.subtitle.text
    )


def test_marks_of_the_user(figures, scene):
    t = distributions(scene, 3).sort_values('p', ascending=False, kind='stable')
    for word, column in (('training', 'train'), ('validation', 'valid'), ('held out', 'test'), ('added', 'added')):
        mark = next(f for f in figures['user'].data if f.name == word)
        places = [x for x in mark.x if x is not None]
        assert places == list(np.flatnonzero(t[column]) + 1) and f'({t[column].sum()})' in mark.y[0]
    note = figures['user'].layout.title.subtitle.text
    for key in ('weight', 'kl_before', 'kl_after', 'js_before', 'js_after'):
        assert f'{distributions(scene, 3).attrs[key]:.3f}' in note
    assert figures['user'].layout.yaxis.type == 'log' and 'nats' in note


def test_orders_and_top(scene):
    for order, column in (('before', 'q_before'), ('after', 'q_after')):
        fig = distribution_plot(scene, 1, top=10, order=order)
        line = [t for t in fig.data if t.name in ('base q', "reshaped q'") and 'lines' in t.mode][order == 'after']
        np.testing.assert_allclose(line.y, np.sort(distributions(scene, 1)[column])[::-1][:10])


def large(m=1500, n=900):
    ids = np.arange(m) % (n - 3)
    parts = [sp.csr_matrix((np.ones(m, np.float32), (np.arange(m), ids + k)), shape=(m, n)) for k in range(3)]
    return Scene(RecData(*parts), vectors=vectors(0, m, n), before=vectors(1, m, n), after=vectors(2, m, n))


def test_many_nodes_get_small_and_use_the_graphics_card(figures):
    s, p = large(), maps(1500, 900)
    fig = profile_map(s, p, table=node_table(s, p, neighbours=None))
    dots = [t for t in fig.data if t.customdata is not None]
    few = [t for t in figures['map'].data if t.customdata is not None]
    assert {t.type for t in dots} == {'scattergl'} and {t.type for t in few} == {'scatter'}
    assert dots[0].marker.size < few[0].marker.size and dots[0].marker.opacity < few[0].marker.opacity
    assert sorted(np.concatenate([t.customdata for t in dots])) == list(range(2400))
    assert [t.name for t in dots[:4]] == ['users', 'items', 'users', 'items'] and sum(
        t.showlegend is not False for t in dots
    ) == 2


def test_only_a_selection_is_drawn(scene):
    p, t = maps(), node_table(scene, neighbours=None)
    mask = np.zeros(M + N, bool)
    mask[[3, 70]] = True
    for only in ([3, 70], mask, t.iloc[[3, 70]]):
        drawn = [
            k for f in profile_map(scene, p, only=only, table=t).data if f.customdata is not None for k in f.customdata
        ]
        assert sorted(drawn) == [3, 70]
    p.coords['profiles'][3] = np.nan  # not in the sample
    assert 3 not in [k for f in profile_map(scene, p, table=t).data if f.customdata is not None for k in f.customdata]


# texts from strangers

HOSTILE = [
    '<script>window.hit=1</script>',
    '"><img src=x onerror=window.hit=1>',
    '</script><script>window.hit=1</script>',
    '<svg/onload=window.hit=1>',
    '<a href="javascript:window.hit=1">x</a>',
    '<b onmouseover=window.hit=1>b</b>',
    '\u202egnp.exe',
    'a\x00b',
    '%{x}%{customdata}',
    '$\\href{javascript:x}{y}$',
    '<br>' * 50,
    'x' * 100_000,
    '😀' * 30,
    'שלום עולם',
    '<span style="position:fixed">s</span>',
    '&lt;script&gt;',
    '{{7*7}}',
    '<!--',
    ']]>',
    '\ud800',
    '<sub>1</sub>',
    "' onclick='x",
    '<iframe src=//e>',
    '\u2028\u2029',
    '<extra></extra>',
    '=cmd|x',
    '<style>*{display:none}</style>',
]


def strings(x):
    """All texts in a nested structure."""
    if isinstance(x, dict):
        return [s for k, v in x.items() for s in [k, *strings(v)]]
    if isinstance(x, (list, tuple)):
        return [s for v in x for s in strings(v)]
    return [x] if isinstance(x, str) else []


def dangerous(fig) -> list:
    """Texts of a figure with markup other than our own, unseen characters, formulas, or no end."""
    found = strings(json.loads(fig.to_json()))
    markup, unseen = (
        re.compile(r'<(?!/?b>|br>)|(<br>){3}'),
        re.compile('[\x00-\x08\u202a-\u202e\u2028\u2029\ud800-\udfff]'),
    )
    return [s[:200] for s in found if markup.search(s) or unseen.search(s) or '$' in s or len(s) > 4000]


def test_hostile_texts_stay_texts(scene):
    d = scene.data
    users, items = d.users.copy(), d.items.copy()

    def column(x):
        return pd.Series(list(x), dtype=object)

    known = [
        t.replace('\ud800', '?') for t in HOSTILE
    ]  # ids and titles cannot hold half a character, texts and attributes can
    users['user'] = column(known[k % 27] + str(k) for k in range(M))
    items['title'] = column(known[k % 27] for k in range(N))
    items['item'] = column(known[-k % 27] + str(k) for k in range(N))
    items['<img src=x onerror=window.hit=1>'] = column(HOSTILE[k % 27] for k in range(N))
    texts = [pd.DataFrame({'profile': column(HOSTILE[k % 27] for k in range(size))}) for size in (M, N)]
    bad = replace(
        scene,
        data=replace(d, users=users, items=items),
        users=texts[0],
        items=texts[1],
        histories={h: scene.histories['base'] for h in HOSTILE[:6]},
    )
    p = maps(words=HOSTILE[:12])
    p.coords['<img src=x>'] = p.coords['profiles']
    p.record['maps']['<img src=x>'] = p.record['maps']['base']
    drawn = every_figure(bad, p)
    drawn['column'] = profile_map(bad, p, '<img src=x onerror=window.hit=1>', '<img src=x>')
    drawn |= {f'user {u}': distribution_plot(bad, u) for u in range(27)}
    hostile = pd.DataFrame({'base': 0.1, 'ours': 0.1, 'difference': 0.01, 'low': 0.001, 'high': 0.02}, index=known)
    drawn['comparison'] = comparison_plot(hostile, HOSTILE[1])
    groups = pd.DataFrame(
        {
            'from': [1],
            'to': [2],
            'users': [3],
            'base': [0.1],
            'ours': [0.2],
            'difference': [0.1],
            'low': [0.0],
            'high': [0.2],
            'p': [0.5],
        }
    )
    drawn['groups'] = sparsity_plot(groups, HOSTILE[1])
    for name, fig in drawn.items():
        assert not dangerous(fig), (name, dangerous(fig)[:3])
    assert 'window.hit' in drawn['map'].to_json()  # still there to be read


def test_the_detector_detects():
    import plotly.graph_objects as go

    for text in HOSTILE[:8]:
        assert dangerous(go.Figure(go.Scatter(x=[1], y=[1], hovertext=[text]))), text
    assert not dangerous(go.Figure(go.Scatter(x=[1], y=[1], hovertext=['<b>name</b><br>a &lt;b&gt;'])))


# sentences for bad input


def without(scene, *parts):
    return replace(scene, **{p: [] if p in ('before', 'after') else None for p in parts})


def no_test(scene):
    return replace(
        scene,
        data=SimpleNamespace(
            **{k: getattr(scene.data, k) for k in ('train', 'valid', 'users', 'items', 'shape', 'n_users', 'n_items')},
            test=sp.csr_matrix((M, N)),
        ),
    )


@pytest.mark.parametrize(
    'call, says',
    [
        (lambda s: distributions(s, M), f'from 0 to {M - 1}'),
        (lambda s: distributions(s, -1), 'row number'),
        (lambda s: distributions(s, True), 'row number'),
        (lambda s: distribution_plot(s, 'nobody'), 'no user is called'),
        (lambda s: distributions(s, 0, tau=0), 'above 0'),
        (lambda s: distributions(s, 0, teacher_tau=-0.1), 'teacher_tau'),
        (lambda s: distributions(s, 0, tau=float('nan')), 'above 0'),
        (lambda s: distributions(s, 0, floor=2), 'from 0 to 1'),
        (lambda s: distributions(without(s, 'vectors'), 0), 'no profile vectors'),
        (lambda s: distributions(without(s, 'raw'), 0, shared=False), 'before whitening'),
        (lambda s: distribution_plot(s, 0, order='q'), "'before' or 'after'"),
        (lambda s: distribution_plot(without(s, 'after'), 0, order='after'), 'no such distribution'),
        (lambda s: distribution_plot(s, 0, top=0), '1 or more'),
        (lambda s: profile_map(s, maps(), 'clustre'), "did you mean 'cluster'"),
        (lambda s: profile_map(s, maps(), 'profile'), 'there is no column'),
        (lambda s: profile_map(s, maps(), space='elsewhere'), 'no map of'),
        (lambda s: profile_map(s, maps(m=M + 1)), f'but the scene has {M}'),
        (lambda s: profile_map(s, maps(), only=[]), 'selection is empty'),
        (lambda s: profile_map(s, maps(), only=node_table(s, neighbours=None).iloc[:0]), 'selection is empty'),
        (lambda s: profile_map(s, maps(), only=[True, False]), 'one for each'),
        (lambda s: profile_map(s, maps(), only=[M + N]), 'users first'),
        (lambda s: before_after(s, maps(), form='both'), "'pair' or 'overlay'"),
        (lambda s: before_after(s, maps(), arrows=-1), '0 or more'),
        (
            lambda s: before_after(s, SimpleNamespace(coords={'profiles': np.zeros((M + N, 2))}, n_users=M, n_items=N)),
            "no map of 'base'",
        ),
        (lambda s: entropy_plot(without(s, 'vectors')), 'no profile vectors'),
        (lambda s: divergence_plot(without(s, 'before')), 'no base recommender'),
        (lambda s: divergence_plot(without(s, 'after')), 'no reshaped recommender'),
        (lambda s: degree_gain_plot(without(s, 'after')), 'no reshaped recommender'),
        (lambda s: degree_gain_plot(s, 'recall'), "'recall@20'"),
        (lambda s: alignment_uniformity_plot(without(s, 'vectors', 'before', 'after')), 'no vectors at all'),
        (lambda s: retrieval_plot(without(s, 'vectors')), 'no profile vectors'),
        (lambda s: retrieval_plot(s, ()), 'at least one list length'),
        (lambda s: retrieval_plot(s, (0, 5)), 'from 1 up'),
        (lambda s: retrieval_plot(no_test(s)), 'nobody has a held-out'),
        (
            lambda s: node_table(replace(s, settings={'confidence': 'loud'}), neighbours=None),
            "'published' or 'relative'",
        ),
    ],
)
def test_bad_input_gets_a_sentence(scene, call, says):
    with pytest.raises(ValueError, match=re.escape(says)) as e:
        call(scene)
    assert len(str(e.value)) < 900 and '\n' not in str(e.value)


def test_moving_needs_both_maps(scene):
    p = maps()
    del p.coords['reshaped']
    with pytest.raises(ValueError, match='base and reshaped'):
        profile_map(scene, p, 'distance moved')


def test_nobody_held_anything_out(scene):
    assert 'rank change of held-out items' not in node_table(no_test(scene), neighbours=None)
