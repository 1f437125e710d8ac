"""What is held out: by chance, in time, by one cut for all, or as somebody has cut it."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from promax_nb.data.audit import SOURCE, audit
from promax_nb.data.columns import DataWarning
from promax_nb.data.frames import from_frame
from promax_nb.data.interactions import SPLITS, RecData
from promax_nb.data.loaders import from_atomic, read_table
from promax_nb.data.saved import load, save
from promax_nb.data.splits import are_positions, split_in_words
from promax_nb.experiment import DataConfig, RunConfig, claim, experiment, load_data

DAY = 86400


def visits(users=60, items=30, each=8, seed=0, **columns):
    """A table of events without repeats: users come one after another, each for a while."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        days = np.sort(rng.uniform(0, 40, each)) + user
        chosen = rng.permutation(items)[:each]
        rows += [(f'u{user}', f'i{item}', 1.6e9 + day * DAY) for item, day in zip(chosen, days, strict=True)]
    table = pd.DataFrame(rows, columns=['user', 'item', 'time'])
    return table.assign(**columns).sample(frac=1, random_state=1)


def parts(data):
    """split -> events."""
    return {split: data.events[data.events.split == split] for split in SPLITS}


@pytest.fixture
def told():
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter('always')
        yield lambda: [str(w.message) for w in record if issubclass(w.category, DataWarning)]


# ---- what auto chooses


def test_real_times_are_cut_in_time(told):
    data = from_frame(visits(), kcore=0)
    assert data.meta['split'] == 'temporal' and data.hash() == from_frame(visits(), kcore=0, split='temporal').hash()
    assert [getattr(data, split).nnz for split in SPLITS] == pytest.approx([336, 48, 96], rel=0.2)  # of eight, too
    last = parts(data)['train'].groupby('user').time.max()
    assert (parts(data)['test'].groupby('user').time.min() > last).all() and not told()


def test_no_times_are_cut_at_random(told):
    data = from_frame(visits().drop(columns='time'), kcore=0)
    assert data.meta['split'] == 'random' and not told()
    assert data.hash() == from_frame(visits().drop(columns='time'), kcore=0, split='random').hash()


def test_some_times_are_cut_at_random_and_said(told):
    events = visits()
    data = from_frame(events.assign(time=events.time.where(events.index % 9 != 0)), kcore=0)
    assert data.meta['split'] == 'random' and '54 of 480 events have no time' in told()[0]
    assert told()[0] in data.meta['warnings']


def test_times_that_order_nothing_are_said(told):
    events = visits()
    day = events.groupby('user').time.transform('min')
    data = from_frame(events.assign(time=day), kcore=0)
    assert data.meta['split'] == 'random' and 'all their events at one time' in told()[0]


def test_asking_beats_the_default():
    assert from_frame(visits(), kcore=0, split='random').meta['split'] == 'random'


def test_a_column_called_split_is_not_used_in_silence(told):
    events = visits()
    events = events.assign(split=np.where(np.arange(len(events)) % 4 == 0, 'test', 'train'))
    data = from_frame(events, kcore=0)
    assert data.meta['split'] == 'temporal' and "pass split='split'" in told()[0]
    from_frame(events, kcore=0, split='random')
    from_frame(events.assign(split='mine'), kcore=0)
    assert len(told()) == 1


# ---- positions


def positions(shift=0):
    events = visits().sort_values(['user', 'time'])
    return events.assign(time=events.groupby('user').cumcount() + shift)


@pytest.mark.parametrize('shift', [0, 1])
def test_positions_order_one_user_and_not_two(shift):
    data = from_frame(positions(shift), kcore=0)
    assert data.meta['split'] == 'temporal' and data.meta['time_unit'] == 'positions'
    assert data.hash() == from_frame(visits(), kcore=0).hash()  # the same order, the same split
    with pytest.raises(ValueError, match='only counts the events of each user.*temporal'):
        from_frame(positions(shift), kcore=0, split='global')


def test_positions_with_gaps_and_repeats_are_positions():
    events = positions()
    thinned = events[events.time % 4 != 2]
    twice = pd.concat([events, events.head(60).assign(time=events.time.head(60) + 8)])
    for table in (thinned, twice):
        with pytest.raises(ValueError, match='only counts the events'):
            from_frame(table, kcore=0, split='global')


def test_times_are_no_positions():
    user = np.repeat(np.arange(50), 6)
    rng = np.random.default_rng(0)
    assert not are_positions(user, np.arange(300.0))  # one counter for all
    assert not are_positions(user, rng.integers(0, 700, 300).astype(float))  # days
    assert not are_positions(user, np.tile([0.0, 0, 1, 1, 2, 2], 50))  # two events of a user at one time
    assert not are_positions(user, np.full(300, np.nan)) and not are_positions(user[:0], np.zeros(0))
    assert are_positions(user, np.tile([0.0, 1, 2, 3, 4, 5], 50))


# ---- one cut for all


def test_one_cut_for_all(told):
    with pytest.raises(ValueError, match='users have no training item.*allow_cold=True'):
        from_frame(visits(), kcore=0, split='global')
    data = from_frame(visits(), kcore=0, split='global', allow_cold=True)
    train, valid, test = parts(data).values()
    assert train.time.max() < valid.time.min() and valid.time.max() < test.time.min()
    assert abs(len(train) / 480 - 0.7) < 0.01 and abs(len(test) / 480 - 0.2) < 0.01
    cold = int((data.train.getnnz(1) == 0).sum())
    assert cold and f'{cold} of 60 users have no training item' in told()[-1]
    assert data.meta['split'] == 'global' and data.meta['allow_cold'] is True


def test_a_moment_is_never_parted():
    events = visits(each=10)
    days = (events.time / (5 * DAY)).round() * 5 * DAY
    data = from_frame(events.assign(time=days), kcore=0, split='global', allow_cold=True)
    at = {name: set(part.time) for name, part in parts(data).items()}
    assert not at['train'] & at['valid'] and not at['valid'] & at['test']
    with pytest.raises(ValueError, match='leaves .* empty.*split=.temporal'):
        years = events.assign(time=(events.time > 1.603e9) * DAY * 365 + 1e9)
        from_frame(years, kcore=0, split='global', allow_cold=True)


@pytest.mark.parametrize('split', ['temporal', 'global'])
def test_a_cut_in_time_needs_times(split):
    with pytest.raises(ValueError, match=f'split={split!r} needs a time.*480 of 480'):
        from_frame(visits().drop(columns='time'), kcore=0, split=split)
    events = visits()
    with pytest.raises(ValueError, match='needs a time for every event, and 1 of 480'):
        from_frame(events.assign(time=events.time.where(events.index != 3)), kcore=0, split=split)


# ---- a split of one's own

SPELLINGS = [
    ('train', 'valid', 'test'),
    ('Train', 'val', 'TEST'),
    (' TRAIN', 'Validation', 'test '),
    ('trn', 'dev', 'tst'),
]


def fold(names=SPELLINGS[0]):
    """Events with a column that says where they belong: of each user five, one and two."""
    events = visits().sort_values(['user', 'time'])
    rank = events.groupby('user').cumcount()
    return events.assign(fold=np.select([rank < 5, rank < 6], names[:2], names[2]))


@pytest.mark.parametrize('names', SPELLINGS)
def test_a_given_split_is_kept(names, told):
    data = from_frame(fold(names), kcore=0, split='fold')
    assert [getattr(data, split).nnz for split in SPLITS] == [300, 60, 120] and not told()
    assert data.meta['split'] == 'given' and data.meta['split_column'] == 'fold'
    ours = data.events.assign(
        user=data.users.user[data.events.user].to_numpy(), item=data.items.item[data.events.item].to_numpy()
    )
    both = fold().merge(ours, on=['user', 'item'])
    assert len(both) == 480 and (both.fold == both.split).all()
    assert 'fold' not in data.events and 'fold' in from_frame(fold(), kcore=0, split='fold', keep='fold').events


def test_without_valid_it_is_cut_from_train():
    events = fold(('train', 'train', 'test'))
    data = from_frame(events, kcore=0, split='fold')
    assert data.meta['valid_cut'] == 'temporal' and data.test.nnz == 120
    train, valid, _ = parts(data).values()
    assert len(valid) == 60  # one of the six of each user
    assert (valid.groupby('user').time.min() > train.groupby('user').time.max()).all()
    by_chance = from_frame(events.drop(columns='time'), kcore=0, split='fold', seed=1)
    assert by_chance.meta['valid_cut'] == 'random' and by_chance.test.nnz == 120 and 25 < by_chance.valid.nnz < 65
    assert by_chance.train.getnnz(1).min() >= 1
    other = from_frame(events.drop(columns='time'), kcore=0, split='fold', seed=2)
    assert other.valid.nnz and (other.valid != by_chance.valid).nnz and not (other.test != by_chance.test).nnz
    half = from_frame(events, kcore=0, split='fold', ratios=(0.4, 0.4, 0.2))
    assert half.valid.nnz == 180


def test_who_has_no_training_event_is_refused_or_accepted(told):
    events = fold()
    late = events.user.isin(['u3', 'u4'])
    events.loc[late, 'fold'] = 'test'
    with pytest.raises(ValueError, match='2 of 60 users have no training item.*allow_cold=True'):
        from_frame(events, kcore=0, split='fold')
    data = from_frame(events, kcore=0, split='fold', allow_cold=True)
    assert (data.train.getnnz(1) == 0).sum() == 2 and '2 of 60 users have no training item' in told()[0]


def test_items_without_a_training_event_are_fine():
    events = fold()
    events.loc[events.item == 'i7', 'fold'] = 'test'
    data = from_frame(events, kcore=0, split='fold')
    row = data.items.item.tolist().index('i7')
    assert data.train[:, row].nnz == 0 and data.test[:, row].nnz == (events.item == 'i7').sum()


def test_a_pair_in_two_parts_is_known(told):
    events = fold()
    again = events[events.fold == 'train'].head(7).assign(fold='test', time=2e9)
    data = from_frame(pd.concat([events, again]), kcore=0, split='fold')
    assert data.hash() == from_frame(events, kcore=0, split='fold').hash()
    assert '7 rows of valid or test repeat' in told()[0]


def test_a_core_thins_a_given_split_and_says_so(told):
    rare = fold()[lambda t: ~((t.item == 'i0') & (t.index % 3 > 0))]
    data = from_frame(rare, kcore=8, split='fold')
    assert data.n_items == 29 or data.meta['events_dropped']
    assert 'no longer the split that others have used' in told()[0] and 'kcore=0' in told()[0]


@pytest.mark.parametrize(
    'change, sentence',
    [
        (lambda t: t.assign(fold=t.fold.where(t.index > 2)), 'in 3 of 480 rows.*nan'),
        (lambda t: t.assign(fold=t.fold.replace('valid', 'holdout')), "in 60 of 480 rows.*'holdout'"),
        (lambda t: t.assign(fold=t.fold.replace('train', 'valid')), "has no train events.*'valid'"),
        (lambda t: t.assign(fold='train'), 'has no test events'),
        (lambda t: t.assign(fold=1), 'neither train, valid nor test in 480'),
    ],
)
def test_a_given_split_is_read_or_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_frame(change(fold()), kcore=0, split='fold')


def test_neither_way_nor_column():
    with pytest.raises(ValueError, match="split is 'flod'.*'global'.*Did you mean 'fold'"):
        from_frame(fold(), kcore=0, split='flod')


def test_atomic_files_may_bring_a_split(tmp_path):
    table = fold().rename(columns={'user': 'user_id:token', 'item': 'item_id:token', 'fold': 'fold:token'})
    table.rename(columns={'time': 'timestamp:float'}).to_csv(tmp_path / 'x.inter', sep='\t', index=False)
    data = from_atomic(tmp_path, kcore=0, split='fold')
    assert data.hash() == from_frame(fold(), kcore=0, split='fold').hash()
    assert from_atomic(tmp_path, kcore=0).meta['split'] == 'temporal'


# ---- from files to a run


@pytest.fixture
def files(tmp_path):
    fold().to_csv(tmp_path / 'events.csv', index=False)
    shelf = pd.DataFrame({'item': [f'i{i}' for i in range(30)], 'title': [f'Thing {i}' for i in range(30)]})
    shelf.assign(kind=[f'kind {i % 4}' for i in range(30)]).to_csv(tmp_path / 'items.csv', index=False)
    return dict(events=str(tmp_path / 'events.csv'), items=str(tmp_path / 'items.csv'), kcore=0)


def test_settings_of_a_run(files):
    assert load_data(DataConfig(**files)).meta['split'] == 'temporal'
    assert load_data(DataConfig(**files, split='fold')).meta['split'] == 'given'
    assert load_data(DataConfig(**files, split='global', allow_cold=True)).meta['split'] == 'global'


def test_the_first_line_says_it_and_cold_users_run_through(files, tmp_path):
    said = []
    data = load_data(DataConfig(**files, split='global', allow_cold=True))
    quick = dict(epochs=2, batch=64, dim=8, width=8, min_steps=0, base='MF', encoder='static')
    done = experiment(data, tmp_path / 'run', RunConfig(**quick), say=said.append)
    assert said[0].endswith('split one cut in time for all users') and 0 <= done.compare.loc['recall@20', 'base'] <= 1
    assert not any('left out' in line for line in said), 'nobody was'


def test_a_run_says_whom_the_core_left_out_and_how_to_keep_them(files, tmp_path):
    said, events = [], pd.read_csv(files['events'])
    rare = pd.DataFrame({'user': ['once', 'twice', 'twice'], 'item': ['i0', 'i1', 'i2'], 'time': 9**9})
    pd.concat([events, rare]).to_csv(tmp_path / 'more.csv', index=False)
    data = load_data(DataConfig(events=str(tmp_path / 'more.csv'), items=files['items'], kcore=3, threshold=None))
    quick = dict(epochs=1, batch=64, dim=8, width=8, min_steps=0, base='MF', encoder='static', methods=False)
    experiment(data, tmp_path / 'run', RunConfig(**quick), say=said.append)
    users, items, dropped = (data.meta[f'{what}_dropped'] for what in ('users', 'items', 'events'))
    gone = f'left out: {users} users and {items} items with fewer than 3 positives, {dropped} events with them'
    assert users >= 2 and sum(f'{gone}; a kcore of 0 keeps all' in line for line in said) == 1
    assert f'L{gone[1:]}' in (tmp_path / 'run' / 'report.html').read_text(encoding='utf-8')


def test_a_folder_of_a_random_split_says_how_it_goes_on(files, tmp_path):
    old = load_data(DataConfig(**files, split='random'))
    claim(tmp_path / 'run', old, RunConfig())
    with pytest.raises(ValueError, match=r"data options.split \(random -> temporal\).*continue it with split='random'"):
        claim(tmp_path / 'run', load_data(DataConfig(**files)), RunConfig())
    claim(tmp_path / 'run', load_data(DataConfig(**files, split='random')), RunConfig())


def test_the_command_line(files, tmp_path, capsys):
    from promax_nb.cli import main

    command = ['run', '--events', files['events'], '--items', files['items'], '--kcore', '0']
    command += ['--out', str(tmp_path / 'r')]
    quick = ['--epochs', '1', '--batch', '64', '--dim', '4', '--width', '4', '--min-steps', '0', '--base', 'MF']
    quick += ['--encoder', 'static']
    assert main([*command, '--split', 'global']) == 2 and '--allow-cold' in capsys.readouterr().err
    assert main([*command, '--split', 'flod']) == 2 and "Did you mean 'fold'" in capsys.readouterr().err
    assert main([*command, '--split', 'fold', *quick]) == 0
    assert "split as the column 'fold' says" in capsys.readouterr().out.splitlines()[0]
    assert json.loads((tmp_path / 'r' / 'settings.json').read_text())['data options']['split'] == 'given'


def test_in_words():
    plain = RecData(**{split: from_frame(fold(), kcore=0, split='fold').__dict__[split] for split in SPLITS})
    assert split_in_words(plain.meta) == 'as it came'
    assert 'valid cut from train in time' in split_in_words(
        from_frame(fold(('train', 'train', 'test')), kcore=0, split='fold').meta
    )


# ---- real data


def test_amazon_industrial(real, told):
    folder = real('amazon-industrial')
    events, items = (read_table(folder / f'industrial-{n}.csv', ['user', 'item']) for n in ('events', 'items'))
    data = from_frame(events, items, kcore=0, split='split')
    assert data.shape == (3285, 3541) and [getattr(data, s).nnz for s in SPLITS] == [12963, 4296, 4405]
    never = data.train.getnnz(0) == 0
    assert data.test[:, never].nnz == 471 and data.meta['time_unit'] == 'positions' and not told()
    with pytest.raises(ValueError, match='only counts the events of each user'):
        from_frame(events, items, kcore=0, split='global')


def test_steam_sub(real, told):
    folder = real('steam-sub')
    events, items = (read_table(folder / f'{n}.csv', ['user', 'item']) for n in ('events', 'items'))
    data = from_frame(events, items, kcore=0, ratios=(0.6, 0.2, 0.2))
    shares = [getattr(data, s).nnz / 209732 for s in SPLITS]
    assert data.shape == (23268, 5231) and np.allclose(shares, (0.6, 0.2, 0.2), atol=0.01)
    assert data.meta['split'] == 'random' and not told()
    with pytest.raises(ValueError, match="has no train events.*'val', 'tst'"):
        from_frame(events, items, kcore=0, split='rlmrec_split')


def test_imdb_exp3rt(real, told):
    folder = real('imdb-exp3rt')
    files = {name: str(folder / f'{name}.csv') for name in ('events', 'items', 'users')}
    brought = dict(user_profile_column='profile', item_profile_column='text', split='split', kcore=0)
    data = load_data(DataConfig(**files, **brought))
    given = brought | {'user_profile_column': None, 'user_profiles': files['users'], 'profile_source': 'train reviews'}
    assert load_data(DataConfig(**files, **given)).extras == data.extras
    with pytest.raises(ValueError, match='both given'):
        load_data(DataConfig(**files, **given | {'user_profile_column': 'profile'}))
    assert data.shape == (791, 1155) and data.test.nnz == 3426 and data.train.nnz + data.valid.nnz == 11187
    assert data.meta['valid_cut'] == 'random' and 0.1 < data.valid.nnz / 11187 < 0.15 and not told()
    marked = sum('[Like]' in text for text in data.extras['user_profiles'])
    assert marked == 790 and all(data.extras['user_profiles']) and 'profile' not in data.users
    assert data.extras['item_profiles'] == data.items.text.str.strip().tolist()


# ---- profiles that came along, and what a core has dropped


def test_profiles_of_a_table():
    shelf = pd.DataFrame({'item': [f'i{i}' for i in range(29)], 'text': 'a thing', 'for': 'people who like things '})
    readers = pd.DataFrame({'user': [f'u{u}' for u in range(59, -1, -1)]})
    readers['persona'] = [f'reader {u}' for u in range(60)]
    data = from_frame(visits(), shelf, readers, kcore=0, user_profile='persona', item_profile='for')
    assert [f'reader {59 - int(u[1:])}' for u in data.users.user] == data.extras['user_profiles']
    assert data.extras['item_profiles'] == ['people who like things'] * 29 + [''] and 'for' not in data.items
    assert list(data.users) == ['user']
    assert data.meta['warnings'][-1] == "1 of 30 items have no profile in the column 'for'"
    both = from_frame(visits(), shelf.rename(columns={'text': 'blurb'}), kcore=0, text='blurb', item_profile='blurb')
    assert both.extras['item_profiles'][0] == both.items.text[0] == 'a thing' and 'user_profiles' not in both.extras
    apart = readers.rename(columns={'user': 'id', 'persona': 'profile'}).sample(frac=1, random_state=0)
    table = from_frame(visits(), shelf, kcore=0, user_profile=apart, item_profile='for', profile_source='old reviews')
    told = [dict(zip(one.users.user, one.extras['user_profiles'], strict=True)) for one in (table, data)]
    assert told[0] == told[1] and not data.meta['profile_source']
    for one, told in ((table, 'old reviews'), (data, '--profile-source')):
        row = audit(one).set_index('check').loc[SOURCE]
        assert row.passed and told in row.detail
    crossed = from_frame(visits(), shelf, kcore=0, text='for', item_profile='text')
    assert crossed.extras['item_profiles'][0] == 'a thing' and crossed.items.text[0].startswith('people')


@pytest.mark.parametrize(
    'named, sentence',
    [
        (dict(item_profile='fro'), "items has no column 'fro'.*'for'"),
        (dict(user_profile='persona'), 'users is None: pass the table'),
        (dict(item_profile='nothing'), "item_profile='nothing' is empty for every item"),
    ],
)
def test_profiles_are_refused(named, sentence):
    shelf = pd.DataFrame({'item': [f'i{i}' for i in range(30)], 'text': 'a thing', 'for': 'people', 'nothing': None})
    with pytest.raises(ValueError, match=sentence):
        from_frame(visits(), shelf, kcore=0, **named)


def test_a_run_writes_only_the_profiles_that_are_missing(files, tmp_path):
    table = pd.read_csv(files['items']).assign(liked_by='Enjoys plain things.')
    table.to_csv(files['items'], index=False)
    data = load_data(DataConfig(**files, item_profile_column='liked_by'))
    quick = dict(epochs=1, batch=64, dim=4, width=4, min_steps=0, base='MF', sdr=0.1, s2dr=0, encoder='static')
    done = experiment(data, tmp_path / 'run', RunConfig(**quick), say=lambda text: None)
    written = {side: pd.read_parquet(tmp_path / 'run' / f'profiles-{side}.parquet') for side in ('users', 'items')}
    assert set(written['items'].writer) == {'came with the data'} and set(written['users'].writer) == {'template'}
    assert done.audit.passed.all()


def core():
    """Data whose core drops the users of one visit and an item."""
    rare = [('once', 'i1'), ('twice', 'i2'), ('twice', 'i3'), ('u1', 'odd')]
    rare = pd.DataFrame(rare, columns=['user', 'item']).assign(time=1.6e9)
    return from_frame(pd.concat([visits(), rare]), kcore=4), from_frame(visits(), kcore=4)


def test_what_a_core_dropped_is_kept(tmp_path):
    data, plain = core()
    dropped = sorted(map(tuple, data.extras['dropped'].to_numpy().tolist()))
    assert dropped == [('once', 'i1'), ('twice', 'i2'), ('twice', 'i3'), ('u1', 'odd')]
    assert 'dropped' not in plain.extras and list(data.extras['dropped']) == ['user', 'item']
    again = load(save(data, tmp_path / 'data'))
    pd.testing.assert_frame_equal(again.extras['dropped'], data.extras['dropped'])


def test_what_a_core_dropped_identifies_nothing():
    data, _ = core()
    before = data.identity()
    data.extras.pop('dropped')
    assert data.identity() == before
    data.extras['note'] = 1
    assert data.identity() != before


def test_disliked_events_are_not_kept_aside():
    events = visits().assign(rating=5)
    rare = pd.DataFrame({'user': ['once', 'once'], 'item': ['i1', 'i2'], 'time': [1.6e9] * 2, 'rating': [5, 1]})
    data = from_frame(pd.concat([events, rare]), kcore=4)
    assert data.extras['dropped'].to_numpy().tolist() == [['once', 'i1']]
