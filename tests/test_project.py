"""Maps: one frame for before and after, figures that keep them honest, a careful cache, work that can be stopped."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from promax_nb.data.bookshop import toy_data
from promax_nb.retrieval.vectors import unit_rows
from promax_nb.views.layout import placed_among, umap_class
from promax_nb.views.maps import Projection, project, project_scene
from promax_nb.views.neighbours import nearest, neighbours_kept, procrustes, trustworthiness
from promax_nb.views.regions import clusters
from promax_nb.views.scene import Scene

M, N, D = 70, 60, 10


def turn(d=D, seed=5):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def halves(x):
    return x[:M].astype(np.float32), x[M:].astype(np.float32)


@pytest.fixture(scope='session')
def cloud():
    """One connected cloud of M + N points with some structure."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(M + N, D)) * np.linspace(2, 0.3, D)


@pytest.fixture(scope='session')
def spaces(cloud):
    """The reshaped space is the base, turned; profiles are something else and wider."""
    return {
        'profiles': halves(np.random.default_rng(1).normal(size=(M + N, 16))),
        'base': halves(cloud),
        'reshaped': halves(cloud @ turn()),
    }


@pytest.fixture(scope='session')
def heard():
    return []


@pytest.fixture(scope='session')
def made(spaces, heard):
    """One projection by measured choice, shared by the tests that only look at it."""
    return project(spaces, progress=lambda f, text: heard.append((f, text)))


def same(a, b):
    return list(a.coords) == list(b.coords) and all(
        np.array_equal(a.coords[k], b.coords[k], equal_nan=True) for k in a.coords
    )


# measures ---------------------------------------------------------------------------------------------------------


def test_nearest_is_exact_and_leaves_out_oneself(cloud):
    d = np.linalg.norm(cloud[:, None] - cloud, axis=2)
    np.fill_diagonal(d, np.inf)
    for x in (cloud, cloud[:, :2]):
        d = np.linalg.norm(x[:, None] - x, axis=2)
        np.fill_diagonal(d, np.inf)
        ids, far = nearest(x, 7)
        assert (ids == d.argsort(1)[:, :7]).all() and np.allclose(far, np.sort(d, 1)[:, :7], atol=1e-3)


@pytest.mark.parametrize('width', [2, 8])
def test_nearest_among_equal_points_never_names_oneself(width):
    ids, far = nearest(np.ones((40, width)), 5)
    assert (
        not (ids == np.arange(40)[:, None]).any() and (far == 0).all() and all(len(set(r)) == 5 for r in ids.tolist())
    )


@pytest.mark.parametrize('k', [1, 5, 15, 40])
def test_trustworthiness_equals_sklearn(cloud, k):
    from sklearn.manifold import trustworthiness as theirs

    x, y = unit_rows(cloud).astype(np.float64), np.random.default_rng(2).normal(size=(M + N, 2))
    y[:60] = x[:60, :2]  # partly a fair map
    assert trustworthiness(x, y, k) == pytest.approx(theirs(x, y, n_neighbors=k), abs=1e-12)


def test_trustworthiness_of_a_sample_of_queries(cloud):
    y = np.random.default_rng(3).normal(size=(M + N, 2))
    y[:60] = cloud[:60, :2]
    all_of_them, some = trustworthiness(cloud, y), [trustworthiness(cloud, y, queries=40, seed=s) for s in range(12)]
    assert len(set(some)) > 1 and abs(np.mean(some) - all_of_them) < 0.05
    assert (
        trustworthiness(cloud, y, queries=40, seed=1) == some[1]
        and trustworthiness(cloud, y, queries=10_000) == all_of_them
    )


def test_trustworthiness_knows_its_limits(cloud):
    with pytest.raises(ValueError, match='less than half'):
        trustworthiness(cloud, cloud[:, :2], k=(M + N) // 2)
    with pytest.raises(ValueError, match='one row per node'):
        trustworthiness(cloud, cloud[:5, :2])


def test_rows_not_shown_do_not_count(cloud):
    y = cloud[:, :2].copy()
    y[::3] = np.nan
    good = np.isfinite(y).all(1)
    assert trustworthiness(cloud, y, 5) == trustworthiness(cloud[good], y[good], 5)
    kept = neighbours_kept(cloud, y, 5)
    assert np.isnan(kept[~good]).all() and (kept[good] == neighbours_kept(cloud[good], y[good], 5)).all()


def test_neighbours_kept_counts(cloud):
    assert (neighbours_kept(cloud, cloud @ turn(), 9) == 1).all()
    y, k = np.random.default_rng(4).normal(size=(M + N, 2)), 6
    a, b = nearest(cloud, k)[0], nearest(y, k)[0]
    by_hand = [len(set(p) & set(q)) / k for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    assert np.allclose(neighbours_kept(cloud, y, k), by_hand)


def test_align_takes_out_a_turn_and_nothing_else(cloud):
    assert np.allclose(procrustes(cloud @ turn(), cloud), cloud, atol=1e-4)
    other = np.random.default_rng(6).normal(size=(M + N, D))
    moved = procrustes(other, cloud)
    assert np.allclose(moved @ moved.T, other @ other.T, atol=1e-3)  # distances inside stay
    assert np.square(moved - cloud).sum() <= np.square(other - cloud).sum()
    assert procrustes(cloud[:, :4], cloud).shape == procrustes(cloud, cloud[:, :4]).shape == (M + N, D)
    with pytest.raises(ValueError, match='same nodes'):
        procrustes(cloud[1:], cloud)
    with pytest.raises(ValueError, match='NaN'):
        procrustes(cloud * np.nan, cloud)


# maps -------------------------------------------------------------------------------------------------------------


def test_same_seed_same_maps(spaces, made):
    again = project(spaces, progress=False)
    assert same(made, again) and made.record == again.record
    other = project({'base': spaces['base']}, seed=1, progress=False)
    assert not np.array_equal(
        other.coords['base'], project({'base': spaces['base']}, seed=2, progress=False).coords['base']
    )


def test_a_projection_is_complete(made):
    assert (
        isinstance(made, Projection)
        and list(made.coords) == ['profiles', 'base', 'reshaped']
        and (made.n_users, made.n_items) == (M, N)
    )
    assert all(v.shape == (M + N, 2) and v.dtype == np.float32 and np.isfinite(v).all() for v in made.coords.values())
    assert made.shown.all() and made.moved.shape == (M + N,) and '70 users' in repr(made)


def test_the_record_can_be_checked(spaces, made):
    r = made.record
    assert (r['rows'], r['shown'], r['users'], r['items'], r['sampled'], r['seed'], r['queries']) == (
        M + N,
        M + N,
        M,
        N,
        False,
        0,
        M + N,
    )
    assert (
        r['parameters']['neighbours'] == 15
        and r['parameters']['min_dist'] == 0.1
        and r['versions']['umap-learn'][0].isdigit()
    )
    for name, m in r['maps'].items():
        x = unit_rows(np.vstack(spaces[name]))
        assert (
            m['trustworthiness'] == pytest.approx(trustworthiness(x, made.coords[name], 15))
            and 0.6 < m['trustworthiness'] <= 1
        )
        assert (
            m['neighbours_kept']
            == pytest.approx(neighbours_kept(x, made.coords[name], 15).mean())
            == pytest.approx(made.kept[name].mean())
        )
    assert r['before_after']['neighbours_kept'] > 0.99 and r == json.loads(json.dumps(r))


def test_both_methods_are_measured_and_the_better_is_taken(made):
    a = made.record['agreement']
    assert made.record['method'] == a['chosen'] == max(('common', 'started'), key=lambda m: a[m]['agreement'])
    for m in ('common', 'started'):
        assert a[m]['agreement'] == pytest.approx(a[m]['order'] + a[m]['trust'] - a[m]['drift'])


def test_describe_says_it(made):
    text = made.describe()
    for part in (
        '130 of 130 nodes',
        'seed 0',
        '15 neighbours',
        'profiles: trustworthiness',
        'reshaped: trustworthiness',
        'against',
    ):
        assert part in text
    assert f"method {made.record['method']!r}" in text


def test_progress_goes_from_nothing_to_done(made, heard):
    f = np.array([f for f, _ in heard])
    assert (
        len(f) > 100
        and f[-1] == 1
        and (np.diff(f) >= -1e-9).all()
        and 0 <= f[0] < 0.1
        and all(isinstance(t, str) and t for _, t in heard)
    )
    assert {'base and reshaped, common', 'base and reshaped, started', 'profiles', 'neighbours'} <= {
        t for _, t in heard
    }


@pytest.mark.parametrize('method', ['common', 'started'])
def test_a_turned_space_gives_nearly_the_same_map(spaces, method):
    p = project({k: spaces[k] for k in ('base', 'reshaped')}, method=method, progress=False)
    assert np.median(p.moved) < 0.15 and p.record['method'] == method and list(p.record['agreement'])[3:] == [method]


@pytest.mark.parametrize('method', ['common', 'started'])
def test_who_moved_in_the_space_moves_on_the_map(method):
    rng = np.random.default_rng(7)
    centre, group = rng.normal(size=(5, D)) * 2, np.arange(M + N) % 5
    before = centre[group] + rng.normal(size=(M + N, D)) * 0.5
    who, after = np.arange(0, 40, 3), before.copy()
    after[who] += (centre[(group + 1) % 5] - centre[group])[who]
    p = project({'base': halves(before), 'reshaped': halves(after @ turn())}, method=method, progress=False)
    far = np.argsort(-p.moved)[: len(who)]
    assert len(np.intersect1d(far, who)) >= len(who) - 2 and p.record['agreement'][method]['order'] > 0.2
    assert p.kept['before_after'][who].mean() < 0.5 < np.delete(p.kept['before_after'], who).mean()


def test_a_large_map_is_chosen_on_a_sample(monkeypatch):
    from promax_nb.views import layout as layout_room

    drawn, n = [], 5200

    def quick(method, x, y, near, how, tell, start=None):
        drawn.append((method, len(x)) if start is None else (method, len(x), [len(xy) for xy in start]))
        return (x[:, :2], y[:, :2]) if method == 'started' else (x[:, :2], x[::-1, :2])

    monkeypatch.setattr(layout_room, 'both_layouts', quick)
    x = np.random.default_rng(8).normal(size=(n, 4)).astype(np.float32)
    p = project({'base': (x[:3000], x[3000:]), 'reshaped': (x[:3000] + 0.01, x[3000:])}, progress=False)
    assert drawn == [('common', 2000), ('started', 2000), ('started', n, [n, n])]
    a = p.record['agreement']
    assert (
        a['rows'] == 2000
        and set(a) >= {'common', 'started', 'all rows'}
        and p.record['queries'] == 2000
        and 'asked about 2,000 nodes' in p.describe()
    )


def test_a_sample_is_drawn_and_the_others_are_put_among_it(monkeypatch):
    from promax_nb.views import layout as layout_room

    for name, value in (('_LARGE', 200), ('_TRIAL', 100), ('_HUGE', 400), ('_DRAWN', 250)):
        monkeypatch.setattr(layout_room, name, value)
    rng = np.random.default_rng(0)
    group = np.arange(600) % 4
    x = (rng.normal(size=(4, 8))[group] * 3 + rng.normal(size=(600, 8)) * 0.3).astype(np.float32)
    two = {'base': halves(x), 'reshaped': halves(x @ np.linalg.qr(rng.normal(size=(8, 8)))[0])}
    drawn, draw = [], layout_room.umap_layout

    def watched(x, near, how, *args, **more):
        drawn.append((len(x), how.epochs))
        return draw(x, near, how, *args, **more)

    monkeypatch.setattr(layout_room, 'umap_layout', watched)
    p = project(two | {'profiles': halves(x)}, progress=False, method='common')
    told = p.record['agreement']
    assert drawn == [(200, 200), (500, 100), (100, 200), (250, 100)], 'a sample, and more settle'
    assert told['placed'] == 350 and told['trust of the placed'] > 0.85, told
    assert '350 nodes were put among the others, trust 0.' in p.describe() and 'then 100 of 250 nodes' in p.describe()
    for name in ('base', 'profiles'):
        middles = np.array([p.coords[name][group == g].mean(0) for g in range(4)])
        far = np.linalg.norm(p.coords[name][:, None] - middles, axis=2)
        assert (far.argmin(1) == group).mean() > 0.97, f'{name}: groups are mixed up'
    monkeypatch.setattr(layout_room, '_HUGE', 10_000)
    q = project(two, progress=False)
    assert 'epochs of a sample, then 100 of 600 nodes' in q.describe() and 'placed' not in q.record['agreement']
    assert np.abs(q.coords['base'] - project(two, progress=False).coords['base']).max() == 0, 'same vectors, same map'


def test_places_among_others_by_hand():
    x = np.array([[0.0, 0], [1, 0], [0, 1], [0.9, 0]])
    xy = placed_among(x, np.array([0, 1, 2]), np.array([[0.0, 0], [10, 0], [0, 10]]), seed=0)
    assert xy[:3].tolist() == [[0, 0], [10, 0], [0, 10]] and np.linalg.norm(xy[3] - [10, 0]) < 1


def test_one_space_alone_and_one_with_another_width(spaces):
    p = project({'profiles': spaces['profiles']}, progress=False)
    assert (
        p.record['method'] == 'each alone'
        and p.record['agreement'] is None
        and p.record['before_after'] is None
        and np.isnan(p.moved).all()
    )
    narrow = spaces['reshaped'][0][:, :3], spaces['reshaped'][1][:, :3]
    q = project({'base': spaces['base'], 'reshaped': narrow}, method='common', progress=False)
    assert np.isfinite(q.coords['reshaped']).all() and q.record['maps']['reshaped']['width'] == 3


@pytest.mark.parametrize('what', ['four points', 'all equal', 'one wide', 'zeros among them', 'fit results'])
def test_odd_but_legal_vectors_give_finite_maps(what, cloud):
    class Fit:
        users, items = halves(cloud)

    some = halves(cloud)
    some[0][:30] = 0
    x = {
        'four points': (np.eye(2, 3), np.ones((2, 3))),
        'all equal': (np.ones((20, 3)), np.ones((10, 3))),
        'one wide': tuple(v[:, :1] for v in halves(cloud)),
        'zeros among them': some,
        'fit results': Fit,
    }[what]
    p = project({'base': x, 'reshaped': x}, method='started' if what == 'four points' else 'common', progress=False)
    assert np.isfinite(p.coords['base']).all() and p.shown.all() and p.describe()


def test_sampling_is_recorded_and_leaves_the_rest_empty(spaces):
    p = project(spaces, sample=40, method='common', progress=False)
    users, items = p.shown[:M].sum(), p.shown[M:].sum()
    assert (
        users == items == 40
        and p.record['sampled']
        and p.record['shown'] == 80
        and p.record['parameters']['sample'] == 40
    )
    for v in (*p.coords.values(), *p.kept.values(), p.moved):
        assert np.isnan(v[~p.shown]).all() and np.isfinite(v[p.shown]).all()
    assert 'random sample' in p.describe() and '80 of 130' in p.describe()
    assert project(spaces, sample=1000, method='common', progress=False).record['sampled'] is False


# bad input --------------------------------------------------------------------------------------------------------


def bad(spaces):
    u, i = spaces['base']
    hole = u.copy()
    hole[3, 2] = np.nan
    return [
        ({}, {}, 'no space to draw'),
        ([1], {}, 'pass a dict'),
        ({'base': (u, i), 'reshaped': (u[1:], i)}, {}, 'base has 70 users and 60 items, but reshaped has 69'),
        ({'base': (hole, i)}, {}, r'NaN.*1 of 70 rows \(ids 3\)'),
        ({'base': (u[:1], i[:0])}, {}, 'there is 1 point: a map needs 4'),
        ({'base': (u[:2], i[:1])}, {}, '3 points'),
        ({'base': (u, i[:, :3])}, {}, 'one width'),
        ({'base': (u, i, i)}, {}, '3 parts'),
        ({'base': (u[:, :0], i[:, :0])}, {}, r'shape \(70, 0\): pass an'),
        (spaces, {'method': 'best'}, "'auto', 'common' or 'started'"),
        (spaces, {'seed': -1}, 'seed=-1'),
        (spaces, {'neighbours': 1}, 'neighbours=1'),
        (spaces, {'min_dist': 3}, 'min_dist=3'),
        (spaces, {'sample': 1}, 'sample=1'),
    ]


@pytest.mark.parametrize('case', range(14))
def test_bad_input_gets_a_sentence(spaces, case):
    x, kw, says = bad(spaces)[case]
    with pytest.raises(ValueError, match=says):
        project(x, progress=False, **kw)


def test_a_cache_that_is_a_file(spaces, tmp_path):
    (tmp_path / 'f').write_text('x')
    with pytest.raises(ValueError, match='give a folder'):
        project(spaces, cache=tmp_path / 'f', progress=False)


def test_what_umap_compiled_is_kept_for_the_next_process():
    import umap.umap_

    umap_class()
    assert umap.umap_.smooth_knn_dist.stats.cache_path and umap.umap_.compute_membership_strengths.stats.cache_path


def test_without_umap_a_sentence(spaces, monkeypatch):
    monkeypatch.setitem(sys.modules, 'umap', None)
    with pytest.raises(ImportError, match='pip install umap-learn'):
        project(spaces, progress=False)


# stopping ---------------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.mark.parametrize('at', [0.0, 0.3, 0.55, 0.95])
def test_an_exception_in_progress_stops_the_work(spaces, tmp_path, at):
    import numba

    seen, threads = [], numba.get_num_threads()

    def stop(f, text):
        seen.append(f)
        if f >= at:
            raise Stop

    with pytest.raises(Stop):
        project(spaces, cache=tmp_path, progress=stop)
    assert sum(f >= at for f in seen) == 1 and not list(tmp_path.iterdir()) and numba.get_num_threads() == threads


def test_stopped_between_two_epochs(spaces):
    """UMAP itself is stopped: of one map's 500 epochs only a few ran."""
    seen = []

    def stop(f, text):
        seen.append(text)
        if seen.count('base') == 9:
            raise Stop

    with pytest.raises(Stop):
        project({'base': spaces['base']}, progress=stop)
    whole = []
    project({'base': spaces['base']}, progress=lambda f, text: whole.append(text))
    assert seen.count('base') == 9 and whole.count('base') > 490


def test_the_default_bar_is_quiet_without_a_terminal(spaces, capfd):
    project({'base': spaces['base']})
    assert capfd.readouterr() == ('', '')


# cache ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='session')
def small(spaces):
    return {'base': spaces['base'], 'reshaped': spaces['reshaped']}


@pytest.fixture()
def no_umap(monkeypatch):
    """From when it is called on, drawing a map fails."""
    from promax_nb.views import layout as layout_room
    from promax_nb.views import maps as maps_room

    def forbid():
        def never(*a, **k):
            raise AssertionError('UMAP was asked again')

        monkeypatch.setattr(maps_room, 'layout_alone', never)
        monkeypatch.setattr(layout_room, 'umap_layout', never)

    return forbid


def test_the_same_map_is_not_drawn_twice(small, tmp_path, no_umap):
    first = project(small, method='common', cache=tmp_path / 'new', progress=False)
    assert sorted(p.suffix for p in (tmp_path / 'new').iterdir()) == ['.json', '.npz']
    no_umap()
    told = []
    again = project(small, method='common', cache=str(tmp_path / 'new'), progress=lambda f, t: told.append((f, t)))
    assert same(first, again) and first.record == again.record and told == [(1.0, 'map read from the cache')]
    assert list(first.kept) == list(again.kept) and all(
        np.array_equal(first.kept[k], again.kept[k]) for k in first.kept
    )
    for kw in ({'seed': 1}, {'neighbours': 5}, {'min_dist': 0.2}, {'sample': 50}, {'method': 'started'}):
        with pytest.raises(AssertionError, match='asked again'):
            project(small, cache=tmp_path / 'new', progress=False, **{'method': 'common'} | kw)
    changed = {**small, 'base': (small['base'][0] + 1e-3, small['base'][1])}
    with pytest.raises(AssertionError, match='asked again'):
        project(changed, method='common', cache=tmp_path / 'new', progress=False)


def test_what_makes_a_map_the_same_map(small):
    from promax_nb.views.layout import MapSettings
    from promax_nb.views.maps import map_key

    users, items = small['base']
    key = map_key(small, MapSettings())
    assert key == map_key({name: tuple(v.copy() for v in pair) for name, pair in small.items()}, MapSettings(0, 15))
    other = users.copy()
    other[-1, -1] = np.nextafter(other[-1, -1], np.float32(9))
    changed = [
        (small | {'base': (other, items)}, MapSettings()),
        (dict(reversed(small.items())), MapSettings()),  # every other map is laid over the first
        ({'base': small['base'], 'profiles': small['reshaped']}, MapSettings()),
        (small | {'base': (items, users)}, MapSettings()),
        (small, MapSettings(seed=1)),
        (small, MapSettings(method='common')),
        (small, MapSettings(sample=9)),
    ]
    assert len({key, *(map_key(*what) for what in changed)}) == len(changed) + 1


def test_another_version_of_umap_is_another_map(small, kept_map, no_umap, monkeypatch):
    from promax_nb.views import maps as maps_room

    no_umap()
    assert project({'base': small['base']}, cache=kept_map[0], progress=False).record == kept_map[1].record
    monkeypatch.setattr(maps_room, 'map_versions', lambda: {'umap-learn': '9.9'})
    with pytest.raises(AssertionError, match='asked again'):
        project({'base': small['base']}, cache=kept_map[0], progress=False)


@pytest.fixture(scope='session')
def kept_map(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp('maps')
    return folder, project({'base': small['base']}, cache=folder, progress=False)


@pytest.mark.parametrize('damage', ['cut', 'empty', 'flipped', 'not json', 'other record', 'list', 'gone', 'swapped'])
def test_a_damaged_cache_is_drawn_again(small, kept_map, tmp_path, damage):
    x, first = {'base': small['base']}, kept_map[1]
    shutil.copytree(kept_map[0], tmp_path, dirs_exist_ok=True)
    npz, note = (next(tmp_path.glob(f'*.{e}')) for e in ('npz', 'json'))
    blob = npz.read_bytes()
    if damage == 'cut':
        npz.write_bytes(blob[: len(blob) // 2])
    if damage == 'empty':
        npz.write_bytes(b'')
    if damage == 'flipped':
        npz.write_bytes(blob[:200] + bytes([blob[200] ^ 1]) + blob[201:])
    if damage == 'not json':
        note.write_bytes(b'\xff{')
    if damage == 'other record':
        note.write_text(note.read_text().replace('"sampled": false', '"sampled": true'))
    if damage == 'list':
        note.write_text('[1]')
    if damage == 'gone':
        npz.unlink()
    if damage == 'swapped':
        npz.write_bytes(note.read_bytes())
    told = []
    again = project(x, cache=tmp_path, progress=lambda f, t: told.append(t))
    assert same(first, again) and again.record == first.record and 'base' in told
    assert (
        len(list(tmp_path.iterdir())) == 2
        and project(x, cache=tmp_path, progress=lambda f, t: told.append(t))
        and told[-1] == 'map read from the cache'
    )


def test_no_pickle_in_the_cache(kept_map):
    with np.load(next(kept_map[0].glob('*.npz')), allow_pickle=False) as z:
        assert {z[k].dtype for k in z.files} == {np.dtype('float32')}


def test_names_of_spaces_may_be_anything(small, tmp_path):
    odd = {'../up\x00"<b>\udc00': small['base'], 'ünï 🙂': small['reshaped']}
    p = project(odd, cache=tmp_path, progress=False)
    assert (
        same(p, project(odd, cache=tmp_path, progress=False))
        and '\x00' not in p.describe() + repr(p)
        and len(list(tmp_path.iterdir())) == 2
    )


# names of regions -------------------------------------------------------------------------------------------------

TOPICS = (['dragon', 'castle', 'sorcery'], ['murder', 'detective', 'clue'], ['galaxy', 'robot', 'starship'])


@pytest.fixture(scope='session')
def regions():
    """Three groups on a map, users and items with their own furniture of words."""
    rng, topic = np.random.default_rng(9), np.arange(120) % 3
    xy = np.array([[0, 0], [9, 0], [0, 9]])[topic] + rng.normal(size=(120, 2))
    kind = (np.arange(120) >= 90).astype(int)
    texts = [
        ('The reader enjoys ' if k == 0 else 'This volume offers ') + ' and '.join(TOPICS[t]) + '.'
        for t, k in zip(topic, kind, strict=True)
    ]
    return xy, texts, topic, kind


def test_regions_are_named_by_their_own_words(regions):
    xy, texts, topic, kind = regions
    codes, table = clusters(xy, texts, 3, groups=kind)
    assert (
        list(table) == ['cluster', 'x', 'y', 'size', 'text']
        and list(table.cluster) == [0, 1, 2]
        and table['size'].sum() == 120
    )
    for c, text in zip(table.cluster, table.text, strict=True):
        t = topic[codes == c]
        assert len(set(t.tolist())) == 1 and set(text.split(', ')) == set(TOPICS[t[0]])
    again = clusters(xy, texts, 3, groups=kind)
    assert (again[0] == codes).all() and again[1].equals(table)


def test_furniture_of_one_kind_is_dropped(regions):
    xy, texts, _, kind = regions
    alone = xy + kind[:, None] * 50  # items far away: without their kind their furniture would name them
    furniture = {'reader', 'enjoys', 'volume', 'offers'}
    with_kind, without = (' '.join(clusters(alone, texts, 4, groups=g)[1].text) for g in (kind, None))
    assert not furniture & set(with_kind.replace(',', '').split()) and 'volume' in without


def test_largest_region_first_and_labels_on_a_point(regions):
    xy, texts, _, _ = regions
    codes, table = clusters(xy[:70], texts[:70])
    assert (np.diff(table['size']) <= 0).all() and (np.bincount(codes) == table['size']).all() and 2 <= len(table) <= 12
    assert all((np.abs(xy[:70] - [r.x, r.y]).sum(1) < 1e-6).any() for r in table.itertuples())


@pytest.mark.parametrize(
    'text',
    [
        '<script>alert(1)</script>',
        '"><img src=x onerror=alert(1)>',
        '\u202egnp.exe txt',
        'a\x00b',
        'x' * 1_000_000,
        '日本語のテキスト',
        '🙂🙂',
        '',
        '\ud800 lone',
        'javascript:alert(1)',
        None,
        float('nan'),
    ],
)
def test_hostile_texts_become_short_plain_labels(regions, text):
    _, table = clusters(regions[0], [text, *regions[1][1:60], *[text] * 60], 4)
    for t in table.text:
        assert len(t) < 100 and not any(c in t for c in '<>"&$\x00\u202e\ud800')


def test_regions_without_words_or_points():
    xy = np.random.default_rng(0).normal(size=(30, 2))
    assert all(t.startswith('region') for t in clusters(xy, [''] * 30)[1].text)
    codes, table = clusters(np.full((5, 2), np.nan), ['a'] * 5)
    assert (codes == -1).all() and len(table) == 0
    assert len(clusters(np.zeros((9, 2)), ['dragon'] * 9, 5)[1]) == 1  # nine equal points are one region
    xy[:10] = np.nan
    codes, table = clusters(xy, ['dragon'] * 30, 3)
    assert (codes[:10] == -1).all() and (codes[10:] >= 0).all() and table['size'].sum() == 20
    with pytest.raises(ValueError, match='one text per node'):
        clusters(xy, ['a'])
    with pytest.raises(ValueError, match='k=0'):
        clusters(xy, ['a'] * 30, 0)


# scenes -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='session')
def scene():
    data, rng = toy_data(80, 60, seed=0), np.random.default_rng(0)
    texts = [pd.DataFrame({'id': range(n), 'profile': [' '.join(TOPICS[i % 3]) for i in range(n)]}) for n in (80, 60)]

    def some(w):
        return rng.normal(size=(80, w)), rng.normal(size=(60, w))

    return Scene(data, *texts, vectors=some(6), before=[some(8)], after=[some(8)])


def test_a_scene_gets_maps_and_names(scene, tmp_path):
    p = project_scene(scene, 3, method='common', cache=tmp_path, progress=False)
    assert set(p.coords) == set(p.labels) == set(p.clusters) == {'profiles', 'base', 'reshaped'}
    assert all(len(c) == 140 and set(c.tolist()) == {0, 1, 2} for c in p.clusters.values())
    again = project_scene(scene, 3, method='common', cache=tmp_path, progress=False)
    assert same(p, again) and all(p.labels[k].equals(again.labels[k]) for k in p.labels)


def test_a_sampled_scene_and_one_without_texts(scene):
    p = project_scene(Scene(scene.data, before=scene.before), sample=30, progress=False)
    assert list(p.labels) == ['base'] and ((p.clusters['base'] == -1) == ~p.shown).all() and p.shown.sum() == 60
    with pytest.raises(ValueError, match='no space to draw'):
        project_scene(scene.data, progress=False)
