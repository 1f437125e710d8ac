"""Room 00: data. What is right, what is refused, and that nothing hostile ever runs."""

import copyreg
import io
import json
import os
import pickle
import subprocess
from collections import OrderedDict, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse as sp

from promax_nb.data.audit import audit, chance_overlap
from promax_nb.data.bookshop import attribute_names, toy_data, toy_utility, vocabulary_hash
from promax_nb.data.frames import from_frame, k_core
from promax_nb.data.interactions import SPLITS, RecData, describe
from promax_nb.data.loaders import compose_text, from_atomic
from promax_nb.data.published import from_rlmrec, safe_load
from promax_nb.data.saved import load, save
from promax_nb.data.splits import split_events


def log(n=3000, users=60, items=40, seed=0):
    "A random event table with ratings and times; pairs may repeat."
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            'user': rng.integers(0, users, n),
            'item': rng.integers(100, 100 + items, n),
            'rating': rng.integers(1, 6, n),
            'time': rng.integers(0, 10**6, n).astype(float),
        }
    )


def cells(*pairs, shape=(2, 3)):
    return sp.csr_matrix((np.ones(len(pairs)), tuple(zip(*pairs, strict=True))), shape=shape)


GOOD = dict(train=cells((0, 0), (1, 1)), valid=cells((0, 1)), test=cells((1, 2)))


@pytest.fixture(scope='module')
def shop():
    return toy_data(200, 120, seed=3)


# ---- RecData


def test_minimal():
    d = RecData(**GOOD)
    assert d.shape == (2, 3) and d.n_users == 2 and d.n_items == 3
    assert d.users.user.tolist() == ['0', '1'] and d.items.columns.tolist() == ['item', 'title', 'text']
    assert d.events.columns.tolist() == ['user', 'item', 'rating', 'time', 'split'] and len(d.events) == 4
    assert '2 users x 3 items' in repr(d) and d.hash() in repr(d) and '\n' not in repr(d)
    assert all(getattr(d, s).dtype == np.float32 and sp.issparse(getattr(d, s)) for s in SPLITS)


def test_hash_follows_content():
    a, b = RecData(**GOOD), RecData(**GOOD | {'valid': cells((0, 2))})
    assert a.hash() == RecData(**GOOD).hash() != b.hash()


EVENTS = pd.DataFrame(
    {
        'user': [0, 1, 0, 1],
        'item': [0, 1, 1, 2],
        'rating': np.nan,
        'time': np.nan,
        'split': ['train', 'train', 'valid', 'test'],
    }
)
BAD = [
    (dict(valid=cells((0, 0))), 'in train and in valid'),
    (dict(test=cells((0, 1))), 'in valid and in test'),
    (dict(train=cells((0, 0), (0, 2))), '1 of 2 users have no training item.*kcore'),
    (dict(test=sp.csr_matrix((2, 3))), 'test is empty.*ratios'),
    (dict(valid=cells((0, 1), shape=(2, 4))), r'valid is \(2, 4\)'),
    (dict(train=cells((0, 0), (1, 1)) * 3), 'train is not binary'),
    (dict(train=np.eye(2, 3)), 'scipy sparse'),
    (dict(users=pd.DataFrame({'user': ['a']})), 'users has 1 rows but data has 2'),
    (dict(users=pd.DataFrame({'user': ['a', 'a']})), 'repeated ids'),
    (dict(users=pd.DataFrame({'user': ['a', None]})), 'without an id'),
    (dict(users=pd.DataFrame({'name': ['a', 'b']})), "no column 'user'"),
    (dict(items=pd.DataFrame({'item': list('abc')}, index=[2, 1, 0])), 'row i is id i'),
    (dict(events=EVENTS.drop(columns='split')), 'events has no column split'),
    (dict(events=EVENTS.assign(item=[0, 1, 1, 7])), 'outside 0 to 2'),
    (dict(events=EVENTS.assign(user=['0', '1', '0', '1'])), 'as integers'),
    (dict(events=EVENTS.assign(split='later')), 'no known split'),
    (dict(events=EVENTS.assign(split='train')), 'not valid events'),
    (dict(events=pd.concat([EVENTS, EVENTS.tail(1)])), 'more than once'),
    (dict(meta={'when': pd.Timestamp(0)}), 'JSON'),
]


@pytest.mark.parametrize('change, sentence', BAD)
def test_refuses(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        RecData(**GOOD | change)


def test_allow_cold():
    d = RecData(**GOOD | {'train': cells((0, 0), (0, 2)), 'meta': {'allow_cold': True}})
    assert d.train[1].nnz == 0


# ---- from_frame


def test_from_frame_counts_and_content():
    raw = log()
    d = from_frame(raw, kcore=5)
    last = raw.sort_values('time', kind='stable').drop_duplicates(['user', 'item'], keep='last')
    assert d.meta['duplicates_dropped'] == len(raw) - len(last) and d.meta['rows_read'] == len(raw)
    ev = d.events.assign(
        user=d.users.user[d.events.user].astype(int).to_numpy(), item=d.items.item[d.events.item].astype(int).to_numpy()
    )
    both = ev.merge(last, on=['user', 'item'], suffixes=('', '_raw'))
    assert len(both) == len(ev) and (both.rating == both.rating_raw).all() and (both.time == both.time_raw).all()
    positive = d.events[d.events.rating >= 4]
    for s in SPLITS:
        e = positive[positive.split == s]
        assert (getattr(d, s) != sp.csr_matrix((np.ones(len(e)), (e.user, e.item)), shape=d.shape)).nnz == 0
    total = d.train + d.valid + d.test
    assert np.diff(total.indptr).min() >= 5 and total.getnnz(0).min() >= 5 and np.diff(d.train.indptr).min() >= 1


def test_k_core_against_plain_loop():
    rng = np.random.default_rng(5)
    u, i = rng.integers(0, 60, 300), rng.integers(0, 60, 300)
    left = set(zip(u.tolist(), i.tolist(), range(300), strict=True))
    while True:
        drop = {x for x in left if sum(y[0] == x[0] for y in left) < 3 or sum(y[1] == x[1] for y in left) < 3}
        if not drop:
            break
        left -= drop
    assert 0 < len(left) < 300 and np.flatnonzero(k_core(u, i, 3)).tolist() == sorted(x[2] for x in left)
    assert not k_core(u, i, 50).any() and k_core(u, i, 1).all()


def test_random_split_shares_and_seed():
    user = np.repeat(np.arange(2000), 5)
    pos = np.tile([1, 1, 1, 0, 0], 2000).astype(bool)
    a = split_events(user, pos, seed=1)
    for kind in (pos, ~pos):
        share = pd.Series(a[kind]).value_counts(normalize=True)
        assert abs(share['train'] - 0.7) < 0.02 and abs(share['valid'] - 0.1) < 0.02 and abs(share['test'] - 0.2) < 0.02
    assert len(np.unique(user[pos & (a == 'train')])) == 2000
    assert (a == split_events(user, pos, seed=1)).all() and (a != split_events(user, pos, seed=2)).any()


def test_temporal_split_keeps_order():
    d = from_frame(log(), split='temporal', kcore=5)
    order = d.events.assign(k=d.events.split.astype(str).map({'train': 0, 'valid': 1, 'test': 2})).sort_values(
        ['user', 'time', 'item']
    )
    assert (order.groupby('user').k.diff().dropna() >= 0).all()
    assert np.diff(d.train.indptr).min() >= 1
    one_late_like = pd.DataFrame({'user': 0, 'item': range(20), 'rating': [1] * 19 + [5], 'time': range(20)})
    where = split_events(
        np.zeros(20, int), one_late_like.rating.to_numpy() >= 4, one_late_like.time.to_numpy(float), 'temporal'
    )
    assert (where == 'train').all()


def test_rows_in_any_order_give_the_same_data():
    raw = log().drop_duplicates(['user', 'item'])
    for split in ('random', 'temporal'):
        a, b = (from_frame(r, split=split, seed=4) for r in (raw, raw.sample(frac=1, random_state=0)))
        assert a.hash() == b.hash() and a.events.equals(b.events)


def test_duplicates_keep_latest_or_error():
    raw = pd.concat(
        [
            log().drop_duplicates(['user', 'item']),
            pd.DataFrame({'user': [0], 'item': [100], 'rating': [5], 'time': [2e6]}),
        ]
    )
    raw = pd.concat([raw, pd.DataFrame({'user': [0], 'item': [100], 'rating': [1], 'time': [1.5e6]})])
    d = from_frame(raw, kcore=0)
    row = d.events[
        (d.events.user == d.users.index[d.users.user == '0'][0])
        & (d.events.item == d.items.index[d.items.item == '100'][0])
    ]
    assert row.rating.tolist() == [5] and row.time.tolist() == [2e6]
    with pytest.raises(ValueError, match="repeat a user and item.*dup='latest'"):
        from_frame(raw, dup='error')


def test_implicit_and_threshold_none():
    raw = log().drop_duplicates(['user', 'item'])
    a, b = from_frame(raw.drop(columns=['rating', 'time'])), from_frame(raw, threshold=None)
    assert sum(getattr(a, s).nnz for s in SPLITS) == len(a.events) == len(b.events) and a.meta['threshold'] is None
    assert a.events.rating.isna().all() and a.events.time.isna().all()


def test_ids_of_any_kind_meet():
    raw = log()
    raw['item'] = raw['item'].astype(float)
    items = pd.DataFrame(
        {
            'item': [str(k) for k in range(139, 99, -1)] + ['unseen'],
            'title': [f'T{k}' for k in range(139, 98, -1)],
            'colour': 'red',
        }
    )
    d = from_frame(raw, items=items, users=pd.DataFrame({'user': range(60), 'age': 30}), kcore=0)
    assert d.items.item[0] == '139' and d.items.title[0] == 'T139' and 'unseen' not in set(d.items.item)
    assert d.items.columns.tolist() == ['item', 'title', 'text', 'colour'] and (d.users.age == 30).all()
    assert d.meta['items_without_text'] == 40 and (d.items.text == '').all()


def test_items_without_row_get_a_title():
    d = from_frame(log(), items=pd.DataFrame({'item': range(100, 120), 'title': 'x', 'text': 'y'}), kcore=0)
    assert d.meta['items_without_title'] == 20 and (d.items.title == 'item ' + d.items.item).sum() == 20


def test_other_columns_and_dates():
    raw = log().drop_duplicates(['user', 'item'])
    raw['review'] = 'r' + raw.index.astype(str)
    raw['time'] = pd.to_datetime(raw['time'], unit='s')
    d = from_frame(raw, keep=['review'])
    first = d.events.iloc[0]
    back = raw[raw.review == first.review].iloc[0]
    assert str(back.user) == d.users.user[first.user] and back.time.timestamp() == first.time
    assert from_frame(raw.assign(time=raw.time.astype(str))).hash() == d.hash()


FRAMES = [
    (lambda r: from_frame(r.rename(columns={'user': 'who'})), "no column 'user'.*'who'"),
    (lambda r: from_frame(r.assign(user=r.user.where(r.index > 2))), 'events.user has 3 rows without an id'),
    (
        lambda r: from_frame(r.assign(item=r.item.astype(str).where(r.index != 1, ' '))),
        'events.item has 1 rows without an id',
    ),
    (lambda r: from_frame(r.head(0)), 'no rows'),
    (lambda r: from_frame(r.assign(rating=r.rating.where(r.index != 0))), '1 events have no rating.*threshold=None'),
    (lambda r: from_frame(r.assign(rating='good')), 'not a number'),
    (lambda r: from_frame(r.assign(rating=1)), 'no rating reaches threshold=4'),
    (lambda r: from_frame(r, kcore=500), 'kcore=500 leaves no user'),
    (lambda r: from_frame(r, ratios=(0.8, 0.2, 0)), 'three shares above 0'),
    (lambda r: from_frame(r, ratios=(0.5, 0.1, 0.1)), 'add up to 1'),
    (lambda r: from_frame(r, ratios='abc'), 'ratios is abc: give three shares'),
    (lambda r: from_frame(r, ratios=0.7), 'ratios is 0.7: give three shares'),
    (lambda r: from_frame(r, split='alphabetical'), "split is 'alphabetical'"),
    (lambda r: from_frame(r, dup='first'), "dup is 'first'"),
    (lambda r: from_frame(r.drop(columns='time'), split='temporal'), 'needs a time'),
    (lambda r: from_frame(r.assign(time='some day')), 'neither numbers nor dates'),
    (
        lambda r: from_frame(r.assign(rating=np.where(r.user == 7, 1, 5)), kcore=0),
        '1 of 60 users have no training item',
    ),
    (lambda r: from_frame(r.head(3).assign(rating=5, user=[1, 2, 3]), kcore=0), '(valid|test) is empty'),
    (lambda r: from_frame(r, items=pd.DataFrame({'item': [100], 'colour': ['red']})), 'neither a title.*nor a text'),
    (lambda r: from_frame(r, items=pd.DataFrame({'title': ['a']})), "items has no column 'item'"),
    (lambda r: from_frame(r, items=pd.DataFrame({'item': [100, 100], 'title': 'a'})), "repeated ids.*'100'"),
    (
        lambda r: from_frame(r, items=pd.DataFrame({'item': [100, None], 'title': 'a'})),
        'items.item has 1 rows without an id',
    ),
    (lambda r: from_frame(r, users=pd.DataFrame({'user': [1, 1]})), 'users has 1 repeated ids'),
    (lambda r: from_frame(r, keep=['mood']), "no column 'mood'"),
]


@pytest.mark.parametrize('call, sentence', FRAMES)
def test_from_frame_refuses(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(log())


# ---- atomic files


def atomic(folder, extra=True):
    raw = log()
    raw.columns = ['user_id:token', 'item_id:token', 'rating:float', 'timestamp:float']
    raw.to_csv(folder / 'mini.inter', sep='\t', index=False)
    ids = list(range(100, 140))
    pd.DataFrame(
        {
            'item_id:token': ids,
            'movie_title:token_seq': [f'Film "{k}" The' for k in ids],
            'class:token_seq': 'Drama War',
        }
    ).to_csv(folder / 'mini.item', sep='\t', index=False, quoting=3)
    pd.DataFrame({'user_id:token': range(60), 'age:token': 30}).to_csv(folder / 'mini.user', sep='\t', index=False)
    if extra:
        (folder / 'items_info.json').write_text(
            json.dumps(
                [
                    {
                        'code': str(k),
                        'year': '1999',
                        'rating': '8.8',
                        'plot': f'Plot of {k}.' if k != 101 else 'N/A',
                        'cast': 'A, B, C, D, E, F',
                    }
                    for k in ids[1:]
                ]
            )
        )
    return folder


def test_from_atomic(tmp_path):
    d = from_atomic(atomic(tmp_path))
    assert (
        d.name == 'mini' and d.meta['files'] == ['mini.inter', 'mini.item', 'mini.user'] and (d.users.age == '30').all()
    )
    by = d.items.set_index('item')
    assert by.title['100'] == 'Film "100" The' and by['class']['100'] == 'Drama, War'
    assert (
        by.text['100'] == 'Film "100" The. Class: Drama, War.' and by.text['101'] == 'Year: 1999. Cast: A, B, C, D, E.'
    )
    assert by.text['102'] == 'Plot of 102. Year: 1999. Cast: A, B, C, D, E.'
    assert not d.items.text.str.contains('8.8').any() and d.meta['items_with_fallback_text'] == 1
    e = d.meta['extra']
    assert (
        e['id'] == 'code'
        and e['id_found_by_matching']
        and e['matched']['code'] == 39 / 40
        and e['file'] == 'items_info.json'
    )
    assert (
        from_atomic(tmp_path, extra_id='code', text_fields=['plot']).items.set_index('item').text['102']
        == 'Plot of 102.'
    )


def test_from_atomic_without_texts_or_items(tmp_path):
    d = from_atomic(atomic(tmp_path, extra=False))
    assert d.items.text[0] == 'Film "100" The. Class: Drama, War.' and d.meta['items_with_fallback_text'] == 40
    (tmp_path / 'mini.item').unlink()
    (tmp_path / 'mini.user').unlink()
    d = from_atomic(tmp_path)
    assert d.items.title[0] == 'item 100' and d.meta['items_without_text'] == 40


def test_from_atomic_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'):
        from_atomic(tmp_path / 'no')
    with pytest.raises(FileNotFoundError, match='no .inter file'):
        from_atomic(tmp_path)
    atomic(tmp_path)
    with pytest.raises(ValueError, match="0% of the items.*'cast'.*set extra_id"):
        from_atomic(tmp_path, extra_id='cast')
    with pytest.raises(ValueError, match="no column 'imdb'"):
        from_atomic(tmp_path, extra_id='imdb')
    with pytest.raises(FileNotFoundError, match='no file other.json'):
        from_atomic(tmp_path, extra=tmp_path / 'other.json')
    with pytest.raises(ValueError, match="no column 'reader'"):
        from_atomic(tmp_path, user='reader')
    (tmp_path / 'items_info.json').write_text('[{"a": 1}')
    with pytest.raises(ValueError, match='items_info.json cannot be read as JSON'):
        from_atomic(tmp_path)
    (tmp_path / 'items_info.json').write_text('{"a": 1}')
    with pytest.raises(ValueError, match='not a list of records'):
        from_atomic(tmp_path)
    (tmp_path / 'mini.inter').write_text('user\titem\n1\t2\n')
    with pytest.raises(ValueError, match='no typed header'):
        from_atomic(tmp_path)
    (tmp_path / 'mini.inter').write_bytes(b'\xff\xfe\x00user')
    with pytest.raises(ValueError, match='mini.inter cannot be read'):
        from_atomic(tmp_path)
    (tmp_path / 'other.inter').write_text('')
    with pytest.raises(ValueError, match='2 .inter files'):
        from_atomic(tmp_path)


def test_compose_text():
    t = pd.DataFrame(
        {'plot': ['One, two, three, four, five, six.', None], 'genres': [['a', 'b'], 'N/A'], 'year': [1999, 2000]}
    )
    assert compose_text(t, ['plot', 'genres', 'year']).tolist() == [
        'One, two, three, four, five, six. Genres: a, b. Year: 1999.',
        'Year: 2000.',
    ]


# ---- hostile pickles


class Call:
    "Pickles as a call of f with args."

    def __init__(self, f, *args):
        self.f, self.args = f, args

    def __reduce__(self):
        return self.f, self.args


def stack_global(module, name):
    return b'\x8c' + bytes([len(module)]) + module.encode() + b'\x8c' + bytes([len(name)]) + name.encode() + b'\x93'


def text(s):
    return b'\x8c' + bytes([len(s)]) + s.encode()


def hostile(mark):
    "Name -> bytes of pickles that would create the file `mark` or get hold of something they should not."
    p, m = pickle.dumps, str(mark)
    proto = b'\x80\x04'
    shell = proto + stack_global('os', 'system') + text(f'touch {m}') + b'\x85R.'
    nd, coo = stack_global('numpy', 'ndarray'), stack_global('scipy.sparse._coo', 'coo_matrix')
    return {
        'os.system': p(Call(os.system, f'touch {m}')),
        'os.system by name': shell,
        'inside good data': p({'profile': ['fine', Call(os.system, f'touch {m}')]}),
        'as a dict key': p({('a', Call(os.system, f'touch {m}')): 1}),
        'protocol 0': p(Call(os.system, f'touch {m}'), 0),
        'protocol 2': p(Call(os.system, f'touch {m}'), 2),
        'subprocess': p(Call(subprocess.check_call, ['touch', m])),
        'Popen': p(Call(subprocess.Popen, ['touch', m])),
        'eval': p(Call(eval, f'open({m!r}, "w")')),
        'exec': p(Call(exec, f'open({m!r}, "w")')),
        'open': p(Call(io.open, m, 'w')),
        'builtins.open': proto + stack_global('builtins', 'open') + text(m) + text('w') + b'\x86R.',
        'Path.touch': proto + stack_global('pathlib', 'Path.touch') + text(m) + b'\x85R.',
        'importlib': proto + stack_global('importlib', 'import_module') + text('os') + b'\x85R.',
        '__import__': proto + stack_global('builtins', '__import__') + text('os') + b'\x85R.',
        'getattr chain': proto
        + stack_global('builtins', 'getattr')
        + stack_global('builtins', 'getattr')
        + nd
        + text('__class__')
        + b'\x86R'
        + text('__subclasses__')
        + b'\x86R)R.',
        'operator.attrgetter': proto
        + stack_global('operator', 'attrgetter')
        + text('__class__.__base__')
        + b'\x85R'
        + nd
        + b'\x85R.',
        'dotted name': proto + stack_global('numpy', 'core.multiarray._reconstruct') + b'.',
        'dotted builtin': proto + stack_global('numpy', '__builtins__.eval') + b'.',
        'numpy load': proto + stack_global('numpy', 'load') + text(m) + b'\x85R.',
        'scipy loader': proto + stack_global('scipy.sparse', 'load_npz') + b'.',
        'f2py': proto + stack_global('numpy.f2py.diagnose', 'run_command') + b'.',
        'codecs': proto + stack_global('_codecs', 'encode') + text('a') + text('rot13') + b'\x86R.',
        'build on class': proto + nd + b'}' + text('x') + text('y') + b'sb.',
        'slot state on class': proto + nd + b'N}' + text('__setstate__') + text('y') + b's\x86b.',
        'slot state on thing': proto + coo + b')\x81N}' + text('__class__') + nd + b's\x86b.',
        'state on thing': proto + coo + b')\x81}' + text('__reduce__') + text('y') + b'sb.',
        'class as value': proto + coo + b'.',
        'INST': b'(S"touch ' + m.encode() + b'"\nios\nsystem\n.',
        'OBJ': b'(cos\nsystem\nS"touch ' + m.encode() + b'"\no.',
        'persistent id': b'Pfile\n.',
        'extension': b'\x80\x02\x82\x2a.',
        'huge memo': b'\x80\x04Nr\xff\xff\xff\x7f.',
        'copyreg': proto + stack_global('copyreg', '__newobj__') + nd + b'\x85R.',
        'contains itself': proto + b']\x94h\x00a.',
        'newobj_ex': proto + coo + b')}' + text('a') + text('b') + b's\x92.',
    }


@pytest.mark.parametrize('name', sorted(hostile('x')))
def test_hostile_pickle(name, tmp_path):
    mark, path = tmp_path / 'ran', tmp_path / 'bad.pkl'
    path.write_bytes(hostile(mark)[name])
    before = set(vars(np.ndarray)), np.ndarray.__setstate__, sp.coo_matrix.__module__
    copyreg.add_extension('os', 'system', 42)
    try:
        with pytest.raises(ValueError, match=r'bad.pkl was not loaded: .*Nothing in it was run'):
            safe_load(path)
    finally:
        copyreg.remove_extension('os', 'system', 42)
    assert not mark.exists() and sorted(p.name for p in tmp_path.iterdir()) == ['bad.pkl']
    assert before == (set(vars(np.ndarray)), np.ndarray.__setstate__, sp.coo_matrix.__module__)


def test_hostile_pickles_would_have_worked(tmp_path):
    "The examples are real: the plain unpickler runs them."
    for name in (
        'os.system',
        'os.system by name',
        'subprocess',
        'eval',
        'exec',
        'builtins.open',
        'Path.touch',
        'INST',
        'OBJ',
        'inside good data',
    ):
        mark = tmp_path / 'ran'
        pickle.loads(hostile(mark)[name])
        for _ in range(200):
            if mark.exists():
                break
        assert mark.exists(), name
        mark.unlink()


def test_stand_ins_do_not_leak_between_files(tmp_path):
    (tmp_path / 'bad.pkl').write_bytes(hostile('x')['state on thing'])
    with pytest.raises(ValueError):
        safe_load(tmp_path / 'bad.pkl')
    (tmp_path / 'good.pkl').write_bytes(pickle.dumps(sp.coo_matrix(np.eye(2))))
    assert (safe_load(tmp_path / 'good.pkl').toarray() == np.eye(2)).all()


def forged(**change):
    "A pickle of a coo matrix whose parts do not fit."
    m = sp.coo_matrix(np.eye(3))
    m.__dict__.update(change)
    return pickle.dumps(m)


def test_forged_arrays(tmp_path):
    good = pickle.dumps(np.arange(4, dtype='<i8'), 4)
    for raw in (
        good.replace(b'K\x04\x85', b'K\x05\x85'),
        good.replace(b'\x8c\x02i8', b'\x8c\x02V8'),
        good.replace(b'\x8c\x02i8', b'\x8c\x02O8'),
        good.replace(b'\x8c\x02i8', b'\x8c\x02M8'),
        pickle.dumps(np.array([object], dtype=object)),
        forged(_shape=(2, 2)),
        forged(_shape=(10**12, 2)),
        forged(_shape=None),
        forged(data=np.ones(2)),
        forged(coords=(np.array([0, 1, 9]), np.arange(3))),
        forged(coords=(np.arange(3.0), np.arange(3))),
        pickle.dumps(np.zeros(2, dtype=[('a', int)])),
    ):
        assert raw != good
        (tmp_path / 'f.pkl').write_bytes(raw)
        with pytest.raises(ValueError, match='f.pkl was not loaded'):
            safe_load(tmp_path / 'f.pkl')


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_plain_data_comes_back(tmp_path, protocol):
    shared = ['x', 1.5]
    plain = {
        'a': [1, 2.5, None, True, 'é', b'\x00\xff'],
        'b': (1, {2, 3}, frozenset('q')),
        3: OrderedDict(k=shared),
        'again': shared,
        'big': 2**80,
        'd': defaultdict(None, {'z': 1}),
        'e': bytearray(b'ab'),
        'f': b'',
    }
    (tmp_path / 'p.pkl').write_bytes(pickle.dumps(plain, protocol))
    back = safe_load(tmp_path / 'p.pkl')
    assert back == plain and all(type(v) in (dict, list, tuple, int, bytes) for v in back.values())


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_arrays_come_back(tmp_path, protocol):
    rng = np.random.default_rng(0)
    for a in (
        rng.normal(size=(3, 4)),
        np.asfortranarray(rng.normal(size=(3, 4))),
        np.arange(5, dtype='>i4'),
        np.array(['a', 'ü']),
        np.array([b'x', b'yz']),
        np.zeros((0, 7), np.float32),
        np.array(3.0),
        np.array([True, False]),
        np.array([{'profile': 'p'}, None, 'q'], dtype=object),
        rng.random((4, 6))[::2, ::3],
    ):
        (tmp_path / 'a.pkl').write_bytes(pickle.dumps(a, protocol))
        b = safe_load(tmp_path / 'a.pkl')
        assert type(b) is np.ndarray and b.shape == a.shape and b.dtype == a.dtype.newbyteorder('=') and (b == a).all()
    for v in (np.float64(2.5), np.int32(7), np.bool_(True)):
        (tmp_path / 'a.pkl').write_bytes(pickle.dumps(v, protocol))
        assert safe_load(tmp_path / 'a.pkl') == v
    for kind in ('csr', 'csc', 'coo'):
        for end in ('matrix', 'array'):
            m = getattr(sp, f'{kind}_{end}')(sp.random(7, 5, 0.4, random_state=0))
            (tmp_path / 'a.pkl').write_bytes(pickle.dumps(m, protocol))
            b = safe_load(tmp_path / 'a.pkl')
            assert b.format == kind and (b.toarray() == m.toarray()).all()


def test_old_module_names(tmp_path):
    raw = pickle.dumps(sp.csr_matrix(np.eye(3)), 2)
    old = raw.replace(b'scipy.sparse._csr', b'scipy.sparse.csr').replace(
        b'numpy._core.multiarray', b'numpy.core.multiarray'
    )
    assert old != raw
    (tmp_path / 'o.pkl').write_bytes(old)
    assert (safe_load(tmp_path / 'o.pkl').toarray() == np.eye(3)).all()


@pytest.mark.parametrize(
    'raw', [b'', b'hello', b'\x80\x04', pickle.dumps(np.arange(1000.0))[:500], b'PK\x03\x04 zip', b'\x80\x63.']
)
def test_not_a_pickle(tmp_path, raw):
    (tmp_path / 'x.pkl').write_bytes(raw)
    with pytest.raises(ValueError, match='x.pkl was not loaded'):
        safe_load(tmp_path / 'x.pkl')


def test_unreadable_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='no file gone.pkl'):
        safe_load(tmp_path / 'gone.pkl')
    with pytest.raises(ValueError, match='cannot be read'):
        safe_load(tmp_path)


# ---- from_rlmrec


def published(folder, m=12, n=9, seed=0):
    rng = np.random.default_rng(seed)
    order = rng.permutation(m * n)
    parts = {'trn_mat': np.r_[np.arange(m) * n, np.setdiff1d(order[:50], np.arange(m) * n)]}
    left = np.setdiff1d(order, parts['trn_mat'])
    parts |= {'val_mat': left[:15], 'tst_mat': left[15:30]}
    mats = {k: sp.coo_matrix((np.ones(len(v)), (v // n, v % n)), shape=(m, n)) for k, v in parts.items()}
    mats['new_trn_rag_mat'] = sp.csr_matrix(
        mats['trn_mat'] + sp.coo_matrix((np.ones(4), (left[30:34] // n, left[30:34] % n)), shape=(m, n))
    )
    for k, v in mats.items():
        (folder / f'{k}.pkl').write_bytes(pickle.dumps(v))
    return mats


def test_from_rlmrec(tmp_path):
    mats = published(tmp_path)
    put = lambda f, v: (tmp_path / f).write_bytes(pickle.dumps(v))  # noqa: E731
    put('usr_prf.pkl', {i: {'profile': f'user {i}', 'reasoning': 'because'} for i in range(12)})
    put('itm_prf.pkl', [f'item {i}' for i in range(8)])
    put('usr_emb_np.pkl', np.ones((12, 4)))
    put('itm_emb_np.pkl', np.ones((9, 4), np.float16))
    d = from_rlmrec(tmp_path, name='pub')
    assert (d.train != mats['trn_mat'].tocsr()).nnz == 0 and (d.test != mats['tst_mat'].tocsr()).nnz == 0
    assert d.extras['user_profiles'][3] == 'user 3' and d.extras['item_profiles'] == [f'item {i}' for i in range(8)] + [
        ''
    ]
    assert d.extras['user_vectors'].shape == (12, 4) and d.extras['item_vectors'].dtype == np.float32
    assert d.meta['augmented_edges'] == 4 and (d.extras['augmented'] != mats['new_trn_rag_mat']).nnz == 0
    assert d.events.rating.isna().all() and len(d.events) == sum(getattr(d, s).nnz for s in SPLITS)


def test_from_rlmrec_refuses(tmp_path):
    published(tmp_path)
    put = lambda f, v: (tmp_path / f).write_bytes(pickle.dumps(v))  # noqa: E731
    put('itm_emb_np.pkl', np.ones((3, 4)))
    with pytest.raises(ValueError, match=r'itm_emb_np.pkl has shape \(3, 4\) but there are 9 items'):
        from_rlmrec(tmp_path)
    (tmp_path / 'itm_emb_np.pkl').unlink()
    put('usr_prf.pkl', {12: 'x'})
    with pytest.raises(ValueError, match='usr_prf.pkl has a profile for id 12'):
        from_rlmrec(tmp_path)
    (tmp_path / 'usr_prf.pkl').unlink()
    put('new_trn_rag_mat.pkl', sp.eye(3).tocsr())
    with pytest.raises(ValueError, match='new_trn_rag_mat.pkl is not a 12 x 9 matrix'):
        from_rlmrec(tmp_path)
    (tmp_path / 'new_trn_rag_mat.pkl').unlink()
    put('val_mat.pkl', {'a': 1})
    with pytest.raises(ValueError, match='val_mat.pkl holds a dict'):
        from_rlmrec(tmp_path)
    (tmp_path / 'val_mat.pkl').write_bytes(hostile(tmp_path / 'ran')['os.system'])
    with pytest.raises(ValueError, match='posix.system'):
        from_rlmrec(tmp_path)
    assert not (tmp_path / 'ran').exists()
    (tmp_path / 'val_mat.pkl').unlink()
    with pytest.raises(FileNotFoundError, match='has no val_mat.pkl'):
        from_rlmrec(tmp_path)


def test_from_rlmrec_cold_user(tmp_path):
    mats = published(tmp_path)
    cold = mats['trn_mat'].tolil()
    cold[5] = 0
    (tmp_path / 'trn_mat.pkl').write_bytes(pickle.dumps(cold.tocoo()))
    with pytest.raises(ValueError, match='1 of 12 users have no training item'):
        from_rlmrec(tmp_path)
    d = from_rlmrec(tmp_path, allow_cold=True)
    assert d.meta['allow_cold'] and d.train[5].nnz == 0


# ---- save and load


def same(a, b):
    assert a.hash() == b.hash() and a.meta == b.meta and a.name == b.name and set(a.extras) == set(b.extras)
    for t in ('users', 'items', 'events'):
        pd.testing.assert_frame_equal(getattr(a, t), getattr(b, t))


def test_round_trip(tmp_path, shop):
    more = dict(
        augmented=shop.train + shop.valid, item_profiles=['a'] * 120, nested={'x': [np.arange(3), {'y': None}]}
    )
    shop = replace(shop, extras=shop.extras | more)  # the others keep theirs
    assert save(shop, tmp_path / 'deep' / 's') == tmp_path / 'deep' / 's'
    back = load(tmp_path / 'deep' / 's')
    same(shop, back)
    for k, v in shop.extras['truth'].items():
        w = back.extras['truth'][k]
        assert type(v) is type(w) and (
            np.array_equal(v, w) and v.dtype == w.dtype if isinstance(v, np.ndarray) else v == w
        ), k
    assert (back.extras['augmented'] != shop.extras['augmented']).nnz == 0 and back.extras['item_profiles'] == [
        'a'
    ] * 120
    assert back.extras['nested']['x'][0].tolist() == [0, 1, 2] and back.extras['nested']['x'][1] == {'y': None}
    for f in (tmp_path / 'deep' / 's').rglob('*'):
        assert f.is_dir() or f.suffix in ('.json', '.npz', '.parquet')
    assert (toy_utility(back.extras['truth']) == toy_utility(shop.extras['truth'])).all()


def test_save_replaces_only_saves(tmp_path, shop):
    a, b = RecData(**GOOD, name='a'), RecData(**GOOD, name='b')
    save(a, tmp_path / 's')
    save(b, tmp_path / 's')
    assert load(tmp_path / 's').name == 'b' and len(list((tmp_path / 's').iterdir())) == 2
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own' / 'poem.txt').write_text('mine')
    with pytest.raises(ValueError, match='not an earlier save.*overwrite=True'):
        save(a, tmp_path / 'own')
    save(a, tmp_path / 'own', overwrite=True)
    assert (tmp_path / 'own' / 'poem.txt').read_text() == 'mine' and load(tmp_path / 'own').name == 'a'
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'recdata.json').write_text('{"mine": 1}')
    with pytest.raises(ValueError, match='another kind'):
        save(a, tmp_path / 'other', overwrite=True)
    (tmp_path / 'file').write_text('x')
    with pytest.raises(ValueError, match='is a file'):
        save(a, tmp_path / 'file')
    (tmp_path / 'empty').mkdir()
    save(a, tmp_path / 'empty')
    assert load(tmp_path / 'empty').name == 'a'


def test_failed_save_leaves_everything_as_it_was(tmp_path, monkeypatch):
    a, b = RecData(**GOOD, name='a'), RecData(**GOOD, name='b')
    save(a, tmp_path / 's')
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob('*'))
    b.extras['f'] = print
    with pytest.raises(ValueError, match='extras.f is a builtin.*cannot be saved'):
        save(b, tmp_path / 's')
    with pytest.raises(ValueError, match='cannot be saved'):
        save(b, tmp_path / 'new')
    b.extras = {}

    def dies(*a):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', dies)
    with pytest.raises(KeyboardInterrupt):
        save(b, tmp_path / 's')
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob('*')) == before and load(tmp_path / 's').name == 'a'


def test_load_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match='not a saved RecData'):
        load(tmp_path / 'no')
    save(RecData(**GOOD), tmp_path / 's')
    index = tmp_path / 's' / 'recdata.json'
    note = json.loads(index.read_text())
    index.write_text(json.dumps(note | {'version': 99}))
    with pytest.raises(ValueError, match='newer promax_nb'):
        load(tmp_path / 's')
    index.write_text(json.dumps(note | {'parts': '../../etc'}))
    with pytest.raises(FileNotFoundError):
        load(tmp_path / 's')
    index.write_text(json.dumps(note | {'hash': '0' * 12}))
    with pytest.raises(ValueError, match='damaged.*not those that were saved'):
        load(tmp_path / 's')
    index.write_text(json.dumps(note))
    (tmp_path / 's' / note['parts'] / 'users.parquet').write_bytes(b'PAR1')
    with pytest.raises(ValueError, match='damaged'):
        load(tmp_path / 's')


def test_no_pickle_in_our_formats(tmp_path):
    save(RecData(**GOOD, extras={'v': np.ones(3)}), tmp_path / 's')
    part = next((tmp_path / 's').glob('parts-*'))
    mark = tmp_path / 'ran'
    np.savez(part / 'arrays.npz', a0=np.array([Call(os.system, f'touch {mark}')], dtype=object))
    with pytest.raises(ValueError, match='damaged'):
        load(tmp_path / 's')
    assert not mark.exists()


# ---- the bookshop


def agreement(d):
    t = d.extras['truth']
    taste = (t['user_likes'] * 1.0 - t['user_dislikes']) @ t['item_attributes'].T
    return np.corrcoef(taste[d.events.user, d.events.item], d.events.rating)[0, 1]


def test_toy_is_what_its_seed_says():
    a, b, c = toy_data(100, 80, seed=1), toy_data(100, 80, seed=1), toy_data(100, 80, seed=2)
    same(a, b)
    assert a.hash() != c.hash() and a.items.title[0] != c.items.title[0]
    assert (
        a.meta['vocabulary_hash'] == vocabulary_hash()
        and len(attribute_names()) == a.extras['truth']['item_attributes'].shape[1]
    )


def test_toy_looks_like_a_shop():
    d = toy_data()
    ev = d.events
    counts = ev.groupby('user').size()
    assert d.shape == (600, 400) and d.items.title.is_unique and d.items.text.str.count(r'\.').between(2, 3).all()
    assert counts.median() <= 12 < counts.mean() and counts.max() > 25 and (counts.between(4, 12).mean()) > 0.5
    assert set(ev.rating) == {1, 2, 3, 4, 5} and 0.2 < (ev.rating < 4).mean() < 0.35
    popular = np.sort(ev.groupby('item').size().to_numpy())[::-1]
    assert popular[:40].sum() > 2.5 * popular[len(popular) // 2 :][:40].sum()
    assert (ev.groupby('user').time.diff().dropna() >= 0).all() and 400 < (ev.time.max() - ev.time.min()) / 86400 < 3000
    assert (
        np.diff(d.train.indptr).min() >= 1 and abs(d.valid.nnz / (d.train.nnz + d.valid.nnz + d.test.nnz) - 0.1) < 0.02
    )


def test_dense_is_the_same_shop_with_long_histories():
    a, b = toy_data(100, 300), toy_data(100, 300, density='dense')
    assert (
        b.events.groupby('user').size().min() >= 150
        and b.events[b.events.split == 'train'].groupby('user').size().min() >= 100
    )
    pd.testing.assert_frame_equal(a.items, b.items)
    for k in ('user_likes', 'user_factors', 'item_factors', 'popularity'):
        assert (a.extras['truth'][k] == b.extras['truth'][k]).all()


@pytest.mark.parametrize('density', ['sparse', 'dense'])
def test_reveal_is_the_share_text_explains(density):
    r = {v: agreement(toy_data(400, 300, seed=5, density=density, reveal=v)) for v in (0, 0.5, 1)}
    assert abs(r[0]) < 0.05 and r[0.5] > 0.3 and r[1] > r[0.5] + 0.15


def test_truth_shows_in_ratings():
    d = toy_data(density='dense', n_users=200)
    t, ev = d.extras['truth'], d.events
    bad = (t['user_dislikes'] * 1.0 @ t['item_attributes'].T)[ev.user, ev.item]
    good = (t['user_likes'] * 1.0 @ t['item_attributes'].T)[ev.user, ev.item]
    assert (
        bad[ev.rating <= 2].mean() > 1.5 * bad[ev.rating == 5].mean()
        and good[ev.rating == 5].mean() > 1.5 * good[ev.rating <= 2].mean()
    )
    u = toy_utility(t)
    assert abs(u.mean()) < 1e-3 and 0.9 < u.std() < 1.1 and np.corrcoef(u[ev.user, ev.item], ev.rating)[0, 1] > 0.7


def test_noise_is_what_nothing_explains():
    def told(noise):
        d = toy_data(density='dense', n_users=60, noise=noise)
        ev = d.events
        return np.corrcoef(toy_utility(d.extras['truth'])[ev.user, ev.item], ev.rating)[0, 1]

    assert told(0.0) > told(0.5) + 0.05 > told(2.0) + 0.2


def test_blurbs_name_the_attributes():
    d = toy_data(50, 300)
    t = d.extras['truth']
    words = [a.split(': ')[1].lower() for a in t['attributes']]
    for i, a in zip(*np.nonzero(t['item_attributes']), strict=True):
        assert words[a] in d.items.text[i].lower()
    assert not d.items.text.str.contains(r'\ba [aeiou]', case=False).any()


def test_toy_refuses():
    with pytest.raises(ValueError, match="density is 'thick'"):
        toy_data(density='thick')
    with pytest.raises(ValueError, match='reveal is 2'):
        toy_data(reveal=2)
    with pytest.raises(ValueError, match='noise is -1'):
        toy_data(noise=-1)
    with pytest.raises(ValueError, match='at least 10 readers and 250 books'):
        toy_data(100, 100, density='dense')
    with pytest.raises(ValueError, match='titles in the bookshop'):
        toy_data(20, 100_000)
    assert toy_data(10, 40).shape == (10, 40)


# ---- describe and audit


def test_describe(shop):
    v = describe(shop).value
    assert (
        v['users'] == 200
        and v['items'] == 120
        and v['train interactions'] == shop.train.nnz
        and v['share of items with text'] == 1
    )


def prompts_of(d, split='train'):
    past = d.events[d.events.split == split].groupby('user')['item'].agg(list)
    lines = ('- ' + d.items.title + ': ' + d.items.text).tolist()
    return pd.DataFrame(
        {
            'id': past.index,
            'kind': 'user',
            'sources': past.to_numpy(),
            'prompt': ['Known:\n' + '\n'.join(lines[j] for j in s) for s in past],
        }
    )


def passed(table):
    return dict(zip(table.check, table.passed, strict=True))


SOURCES, TITLES = 'no held-out event among the sources of prompts', 'no title of a held-out item in prompts'


def test_audit_of_honest_work(shop):
    p = prompts_of(shop)
    vectors = (np.ones((200, 4)), np.ones((120, 4)))
    a = audit(
        shop,
        prompts=p,
        graph=[shop.train],
        profiles=p.rename(columns={'prompt': 'profile'}),
        vectors=vectors,
        strict=True,
    )
    assert a.passed.all() and len(a) == 11 and a.columns.tolist() == ['check', 'passed', 'count', 'detail']


@pytest.mark.parametrize('split', ['valid', 'test'])
def test_audit_finds_held_out_sources_and_titles(shop, split):
    p = prompts_of(shop, split)
    a = audit(shop, prompts=p)
    ok = passed(a)
    n = (shop.events.split == split).sum()
    assert not ok[SOURCES] and not ok[TITLES] and a['count'].tolist() == [0, n, n, 0]
    honest = prompts_of(shop)
    liar = honest.assign(prompt=honest.prompt + p.set_index('id').prompt.reindex(honest.id).fillna('').to_numpy())
    a = audit(shop, prompts=liar)
    assert passed(a)[SOURCES] and a['count'].tolist() == [0, 0, n, 0]
    with pytest.raises(ValueError, match='the audit failed: no title of a held-out item'):
        audit(shop, prompts=liar, strict=True)


def test_audit_finds_disliked_held_out(shop):
    ev = shop.events
    e = ev[(ev.split == 'test') & (ev.rating < 4)].iloc[0]
    user, item = int(e['user']), int(e['item'])
    p = pd.DataFrame({'id': [user], 'prompt': ['nothing'], 'sources': [[item]]})
    assert not passed(audit(shop, prompts=p))[SOURCES]
    p = pd.DataFrame({'id': [user], 'profile': [f'loathed {shop.items.title[item]}']})
    assert not passed(audit(shop, profiles=p))['no title of a held-out item in profiles']


def titled(titles, texts=None):
    "User 0 has trained on item 0; items 1 and 2 are held out."
    items = pd.DataFrame({'item': [f'x{i}' for i in range(len(titles))], 'title': titles, 'text': texts or ''})
    n = len(titles)
    return RecData(
        cells((0, 0), (1, 1), shape=(2, n)),
        cells((0, 1), (1, 0), shape=(2, n)),
        cells((0, 2), shape=(2, n)),
        items=items,
    )


@pytest.mark.parametrize(
    'titles, texts, prompt, leaks',
    [
        (['A', 'Big Night', 'C D'], None, 'Saw Big Night twice', 1),
        (['A', 'Big Night', 'C D'], None, 'Saw BIG NIGHT twice', 1),
        (['A', 'Big Night', 'C D'], None, 'a big nightmare', 0),
        (['A', 'Big Night', 'C D'], None, 'It was big.\nNight fell. So big. Night again', 0),
        (['A', 'Usual Suspects, The', 'C D'], None, 'liked The Usual Suspects', 1),
        (['A', 'Usual Suspects, The', 'C D'], None, 'liked Usual Suspects, The', 1),
        (['A', 'Postman (Il postino)', 'C D'], None, 'liked Postman (Il postino)', 1),
        (['Big Night', 'Big Night', 'C D'], None, 'Saw Big Night', 0),
        (['Big Night Out', 'Big Night', 'C D'], None, 'Saw Big Night Out', 0),
        (['Big Night Out', 'Big Night', 'C D'], None, 'Saw Big Night Out and Big Night', 1),
        (['A', 'Big Night', 'Big Night Out'], None, 'Saw Big Night Out', 1),
        (['A', 'Heat', 'C D'], None, 'in the heat of it. Heat is on', 0),
        (['A', 'Heat', 'C D'], None, 'liked Heat very much', 1),
        (['A', 'Heat', 'C D'], None, '- Heat\n- other', 1),
        (['A', 'Heat', 'C D'], ['about Heat and dust', '', ''], 'about Heat and dust', 0),
        (['A', 'Heat', 'C D'], ['about Heat and dust', '', ''], 'about Heat and dust. Next: Heat', 1),
        (['A', '1984', 'Jane Eyre'], None, 'read 1984, then "Jane Eyre"', 2),
        (['A', 'Le Père', "Schindler's List"], None, "saw Le Père and Schindler's List", 2),
        (['A', 'Big Night', 'End of Days'], None, 'the last words are end of', 0),
        (['A', '???', 'C D'], None, '??? really ???', 0),
    ],
)
def test_audit_titles(titles, texts, prompt, leaks):
    a = audit(titled(titles, texts), prompts=pd.DataFrame({'id': [0], 'prompt': [prompt]}))
    assert a.set_index('check').loc[TITLES, 'count'] == leaks


def test_audit_ignores_made_up_titles_and_item_prompts():
    d = RecData(**GOOD)
    assert audit(d, prompts=pd.DataFrame({'id': [0], 'prompt': ['item 1 and item 2']})).passed.all()
    p = pd.DataFrame({'id': [1, 2], 'kind': 'item', 'prompt': ['Big Night', 'C D'], 'sources': [[1], [2]]})
    assert audit(titled(['A', 'Big Night', 'C D']), prompts=p).passed.all()


def test_audit_knows_item_profiles():
    d = titled(['A', 'Big Night', 'C D'])
    p = pd.DataFrame({'id': [0], 'prompt': ['A: for lovers of Big Night']})
    assert not passed(audit(d, prompts=p))[TITLES]
    items = pd.DataFrame({'id': [0, 1, 2], 'profile': ['for lovers of Big Night', 'x', 'y']})
    assert passed(audit(d, prompts=p, items=items))[TITLES]


def test_audit_graphs(shop):
    name = 'no held-out interaction in a graph, declared added edges apart'
    bipartite = sp.bmat([[None, shop.train], [shop.train.T, None]])
    assert passed(audit(shop, graph=[shop.train, bipartite]))[name]
    assert not passed(audit(shop, graph=shop.train + shop.valid))[name]
    assert not passed(audit(shop, graph=sp.bmat([[None, shop.train + shop.test], [shop.train.T, None]])))[name]
    half = shop.test.copy()
    half.data[::2] = 0
    half.eliminate_zeros()
    assert passed(audit(shop, graph=shop.train + half, added=half))[name]
    a = audit(shop, graph=shop.train + shop.test, added=half).set_index('check')
    assert not a.passed[name] and a['count'][name] == shop.test.nnz - half.nnz
    assert a.passed['added edges that are in test'] and a['count']['added edges that are in test'] == half.nnz
    with pytest.raises(ValueError, match='a graph has shape'):
        audit(shop, graph=sp.eye(3))
    assert not audit(shop, added=shop.train).set_index('check').passed['added edges are new']


def test_chance_is_what_chance_gives(shop):
    rng = np.random.default_rng(0)
    M, N = shop.shape
    seen = shop.train.toarray() > 0
    found = []
    per_user = rng.integers(0, 20, M)
    for _ in range(200):
        order = np.where(seen, 2.0, rng.random((M, N))).argsort(1).argsort(1)
        added = sp.csr_matrix((order < per_user[:, None]).astype(np.float32))
        c = chance_overlap(shop, added)
        found.append(c['found'])
    assert abs(np.mean(found) - c['expected']) < 4 * np.std(found) / 200**0.5
    assert abs(np.std(found) / ((c['high'] - c['low']) / 3.92) - 1) < 0.2
    assert 0.9 < np.mean([(c['low'] <= f <= c['high']) for f in found]) < 0.99


def test_audit_vectors_and_profiles(shop):
    v = np.ones((200, 4))
    v[3] = np.nan
    a = passed(audit(shop, vectors=(v, np.ones((119, 4)))))
    assert not a['one finite vector per user'] and not a['one finite vector per item']
    p = pd.DataFrame({'id': range(199), 'profile': ['kind'] * 198 + ['']})
    a = audit(shop, profiles=p).set_index('check')
    assert a['count']['every user has a profile'] == 2
    with pytest.raises(ValueError, match='user ids outside'):
        audit(shop, profiles=p.assign(id=p.id + 5))
    with pytest.raises(ValueError, match="no column 'profile'"):
        audit(shop, profiles=p.drop(columns='profile'))


# ---- real data


def test_amazon_book(shared_data):
    d = from_rlmrec(Path(shared_data) / 'amazon-book')
    assert d.shape == (11000, 9332) and (d.train.nnz, d.valid.nnz, d.test.nnz) == (120464, 40290, 40106)
    extra = d.extras['augmented']
    assert (
        extra.nnz == 120464 + 24199 == 120464 + d.meta['augmented_edges'] and extra.multiply(d.train).nnz == d.train.nnz
    )
    a = audit(d, graph=extra, added=extra - d.train)
    assert a.passed.all() and 50 < a.set_index('check')['count']['added edges that are in test'] < 200


def test_ml_100k(shared_data):
    d = from_atomic(Path(shared_data) / 'ml-100k', split='temporal', kcore=5)
    assert (
        d.meta['rows_read'] == 100_000
        and d.meta['extra']['id'] == 'movielens_id'
        and d.meta['items_with_fallback_text'] <= 5
    )
    assert (
        (d.items.text != '').all()
        and d.items.text[0].startswith('A cowboy doll')
        and d.events.rating.between(1, 5).all()
    )
    p = prompts_of(d).head(60)
    assert audit(d, prompts=p).passed.all()
    held = d.test[p.id].indices[np.minimum(d.test[p.id].indptr[:-1], d.test[p.id].nnz - 1)]
    ok = np.diff(d.test[p.id].indptr) > 0
    leaky = p.assign(prompt=p.prompt + np.where(ok, '\n- ' + d.items.title[held].to_numpy(), ''))
    assert audit(d, prompts=leaky).set_index('check')['count'][TITLES] == ok.sum()


def test_half_a_surrogate_pair_in_a_text_is_replaced(tmp_path):
    data = toy_data(20, 40)
    items, users = data.items.astype(object), data.users.astype(object)
    items.loc[0, 'title'], items.loc[1, 'text'], users.loc[0, 'user'] = 'bad \ud800 title', '\udfff', 'u\ud83d'
    odd = RecData(data.train, data.valid, data.test, users=users, items=items)
    assert odd.items.title[0] == 'bad ? title' and odd.items.text[1] == '?' and odd.users.user[0] == 'u?'
    save(odd, tmp_path / 'odd')
    assert load(tmp_path / 'odd').items.title[0] == 'bad ? title'


def test_binary_refuses_what_is_no_number_and_drops_what_adds_up_to_nothing():
    from promax_nb.data.interactions import binary

    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match='the graph holds NaN or infinite'):
            binary(sp.csr_matrix([[1.0, bad]]), 'the graph')
    nothing = sp.coo_matrix(([1.0, -1.0, 0.0, 2.0], ([0, 0, 0, 0], [0, 0, 1, 2])), shape=(1, 3))
    assert binary(nothing).nnz == 1 and binary(nothing)[0, 2] == 1 and nothing.data.tolist() == [1, -1, 0, 2]
