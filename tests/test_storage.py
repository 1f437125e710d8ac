"""Room data/storage: whole files, claimed folders, the content identity, the one store; under Windows' rules too."""

import ast
import dataclasses
import datetime
import errno
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse as sp

import promax_nb
from promax_nb.data.bookshop import toy_data
from promax_nb.data.saved import load, save
from promax_nb.data.storage import (
    STORE_ID,
    Store,
    claim_folder,
    close_names,
    few,
    file_name,
    identity,
    write_atomic,
    write_json,
)


@pytest.fixture
def windows(monkeypatch):
    "Windows' rules for files: no folder is opened, no file open for reading only is flushed, no open file replaced."
    fcntl = pytest.importorskip('fcntl')
    really_open, really_sync, really_replace = os.open, os.fsync, os.replace
    busy = []

    def opened(path, flags, *a, **k):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        return really_open(path, flags, *a, **k)

    def synced(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, 'Bad file descriptor')
        return really_sync(handle)

    def replaced(source, target):
        if busy:
            busy.pop()
            raise PermissionError(errno.EACCES, 'Access is denied', str(target))
        return really_replace(source, target)

    monkeypatch.setattr(os, 'open', opened)
    monkeypatch.setattr(os, 'fsync', synced)
    monkeypatch.setattr(os, 'replace', replaced)
    return busy


def test_files_are_written_by_windows_rules(windows, tmp_path):
    file = write_json(tmp_path / 'a.json', {'x': 1})
    windows.extend([1, 1])  # somebody reads the file: the third try succeeds
    write_json(file, {'x': 2})
    assert json.loads(file.read_text()) == {'x': 2} and not windows
    data = toy_data(20, 40)
    save(data, tmp_path / 'saved')
    save(data, tmp_path / 'saved')
    assert load(tmp_path / 'saved').hash() == data.hash()


def test_a_file_that_stays_open_is_a_sentence(windows, tmp_path, monkeypatch):
    from promax_nb.data import storage

    windows.extend([1] * 1000)
    (tmp_path / 'a').write_text('old')
    (tmp_path / 'b').write_text('new')
    with pytest.raises(PermissionError, match='a cannot be replaced: close the program'):
        storage.replace_file(tmp_path / 'b', tmp_path / 'a', seconds=0.1)


def test_long_names_and_failed_writes(tmp_path):
    name = 'n' * 250
    assert write_atomic(tmp_path / name, lambda p: open(p, 'w').close()).name == name
    with pytest.raises(ZeroDivisionError):
        write_atomic(tmp_path / name, lambda p: 1 / 0)
    assert [f.name for f in tmp_path.iterdir()] == [name]


def test_names_of_files_fit_every_system():
    names = ['CON', 'con', 'aux.txt', 'COM1', 'a:b', 'a?b', 'a/b', 'a\\b', ' a', 'a ', 'a.', 'A', 'a', 'Ä', 'ä', '']
    names += ['..', '日本', 'x' * 300, 'x' * 301]
    safe = [file_name(n) for n in names]
    assert len(set(safe)) == len(names) == len({s.lower() for s in safe})
    assert all(s and set(s) <= set('abcdefghijklmnopqrstuvwxyz0123456789._-') and len(s) < 80 for s in safe)
    assert not {s.split('.')[0] for s in safe} & {'con', 'prn', 'aux', 'nul', 'com1'}
    assert not any(s[0] in '. ' or s[-1] in '. ' for s in safe) and file_name('base-0') == 'base-0'


def test_claim_folder(tmp_path):
    claim_folder(str(tmp_path / 'run'), {'seed': 0})
    claim_folder(tmp_path / 'run', {'seed': 0})
    for settings, sentence in (({'seed': 1}, r'seed \(0 -> 1\)'),):
        with pytest.raises(ValueError, match=sentence):
            claim_folder(tmp_path / 'run', settings)
    with pytest.raises(ValueError, match='not a run folder'):
        claim_folder(tmp_path, {})
    (tmp_path / 'f').write_text('')
    with pytest.raises(ValueError, match='is a file'):
        claim_folder(tmp_path / 'f', {})


def test_few_and_close_names():
    assert few([]) == '' and few([1, 2]) == '1, 2' and few(range(9), 3) == '0, 1, 2 and 6 more'
    assert len(few(['x' * 500])) == 60
    assert close_names('Timestmap', ['user', 'timestamp']) == ['timestamp'] and close_names('q', ['user']) == []


# ---- identity


def test_plain_values_keep_the_keys_of_0_1_0():
    for parts in (
        ['m', 'p', {'temperature': 0.7, 'stop': None}, None],
        ['m', 'ü\ud800', {'logit_bias': {50256: -100, 9: 1}}, 3],
        [[1, 2.5, True], {'b': {'y': 1, 'x': [None]}, 'a': 'é'}],
    ):
        old = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        assert identity(*parts) == old[:32] and identity(*parts, length=12) == old[:12]


@dataclasses.dataclass
class Options:
    rate: float = 0.1
    names: tuple = ('a',)


@dataclasses.dataclass
class Choices:
    rate: float = 0.1
    names: tuple = ('a',)


A = np.arange(6, dtype=np.float32).reshape(2, 3)
LAYER = torch.nn.Linear(2, 2)
DIFFERENT = [
    *(A, A + 1e-6, A.astype(np.float64), A.reshape(3, 2), A.ravel(), A[:1], A[:0], np.zeros((0, 2)), np.array(1.0)),
    *(np.array(['a', 'bc']), np.array(['ab', 'c']), np.array(['a', None], object), np.array([True]), np.array([1])),
    *(np.array(['2024-01-01'], 'M8[ns]'), np.datetime64('2024-01-01'), np.timedelta64(1, 's'), np.float32(0.1), 0.1),
    *(sp.csr_matrix(A), sp.csr_matrix(A + 0.5), sp.csr_matrix(A.T), sp.csr_matrix((2, 3)), sp.csr_matrix((3, 2))),
    *(torch.tensor(A), torch.tensor(A, dtype=torch.bfloat16), torch.tensor(A).to_sparse(), torch.tensor(1.0)),
    *(LAYER, torch.nn.Linear(2, 2), torch.nn.Dropout(0.1), torch.nn.Dropout(0.2), LAYER.state_dict()),
    *(Options(), Options(0.2), Options(names=('a', 'b')), Choices(), {'rate': 0.1, 'names': ['a']}),
    *({1, 2}, {1, 3}, {'1', '2'}, frozenset(), [1, 2], b'ab', b'ba', 'ab'),
    *(None, True, 'True', 1.5, '1.5', [], {}, [[]]),
    *(datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1, 12), pd.Timestamp('2024-01-01 12:00:01'), pd.NaT),
    *(pd.DataFrame({'a': [1]}), pd.DataFrame({'b': [1]}), pd.DataFrame({'a': [1.0]}), pd.DataFrame({'a': ['1']})),
    *(pd.DataFrame({'a': [1]}, index=[5]), pd.DataFrame({'a': [1], 'c': [2]}), pd.DataFrame({'a': [[1, 2]]})),
    *(pd.Series([1, 2], name='x'), pd.Series([1, 3], name='x'), pd.Index(['a', 'b']), pd.Categorical(['b', 'a'])),
    *({(0, 1): 1}, {(1, 0): 1}, {1: 'x', 'a': 'y'}, {None: 1, 'a': 2}, float('nan'), float('inf'), 1 + 2j, range(3)),
]


def test_different_content_is_a_different_identity():
    keys = [identity(value) for value in DIFFERENT]
    twice = [i for i, key in enumerate(keys) if key in keys[:i]]
    assert not twice, [DIFFERENT[i] for i in twice]
    assert keys == [identity(value) for value in DIFFERENT]
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)
    nested = [identity({'x': [value]}) for value in DIFFERENT]
    assert len(set(nested)) == len(nested)


@pytest.mark.parametrize(
    'one, other',
    [
        (A, np.asfortranarray(A)),
        (A, A.astype('>f4')),
        (A, np.arange(12, dtype=np.float32).reshape(2, 6)[:, :3] * 0 + A),
        (sp.csr_matrix(A), sp.coo_matrix(A)),
        (sp.csr_matrix(A), sp.csc_array(A)),
        (sp.csr_matrix(([0.0, 1.0], ([0, 0], [0, 1])), shape=(2, 2)), sp.csr_matrix(([1.0], ([0], [1])), shape=(2, 2))),
        (torch.tensor(A), torch.tensor(A).t().contiguous().t()),
        (torch.tensor(A), torch.tensor(A, requires_grad=True)),
        (torch.tensor(A), torch.tensor(np.tile(A, (1, 2)))[:, :3]),
        ({'a': 1, 'b': 2}, {'b': 2, 'a': 1}),
        ({'seed': np.int64(3), 'rate': np.float64(0.5)}, {'seed': 3, 'rate': 0.5}),
        ({np.int64(1): 'x'}, {1: 'x'}),
        ((1, 2), [1, 2]),
        ({3, 1, 2}, {2, 3, 1}),
        (pd.DataFrame({'a': ['x', None]}), pd.DataFrame({'a': ['x', None]}, dtype='string')),
        (pd.DataFrame({'a': ['x', 'y']}), pd.DataFrame({'a': ['x', 'y']}).astype('category')),
        (pd.DataFrame({'a': [[1, 2]]}), pd.DataFrame({'a': [np.array([1, 2])]})),
        (LAYER, torch.nn.Linear(2, 2)),
    ],
)
def test_the_same_content_is_the_same_identity(one, other):
    if isinstance(other, torch.nn.Module):
        other.load_state_dict(LAYER.state_dict())
    assert identity(one) == identity(other)


def test_one_number_in_a_module_counts():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    seen = {identity(model)}
    with torch.no_grad():
        model[0].weight[1, 1] += 1e-6
    seen.add(identity(model))
    model[1].running_mean[0] += 1e-6
    seen.add(identity(model))
    model[1].eps = 1e-3
    seen.add(identity(model))
    model.eval()
    assert len(seen) == 4 and identity(model) in seen


def test_what_cannot_be_read_is_refused():
    loop = []
    loop.append(loop)
    handle = open(os.devnull)
    for value in (object(), lambda: 0, print, dict, iter([]), handle, np.array([object()]), [len], {'a': len}):
        with pytest.raises(ValueError, match='content cannot be read'):
            identity(value)
    with pytest.raises(ValueError, match='contains itself'):
        identity(loop)


def test_identity_is_the_same_in_another_process():
    code = "from promax_nb.data.storage import identity; print(identity({'a', 'b', 'c'}, {'x': {'p', 'q'}}))"
    piped = dict(capture_output=True, text=True)
    seen = set()
    for seed in '123':
        process = subprocess.run([sys.executable, '-c', code], env=os.environ | {'PYTHONHASHSEED': seed}, **piped)
        seen.add(process.stdout)
    assert len(seen) == 1 and seen != {''}


def test_identity_of_data(tmp_path):
    data = toy_data(30, 60)
    key = identity(data)
    assert key == data.identity() == identity(load(save(data, tmp_path / 'd')))
    data.name = 'another name'
    assert identity(data) == key
    texts = data.items['text'].copy()
    data.items.loc[3, 'text'] += '.'
    assert identity(data) != key
    data.items['text'] = texts
    assert identity(data) == key
    data.extras['truth']['user_weights'][0, 0] += 1
    assert identity(data) != key


def test_hash_of_data_follows_the_matrices():
    data, other = toy_data(30, 60), toy_data(30, 60, seed=1)
    first = data.hash()
    data.train, data.valid, data.test = other.train, other.valid, other.test
    assert data.hash() == other.hash() != first


# ---- store


def test_store_keeps_finds_and_tells(tmp_path):
    with Store(tmp_path / 'sub' / 's.db') as store:
        store.table('answers', 'key text primary key, answer text not null').put('answers', [('a', 'x'), ('b', 'y')])
        store.put('answers', [('b', 'z'), ('c', 'w')])
        assert store.find('answers', ['c', 'b', 'q'], ['answer']) == {'b': ('y',), 'c': ('w',)}
        store.put('answers', [('b', 'z')], replace=True)
        store.put('answers', [])
        assert store.find('answers', ['b'], ['answer']) == {'b': ('z',)}
        assert sorted(store.frame('answers').answer) == ['w', 'x', 'z']
        many = [f'k{i}' for i in range(2000)]
        store.put('answers', [(k, k) for k in many])
        assert len(store.find('answers', many, ['answer'])) == 2000
    con = sqlite3.connect(tmp_path / 'sub' / 's.db')
    assert con.execute('pragma application_id').fetchone() == (STORE_ID,)
    assert con.execute('pragma journal_mode').fetchone() == ('wal',)
    con.close()


def test_commit_is_whole_or_nothing(tmp_path):
    with Store(tmp_path / 's.db') as store:
        store.table('a', 'key text primary key').table('b', 'key text primary key')
        with pytest.raises(KeyError), store.commit():
            store.put('a', [('1',)])
            raise KeyError
        with store.commit():
            store.put('a', [('2',)])
            store.put('b', [('2',)])
        assert store.frame('a').key.tolist() == store.frame('b').key.tolist() == ['2']


def test_threads_and_processes_share_a_store(tmp_path):
    path = tmp_path / 's.db'
    with Store(path) as store:
        store.table('t', 'key text primary key, n integer')
        code = (
            'import sys; from promax_nb.data.storage import Store\n'
            'with Store(sys.argv[1]) as s:\n'
            '    s.table("t", "key text primary key, n integer")\n'
            '    [s.put("t", [(f"p{sys.argv[2]}-{i}", i)]) for i in range(20)]'
        )
        others = [subprocess.Popen([sys.executable, '-c', code, str(path), str(p)]) for p in range(2)]

        def fill(j):
            for i in range(20):
                store.put('t', [(f't{j}-{i}', i)])

        threads = [threading.Thread(target=fill, args=(j,)) for j in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert [p.wait() for p in others] == [0, 0]
        assert len(store.frame('t')) == 120


def test_older_tables_get_the_new_columns(tmp_path):
    with Store(tmp_path / 's.db') as store:
        store.table('t', 'key text primary key, old text not null').put('t', [('a', 'x')])
    with Store(tmp_path / 's.db') as store:
        store.table('t', 'key text primary key, old text not null, new real')
        store.put('t', [{'key': 'b', 'old': 'y', 'new': 1.5}])
        assert store.find('t', ['a', 'b'], ['old', 'new']) == {'a': ('x', None), 'b': ('y', 1.5)}


def test_vectors_of_0_1_0_open_and_are_marked(tmp_path):
    path = tmp_path / 'vectors.sqlite'
    columns = 'model text, text text, vector blob not null, primary key (model, text)'
    con = sqlite3.connect(path)
    with con:
        con.execute(f'create table promax_vectors ({columns}) without rowid')
        con.executemany('insert into promax_vectors values (?, ?, ?)', [('m', 'k', b'1234'), ('n', 'k', b'5678')])
    con.close()
    with Store(path) as store:
        store.table('promax_vectors', columns)
        assert store.find('promax_vectors', ['k'], ['vector'], key='text', where={'model': 'm'}) == {'k': (b'1234',)}
        assert store.con.execute('pragma application_id').fetchone() == (STORE_ID,)
        assert store.frame('promax_vectors', order='model desc').model.tolist() == ['n', 'm']
        assert len(store.frame('promax_vectors')) == 2


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / 'notes.txt').write_text('shopping')
    con = sqlite3.connect(tmp_path / 'places.sqlite')
    with con:
        con.execute('create table moz_places (id)')
    con.close()
    con = sqlite3.connect(tmp_path / 'mixed.sqlite')
    with con:
        con.execute('create table promax_vectors (id)')
        con.execute('create table other (id)')
    con.close()
    (tmp_path / 'broken.db').write_bytes(b'SQLite format 3\0' + b'x' * 5000)
    for name, sentence in (
        ('notes.txt', 'is not a store'),
        ('places.sqlite', 'database of something else'),
        ('mixed.sqlite', 'database of something else'),
        ('broken.db', 'cannot be used'),
    ):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match=sentence):
            Store(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(ValueError, match='is a folder'):
        Store(tmp_path)
    with pytest.raises(FileNotFoundError, match='no store'):
        Store(tmp_path / 'absent.db', create=False)
    assert not (tmp_path / 'absent.db').exists()


def test_a_full_disk_is_a_sentence(tmp_path):
    with Store(tmp_path / 's.db') as store:
        store.table('t', 'key text primary key, value blob').put('t', [('a', b'x')])
        store.con.execute('pragma max_page_count = 4')
        with pytest.raises(RuntimeError, match='cannot be written.*what was stored before is safe'):
            store.put('t', [('b', b'x' * 10**6)])
        assert store.find('t', ['a', 'b'], ['key']) == {'a': ('a',)}


# ---- one room that touches files as a system wants it


ROOMS = sorted(p for p in Path(promax_nb.__file__).parent.rglob('*.py') if p.name != '_modidx.py')
OF_STORAGE = {
    'open',
    'fsync',
    'replace',
    'rename',
    'renames',
    'link',
    'symlink',
    'chmod',
    'chown',
    'fork',
    'getuid',
    'mkfifo',
}
POSIX_ONLY = {'fcntl', 'grp', 'posix', 'pty', 'pwd', 'resource', 'termios'}


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Call):
            yield node, {keyword.arg for keyword in node.keywords}


@pytest.mark.parametrize('path', ROOMS, ids=lambda p: p.stem)
def test_no_room_relies_on_one_system(path):
    found = []
    for call, named in calls(path):
        function = call.func
        name = getattr(function, 'attr', getattr(function, 'id', ''))
        of_os = isinstance(function, ast.Attribute) and ast.unparse(function.value) == 'os'
        if of_os and name in OF_STORAGE and ast.unparse(call.args[0]) != 'os.devnull':
            found += [f'{call.lineno}: os.{name}: data.storage has it'] if path.stem != 'storage' else []
        text = name in ('read_text', 'write_text') or (isinstance(function, ast.Name) and name == 'open')
        binary = any(isinstance(arg, ast.Constant) and 'b' in str(arg.value) for arg in call.args[1:2])
        if text and not binary and 'encoding' not in named:
            found.append(f'{call.lineno}: {name} without an encoding')
    tree = ast.parse(path.read_text(encoding='utf-8'))
    guarded = {id(node) for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}
    for node in ast.walk(tree):
        modules = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
        if modules & POSIX_ONLY and id(node) not in guarded:
            found.append(f'{node.lineno}: {modules} is not there on Windows')
    assert not found
