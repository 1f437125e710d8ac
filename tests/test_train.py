"""Sampling, early stopping, checkpoints, resume after kill -9, honest failures."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from promax_nb.models.bases import GCCF, MF, LightGCN, SimGCL
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.train import (
    PairSampler,
    TrainConfig,
    fit,
    load_fit,
    load_tensors,
    save_tensors,
    should_stop,
    tune,
)

QUICK = TrainConfig(epochs=9, batch=64, lr=0.01, min_steps=0, device='cpu', checkpoint_seconds=0)


def world(seed=0, m=40, n=30):
    part = np.random.default_rng(seed).random((m, n))
    camp = (np.arange(m)[:, None] % 2) == (np.arange(n)[None] % 2)
    return SimpleNamespace(
        **{
            s: sp.csr_matrix((camp & (part >= a) & (part < b)).astype(np.float32))
            for s, a, b in (('train', 0, 0.4), ('valid', 0.4, 0.5), ('test', 0.5, 1))
        }
    )


def profiles(n, noise=0.3):
    return np.random.default_rng(n).normal(size=(n, 4)) * noise + np.eye(4)[np.arange(n) % 2]


@pytest.mark.parametrize('base', [MF, LightGCN, GCCF, SimGCL])
@pytest.mark.parametrize('objective', ['bpr', 'promax'])
def test_every_combination_trains_and_repeats(base, objective):
    data = world()

    def go(seed):
        o = (
            BPR()
            if objective == 'bpr'
            else ProMax(profiles(40), profiles(30), sp.random(40, 30, 0.02, random_state=0, format='csr'))
        )
        return fit(base(data, dim=8, seed=seed), o, data, QUICK, seed=seed)

    a, b, c = go(0), go(0), go(1)
    assert np.array_equal(a.users, b.users) and not np.array_equal(a.users, c.users)
    assert a.history.bpr.iloc[-1] < a.history.bpr.iloc[0]
    assert {'bpr', 'reg', 'recall@20', 'seconds'} <= set(a.history) and (objective == 'bpr') == ('sdr' not in a.history)


def test_sampler_is_uniform_over_what_is_left():
    train = sp.csr_matrix(np.array([[1, 1, 0, 0, 0], [0, 1, 0, 0, 0]], dtype=float))
    s, rng, counts = PairSampler(train), np.random.default_rng(0), np.zeros((2, 5))
    for _ in range(3000):
        u, p, n = s.epoch(rng)
        assert sorted(zip(u, p, strict=True)) == [(0, 0), (0, 1), (1, 1)]
        np.add.at(counts, (u, n), 1)
    assert counts[0, :2].sum() == counts[1, 1] == 0
    assert np.allclose(counts[0, 2:] / 6000, 1 / 3, atol=0.03) and np.allclose(
        counts[1, [0, 2, 3, 4]] / 3000, 1 / 4, atol=0.03
    )


def test_patience_counts_from_min_steps():
    scores = [(10, 0.5)] + [(s, 0.1) for s in range(20, 100, 10)]
    assert should_stop(scores, 3, 0) and should_stop(scores, 3, 60) and not should_stop(scores, 3, 70)
    assert not should_stop([(10, 0.1), (20, 0.2)], 1, 0)


def test_early_stopping_returns_the_best_and_never_reads_test():
    class Trap:  # anyone who touches the test split fails
        def __getattr__(self, name):
            raise AssertionError('training looked at the test split')

    data = world()
    data.test = Trap()
    shown = SimpleNamespace(train=data.train, valid=data.valid)
    r = fit(LightGCN(shown, dim=8), BPR(), shown, QUICK, epochs=60, patience=3, eval_every=1)
    watched = r.history['recall@20']
    assert (
        r.best_score == watched.max() and r.best_epoch == r.history.epoch[watched[watched == watched.max()].index[-1]]
    )
    tune(
        lambda: MF(data, dim=4),
        lambda sdr: ProMax(profiles(40), profiles(30), sdr=sdr, s2dr=0),
        {'sdr': [0.1, 1.0]},
        data,
        QUICK,
        epochs=3,
    )


def test_resume_equals_straight(tmp_path):
    data, extra = world(), sp.random(40, 30, 0.03, random_state=0, format='csr')

    def go(folder, epochs):
        return fit(SimGCL(data, dim=8), ProMax(profiles(40), profiles(30), extra), data, QUICK, folder, epochs=epochs)

    go(tmp_path, 6)
    resumed, straight = go(tmp_path, 15), go(None, 15)
    assert np.array_equal(resumed.users, straight.users) and np.array_equal(resumed.items, straight.items)
    assert resumed.best_epoch == straight.best_epoch and np.allclose(
        resumed.history.bpr, straight.history.bpr, rtol=0, atol=0
    )
    again = go(tmp_path, 15)  # finished: nothing to do, same result
    assert np.array_equal(again.users, straight.users)


CHILD = """
import sys, time
sys.path.insert(0, {tests!r})
from test_train import *
data = world(m=60, n=50)
slow = ProMax(profiles(60), profiles(50), sp.random(60, 50, .02, random_state=0, format='csr'))
plain = slow.forward
slow.forward = lambda *a: (time.sleep({pause}), plain(*a))[1]
r = fit(LightGCN(data, dim=8), slow, data, QUICK, {folder!r}, epochs=60, patience=100)
np.savez({out!r}, users=r.users, items=r.items, bpr=r.history.bpr, best=r.best_score)
"""


def child(folder, out, pause):
    code = CHILD.format(tests=os.path.dirname(__file__), folder=str(folder), out=str(out), pause=pause)
    return subprocess.Popen(
        [sys.executable, '-c', code],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_kill_9_and_resume_end_at_the_same_numbers(tmp_path):
    victim, checkpoint = child(tmp_path / 'a', tmp_path / 'killed.npz', 0.02), tmp_path / 'a' / 'checkpoint.safetensors'
    deadline = time.monotonic() + 60
    while not checkpoint.exists() or load_tensors(checkpoint)[1]['epoch'] < 6:
        assert time.monotonic() < deadline and victim.poll() is None, victim.stdout.read().decode()
        time.sleep(0.02)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    epoch = load_tensors(checkpoint)[1]['epoch']
    assert 6 <= epoch < 60 and not (tmp_path / 'killed.npz').exists()
    for folder, out in (('a', 'resumed.npz'), ('b', 'straight.npz')):
        p = child(tmp_path / folder, tmp_path / out, 0)
        assert p.wait(120) == 0, p.stdout.read().decode()
    resumed, straight = np.load(tmp_path / 'resumed.npz'), np.load(tmp_path / 'straight.npz')
    for k in straight.files:
        assert np.array_equal(resumed[k], straight[k]), k


def test_checkpoints_are_whole_and_harmless(tmp_path):
    f = tmp_path / 'c.safetensors'
    save_tensors(f, {'x': torch.arange(3)}, {'a': 1})
    before = f.read_bytes()
    with pytest.raises(TypeError):
        save_tensors(f, {'x': torch.arange(3)}, {'a': object()})
    assert f.read_bytes() == before and os.listdir(tmp_path) == ['c.safetensors']
    f.write_bytes(before[:20])
    with pytest.raises(ValueError, match='not a readable tensor file'):
        load_tensors(f)


def test_save_and_load(tmp_path):
    data = world()
    r = fit(MF(data, dim=4), BPR(), data, QUICK, epochs=3)
    back = load_fit(r.save(tmp_path / 'run'))
    assert np.array_equal(back.users, r.users) and back.history.equals(r.history) and back.best_score == r.best_score
    assert back.card['train']['seed'] == 0 and back.card['versions']['torch'] == torch.__version__
    with pytest.raises(FileNotFoundError, match='finished training'):
        load_fit(tmp_path)


def test_other_settings_do_not_resume(tmp_path):
    data = world()
    fit(MF(data, dim=4), BPR(), data, QUICK, tmp_path, epochs=3)
    with pytest.raises(ValueError, match='other train'):
        fit(MF(data, dim=4), BPR(), data, QUICK, tmp_path, lr=0.5)
    with pytest.raises(ValueError, match='other objective'):
        fit(MF(data, dim=4), ProMax(sdr=0, s2dr=0), data, QUICK, tmp_path)
    assert fit(MF(data, dim=4), BPR(), data, QUICK, tmp_path, resume=False, lr=0.5, epochs=3).card['train']['lr'] == 0.5


@pytest.mark.parametrize(
    'change,error,message',
    [
        (dict(lr=1e20), FloatingPointError, 'Lower the learning rate'),
        (dict(epochs=0), ValueError, 'epochs=0'),
        (dict(metric='recall'), ValueError, 'recall@20'),
        (dict(reg=-1), ValueError, 'reg'),
        (dict(unknown=1), TypeError, 'unknown'),
    ],
)
def test_bad_settings(change, error, message):
    data = world()
    with pytest.raises(error, match=message):
        fit(MF(data, dim=4), BPR(), data, QUICK, **change)


def test_bad_data():
    data = world()
    with pytest.raises(ValueError, match='validation split is empty'):
        fit(MF(data), BPR(), SimpleNamespace(train=data.train, valid=sp.csr_matrix((40, 30))), QUICK)
    with pytest.raises(ValueError, match='no training interaction'):
        PairSampler(sp.csr_matrix((3, 3)))
    with pytest.raises(ValueError, match='every item'):
        PairSampler(sp.csr_matrix(np.ones((2, 3))))
