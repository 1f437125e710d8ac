"""Sampling, early stopping, checkpoints, resume after kill -9, honest failures."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from promax_nb.data.bookshop import toy_data
from promax_nb.data.storage import identity
from promax_nb.models import train as train_room
from promax_nb.models.bases import GCCF, MF, LightGCN, SimGCL, attach_part
from promax_nb.models.losses import bpr_loss
from promax_nb.models.objectives import BPR, ProMax, attach_objective
from promax_nb.models.results import load_fit, load_tensors, save_tensors
from promax_nb.models.sameness import content, parts_of
from promax_nb.models.train import PairSampler, TrainConfig, fit, should_stop, tune

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
    assert r.best_score == watched.max() and r.best_epoch == r.history.epoch[watched.idxmax()]
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
loop = train_room._step
train_room._step = lambda *a: (time.sleep(.05), loop(*a))[1]
trained_whole({folder!r})
"""


def trained_whole(folder):
    data = world(m=60, n=50)
    whole = ProMax(profiles(60), profiles(50), sp.random(60, 50, 0.02, random_state=0, format='csr'))
    return fit(LightGCN(data, dim=8), whole, data, QUICK, folder, epochs=25, patience=100)


def child(folder):
    code = CHILD.format(tests=os.path.dirname(__file__), folder=str(folder))
    return subprocess.Popen(
        [sys.executable, '-c', code],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_kill_9_and_resume_end_at_the_same_numbers(tmp_path):
    victim, checkpoint = child(tmp_path / 'a'), tmp_path / 'a' / 'checkpoint.safetensors'
    deadline = time.monotonic() + 60
    while not checkpoint.exists() or load_tensors(checkpoint)[1]['epoch'] < 6:
        assert time.monotonic() < deadline and victim.poll() is None, victim.stdout.read().decode()
        time.sleep(0.02)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert 6 <= load_tensors(checkpoint)[1]['epoch'] < 25
    resumed, straight = trained_whole(tmp_path / 'a'), trained_whole(tmp_path / 'b')
    assert np.array_equal(resumed.users, straight.users) and np.array_equal(resumed.items, straight.items)
    assert resumed.history.bpr.equals(straight.history.bpr) and resumed.best_score == straight.best_score


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
    with pytest.raises(ValueError, match=r'other training setting lr \(0.01 -> 0.5\): use another folder'):
        fit(MF(data, dim=4), BPR(), data, QUICK, tmp_path, lr=0.5)
    with pytest.raises(ValueError, match=r'other objective \(BPR -> ProMax\)'):
        fit(MF(data, dim=4), ProMax(sdr=0, s2dr=0), data, QUICK, tmp_path)
    assert fit(MF(data, dim=4), BPR(), data, QUICK, tmp_path, resume=False, lr=0.5, epochs=3).card['train']['lr'] == 0.5


def added(seed):
    """Forty added interactions, as many with every seed."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(40 * 30, 40, replace=False)
    return sp.csr_matrix((np.ones(40), (cells // 30, cells % 30)), shape=(40, 30))


def moved(vectors, row=3):
    """The same profile vectors but for one number of one row."""
    changed = vectors.copy()
    changed[row, 0] += 0.5
    return changed


USERS, ITEMS = profiles(40), profiles(30)


def hooked(objective):
    """The same objective, with a method replaced."""
    objective.forward = lambda *a: ProMax.forward(objective, *a)
    return objective


BASELINE = dict(
    model=lambda data: LightGCN(data, dim=4),
    objective=lambda: ProMax(USERS, ITEMS, added(0)),
    data=world,
    settings={},
)
CHANGES = {
    'start seed': dict(model=lambda data: LightGCN(data, dim=4, seed=1), settings={'seed': 0}),
    'one start value': dict(model=lambda data: one_start_value(LightGCN(data, dim=4))),
    'a parameter held still': dict(model=lambda data: held_still(LightGCN(data, dim=4))),
    'a hook on gradients': dict(model=lambda data: slowed(LightGCN(data, dim=4))),
    'summed layers': dict(model=lambda data: LightGCN(data, dim=4, sum_layers=(0, 1, 3))),
    'a graph of its own': dict(model=lambda data: LightGCN(world(1), dim=4)),
    'added': dict(objective=lambda: ProMax(USERS, ITEMS, added(1))),
    'weights of added': dict(objective=lambda: ProMax(USERS, ITEMS, added(0) * 2)),
    'a user vector': dict(objective=lambda: ProMax(moved(USERS), ITEMS, added(0))),
    'an item vector': dict(objective=lambda: ProMax(USERS, moved(ITEMS), added(0))),
    'sdr': dict(objective=lambda: ProMax(USERS, ITEMS, added(0), sdr=0.6)),
    'approximate teacher': dict(objective=lambda: ProMax(USERS, ITEMS, added(0), topk=5)),
    'a method': dict(objective=lambda: hooked(ProMax(USERS, ITEMS, added(0)))),
    'training interactions': dict(data=lambda: world(2), model=lambda data: LightGCN(world(), dim=4)),
    'validation': dict(data=lambda: SimpleNamespace(train=world().train, valid=world().test)),
    'sampling seed': dict(settings={'seed': 5}),
    'bf16': dict(settings={'bf16': True}),
    'precision': dict(
        model=lambda data: LightGCN(data, dim=4).double(), objective=lambda: ProMax(sdr=0, added=added(0)).double()
    ),
}
NAMES = {
    'start seed': ['start values of the model (its seed)', 'seed of the model (0 -> 1)'],
    'one start value': ['start values of the model (its seed)'],
    'a parameter held still': ["parameters of the model that are held still (absent -> ['item'])"],
    'a hook on gradients': ['gradient_hooks of the model'],
    'summed layers': ['sum_layers of the model'],
    'a graph of its own': ['interactions of the model', 'graph of the model'],
    'added': ['added interactions'],
    'weights of added': ['added interactions'],
    'a user vector': ['profile vectors of users'],
    'an item vector': ['profile vectors of items'],
    'sdr': ['sdr of the objective (0.5 -> 0.6)'],
    'approximate teacher': ['teacher.topk of the objective (None -> 5)'],
    'a method': ['forward of the objective'],
    'training interactions': ['training interactions'],
    'validation': ['validation interactions'],
    'sampling seed': ['training setting seed (0 -> 5)'],
    'bf16': ['training setting bf16 (False -> True)'],
    'precision': ['start values of the model (its seed)'],
}


def one_start_value(model):
    with torch.no_grad():
        model.item[2, 1] += 1e-3
    return model


def held_still(model):
    model.item.requires_grad_(False)
    return model


def slowed(model):
    model.user.register_hook(lambda gradient: gradient / 2)
    return model


def go(folder, epochs=3, resume=True, **change):
    parts = BASELINE | change
    data = parts['data']()
    return fit(
        parts['model'](data), parts['objective'](), data, QUICK, folder, resume, epochs=epochs, **parts['settings']
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with a finished training."""
    folder = tmp_path_factory.mktemp('trained')
    go(folder)
    return folder


@pytest.mark.parametrize('change', CHANGES)
def test_a_folder_never_hands_out_another_training(trained, change):
    """Whatever decides the numbers is part of what a training is; the refusal names it."""
    with pytest.raises(ValueError) as refused:
        go(trained, **CHANGES[change])
    for name in NAMES[change]:
        assert name in str(refused.value), (name, str(refused.value))


def test_what_decides_nothing_is_no_part(trained):
    """The memory of the teacher's table, where and how often it is written, how long it goes on."""
    same = go(trained)
    again = go(trained, objective=lambda: ProMax(USERS, ITEMS, added(0), memory=0), settings={'checkpoint_seconds': 9})
    assert np.array_equal(same.users, again.users) and same.card['identity'] == again.card['identity']


def test_what_is_computed_along_the_way_is_no_part():
    """Caches of a graph, of a teacher and of an objective fill while training; the parts stay the same."""
    data = world()
    model = LightGCN(data, dim=4, sum_layers=(1, 2), edge_drop=0.3, cold='layer0')
    objective = ProMax(USERS, ITEMS, added(0))
    before = parts_of(model, 'model'), parts_of(objective, 'objective')
    objective(model, *[torch.tensor([1, 2])] * 3)
    model.adj.on(torch.device('cpu'))
    assert objective._second and model.adj._on and 'edge_numbers' in vars(model.adj)
    assert (parts_of(model, 'model'), parts_of(objective, 'objective')) == before


def test_functions_of_a_notebook_are_read(monkeypatch):
    """Jupyter's main module says that it lies among the installed packages; what is written there is one's own."""
    main = type(sys)('__main__')
    main.__file__ = torch.__file__
    monkeypatch.setitem(sys.modules, '__main__', main)
    written = 'def twice(x): return 2 * x\ndef thrice(x): return 3 * x\nclass Own:\n    def go(self): return 2'
    exec(written, main.__dict__)
    one, other = content(main.twice), content(main.thrice)
    assert isinstance(one, list) and identity(one) != identity(other) and isinstance(content(main.Own), list)
    assert content(torch.relu) != content(torch.sigmoid) and isinstance(content(torch.nn.Linear), str)


class Plain:
    """An objective as people write them: no module, a weight, a matrix."""

    def __init__(self, weight=1.0, mask=None):
        self.weight, self.mask = weight, mask

    def __call__(self, model, users, pos, neg):
        return {name: self.weight * value for name, value in BPR()(model, users, pos, neg).items()}


class Learned(torch.nn.Module):
    def __init__(self, weight=1.0, seed=0):
        super().__init__()
        self.inner = torch.nn.Linear(2, 1)
        with torch.no_grad():
            self.inner.weight.fill_(seed)
        self.weight = torch.tensor(weight)  # a plain attribute, not a buffer

    def forward(self, model, users, pos, neg):
        return {'bpr': self.weight * BPR()(model, users, pos, neg)['bpr']}


def closed(weight):
    def objective(model, users, pos, neg):
        return {'bpr': weight * BPR()(model, users, pos, neg)['bpr']}

    return objective


def with_default(model, users, pos, neg, weight=1.0):
    return {'bpr': weight * BPR()(model, users, pos, neg)['bpr']}


class Louder(ProMax):
    factor = 1.0

    def forward(self, *batch):
        return {name: self.factor * value for name, value in super().forward(*batch).items()}


class StillLouder(Louder):
    factor = 2.0


StillLouder.__name__ = 'Louder'

OWN = {
    'plain class': (Plain(1.0), Plain(2.0)),
    'a matrix in it': (Plain(mask=added(0)), Plain(mask=added(1))),
    'a list in it': (Plain(mask=[np.eye(2)]), Plain(mask=[np.eye(2) * 2])),
    'module attribute': (Learned(1.0), Learned(2.0)),
    'parameters': (Learned(seed=0), Learned(seed=1)),
    'closure': (closed(1.0), closed(2.0)),
    'partial': (partial(with_default, weight=1.0), partial(with_default, weight=2.0)),
    'method': (Plain(1.0).__call__, Plain(2.0).__call__),
    'code': (
        lambda m, u, p, n: {'bpr': 1.0 * BPR()(m, u, p, n)['bpr']},
        lambda m, u, p, n: {'bpr': 2.0 * BPR()(m, u, p, n)['bpr']},
    ),
    'attribute of the class': (Louder(sdr=0, s2dr=0), StillLouder(sdr=0, s2dr=0)),
}


@pytest.mark.parametrize('kind', OWN)
def test_objectives_that_people_write_are_known_by_content(kind, tmp_path):
    data = world()
    one, other = OWN[kind]
    first = fit(MF(data, dim=4), one, data, QUICK, tmp_path, epochs=3)
    with pytest.raises(ValueError, match='belongs to a run with other .*objective'):
        fit(MF(data, dim=4), other, data, QUICK, tmp_path, epochs=3)
    again = fit(MF(data, dim=4), one, data, QUICK, tmp_path, epochs=3)
    assert np.array_equal(first.users, again.users)


class OwnBase(MF):
    """A base of one's own, with numbers that no constructor of ours knows."""

    def __init__(self, data, dim=4, scale=1.0):
        super().__init__(data, dim)
        self._scale = np.array([scale])

    def forward(self, adj=None):
        users, items = super().forward(adj)
        return users * float(self._scale[0]), items


def test_bases_that_people_write_are_known_by_content(tmp_path):
    data = world()
    fit(OwnBase(data), BPR(), data, QUICK, tmp_path, epochs=3)
    with pytest.raises(ValueError, match='other _scale of the model'):
        fit(OwnBase(data, scale=3.0), BPR(), data, QUICK, tmp_path, epochs=3)


def test_what_cannot_be_read_is_said_and_has_cures(tmp_path):
    data = world()

    def odd():
        objective = Plain()
        objective.lines = (line for line in 'ab')
        return objective

    with pytest.raises(ValueError, match=r'there is a generator in `objective.lines`.*derived.*Without a folder'):
        fit(MF(data, dim=4), odd(), data, QUICK, tmp_path, epochs=3)
    with pytest.raises(ValueError, match='there is a generator'):
        tune(lambda: MF(data, dim=4), lambda x: odd(), {'x': [1]}, data, QUICK, tmp_path, epochs=3)
    assert fit(MF(data, dim=4), odd(), data, QUICK, epochs=3).card['identity'] is None
    tune(lambda: MF(data, dim=4), lambda x: odd(), {'x': [1]}, data, QUICK, epochs=3)
    known = type('Known', (Plain,), {'derived': ('lines',)})()
    told = type('Told', (Plain,), {'content': lambda self: self.weight})()
    for number, objective in enumerate((known, told)):
        objective.lines = (line for line in 'ab')
        fit(MF(data, dim=4), objective, data, QUICK, tmp_path / str(number), epochs=3)


def test_a_model_that_comes_back_goes_on(tmp_path):
    """In a notebook the same object is trained longer, also after an interruption; a changed one is another."""
    data, model = world(), MF(world(), dim=4)
    fit(model, BPR(), data, QUICK, tmp_path, epochs=6)
    longer = fit(model, BPR(), data, QUICK, tmp_path, epochs=12)
    straight = fit(MF(data, dim=4), BPR(), data, QUICK, epochs=12)
    assert np.array_equal(longer.users, straight.users)
    one_start_value(model)
    with pytest.raises(ValueError, match='other start values'):
        fit(model, BPR(), data, QUICK, tmp_path, epochs=12)
    calls = []

    class Interrupted(Plain):
        derived = ('stop',)
        stop = True

        def __call__(self, *batch):
            calls.append(1)
            if self.stop and len(calls) > 30:
                raise KeyboardInterrupt
            return super().__call__(*batch)

    objective, model = Interrupted(), MF(data, dim=4)
    with pytest.raises(KeyboardInterrupt):
        fit(model, objective, data, QUICK, tmp_path / 'cut', epochs=12)
    objective.stop = False
    resumed = fit(model, objective, data, QUICK, tmp_path / 'cut', epochs=12)
    assert np.array_equal(resumed.users, straight.users)


def test_a_model_that_is_trained_already_does_not_pass_for_a_fresh_one(tmp_path):
    """Its start values are what it brings, not what it set out with elsewhere; the folder it fills is its own."""
    data, model = world(), MF(world(), dim=4)
    fit(model, BPR(), data, QUICK, tmp_path / 'a', epochs=6)
    fit(model, BPR(), data, QUICK, tmp_path / 'b', epochs=6)
    with pytest.raises(ValueError, match='other start values'):
        fit(MF(data, dim=4), BPR(), data, QUICK, tmp_path / 'b', epochs=6)
    model = MF(data, dim=4)
    for resume in (True, False):  # the second time it comes from this very folder, trained, and begins anew
        fit(model, BPR(), data, QUICK, tmp_path / 'c', resume, epochs=6)
    with pytest.raises(ValueError, match='other start values'):
        fit(MF(data, dim=4), BPR(), data, QUICK, tmp_path / 'c', epochs=6)


@pytest.mark.parametrize(
    'first,then,every', [(7, 8, 3), (7, 15, 3), (1, 2, 3), (5, 6, 2), (4, 9, 3), (2, 11, 4), (6, 9, 3)]
)
def test_resume_off_the_grid_equals_the_straight_run(tmp_path, first, then, every):
    """Validations, kept epoch, patience and random numbers are those of a training that never stopped."""
    data = world()

    def run(folder, epochs):
        return fit(
            SimGCL(data, dim=4),
            ProMax(USERS, ITEMS, added(0)),
            data,
            QUICK,
            folder,
            epochs=epochs,
            eval_every=every,
            patience=2,
        )

    part, resumed, straight = run(tmp_path, first), run(tmp_path, then), run(None, then)
    assert part.history['recall@20'].notna().iloc[-1]
    assert resumed.history.drop(columns='seconds').equals(straight.history.drop(columns='seconds'))
    assert (resumed.best_epoch, resumed.best_score) == (straight.best_epoch, straight.best_score)
    for name in ('users', 'items'):
        assert np.array_equal(getattr(resumed, name), getattr(straight, name))
    for name in ('epochs_run', 'steps', 'identity'):
        assert resumed.card[name] == straight.card[name]
    once_more = run(tmp_path, then)
    assert once_more.history.drop(columns='seconds').equals(straight.history.drop(columns='seconds'))
    assert np.array_equal(once_more.users, straight.users) and once_more.best_epoch == straight.best_epoch


def test_fewer_epochs_than_the_folder_holds_are_refused(tmp_path):
    data = world()
    fit(MF(data, dim=4), BPR(), data, QUICK, tmp_path, epochs=6)
    with pytest.raises(ValueError, match='holds 6 epochs of this training, more than epochs=4'):
        fit(MF(data, dim=4), BPR(), data, QUICK, tmp_path, epochs=4)


def test_the_bar_of_an_early_stop_is_full(capsys):
    """A notebook shows a bar that ends before its end in red, as if something had failed."""
    data = world()
    fitted = fit(MF(data, dim=4), BPR(), data, QUICK, epochs=500, eval_every=1, patience=2, progress=True)
    assert len(fitted.history) < 500, 'it was to stop early'
    last = capsys.readouterr().err.strip().splitlines()[-1].split('\r')[-1]
    assert '100%' in last and f'{len(fitted.history)}/{len(fitted.history)}' in last


def test_a_plateau_keeps_the_epoch_that_patience_counts_from(monkeypatch):
    data = world()
    scores = iter([0.1, 0.3, 0.3, 0.2, 0.3, 0.3, 0.3])
    monkeypatch.setattr(train_room, 'evaluate', lambda *a: {'recall@20': next(scores)})
    result = fit(MF(data, dim=4), BPR(), data, QUICK, epochs=20, eval_every=1, patience=4)
    assert result.best_epoch == 2 and result.best_score == 0.3
    assert result.card['epochs_run'] == 6 == result.best_epoch + 4


def test_the_seed_is_given_once():
    """To the model; another for training is used as given, and the card shows both."""
    data = world()
    by_model, both = (fit(MF(data, dim=4, seed=3), BPR(), data, QUICK, epochs=3, **more) for more in ({}, {'seed': 3}))
    assert np.array_equal(by_model.users, both.users) and by_model.card['seed'] == 3
    other = fit(MF(data, dim=4, seed=3), BPR(), data, QUICK, epochs=3, seed=4)
    assert not np.array_equal(other.users, both.users)
    assert (other.card['seed'], other.card['model_settings']['seed'], other.card['train']['seed']) == (4, 3, 4)
    nameless = OwnBase(data)
    del nameless.seed
    assert fit(nameless, BPR(), data, QUICK, epochs=3).card['seed'] == 0


def test_tune_reads_only_its_own_trials(tmp_path, monkeypatch):
    """A trial is known by content: another matrix, grid or vector is trained, the same one is read."""
    data, trained = world(), []
    epoch = train_room._train_epoch
    monkeypatch.setattr(train_room, '_train_epoch', lambda run, *a: (trained.append(id(run)), epoch(run, *a))[1])

    def search(grid, added_seed=0, vectors=USERS, model_seed=0, epochs=3):
        """The table, and how many trials were trained."""
        trained.clear()
        table = tune(
            lambda: MF(data, dim=4, seed=model_seed),
            lambda **choice: ProMax(vectors, ITEMS, added(added_seed), **choice),
            grid,
            data,
            QUICK,
            tmp_path,
            epochs=epochs,
        )
        return table, len(trained) // 3

    grid = {'sdr': [0.1, 1.0]}
    old = tmp_path / 'trial-0' / 'checkpoint.safetensors'  # of 0.1.0: by place
    save_tensors(old, {'x': torch.zeros(1)})
    first, count = search(grid)
    assert count == 2
    again, count = search(grid)
    assert again.equals(first) and count == 0
    for change in (
        {'grid': {'s2dr': [0.2, 1.0]}},
        {'grid': grid, 'added_seed': 1},
        {'grid': grid, 'vectors': moved(USERS)},
        {'grid': grid, 'model_seed': 1},
    ):
        assert search(**change)[1] == 2, change
    wider, count = search({'sdr': [0.1, 0.3, 1.0]})
    assert count == 1 and len(wider) == 3
    assert search(grid, epochs=6)[1] == 2 and load_tensors(old)[0]['x'].tolist() == [0]


def as_first_version(path, card, **change):
    """Rewrite a checkpoint as 0.1.0 had it: settings instead of parts."""
    tensors, facts = load_tensors(path)
    del facts['parts']
    names = ('model', 'model_settings', 'shapes', 'objective', 'train', 'data')
    facts['settings'] = json.loads(json.dumps({name: card[name] for name in names}))
    for name in ('seed', 'cold'):
        facts['settings']['model_settings'].pop(name, None)
    for name in ('users_without_profile', 'items_without_profile'):
        facts['settings']['objective'].get('teacher', {}).pop(name, None)
    facts['settings']['train']['device'] = 'auto'
    save_tensors(path, tensors, facts | change)


def test_checkpoints_of_the_first_version_are_read(tmp_path):
    data = world()

    def run(epochs=6, folder=tmp_path, **more):
        return fit(LightGCN(data, dim=4), ProMax(USERS, ITEMS, added(0)), data, QUICK, folder, epochs=epochs, **more)

    path = tmp_path / 'checkpoint.safetensors'
    first = run()
    as_first_version(path, first.card)
    with pytest.warns(UserWarning, match='written by version 0.1.0, which noted neither start values'):
        assert np.array_equal(run(9).users, run(9, None).users)
    as_first_version(path, first.card)
    with pytest.raises(ValueError, match='belongs to a run with other train:'):
        run(lr=0.5)


def test_the_odd_validation_of_the_first_version_is_undone(tmp_path):
    data = world()

    def run(epochs, folder=tmp_path):
        return fit(MF(data, dim=4), BPR(), data, QUICK, folder, epochs=epochs)

    path = tmp_path / 'checkpoint.safetensors'
    part = run(7)
    rows = part.history.replace({np.nan: None}).to_dict('records')
    rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
    scores = [*load_tensors(path)[1]['scores'], [part.card['steps'], rows[-1]['recall@20']]]
    as_first_version(path, part.card, rows=rows, scores=scores)
    kept = path.read_bytes()
    with pytest.warns(UserWarning, match='0.1.0'):
        resumed, straight = run(9), run(9, None)
    assert resumed.history.drop(columns='seconds').equals(straight.history.drop(columns='seconds'))
    path.write_bytes(kept)
    tensors, facts = load_tensors(path)
    save_tensors(path, tensors, facts | {'best_epoch': 7})
    with pytest.warns(UserWarning, match='0.1.0'), pytest.raises(ValueError, match='between two validations'):
        run(9)
    with pytest.warns(UserWarning, match='0.1.0'):
        assert run(7).card['epochs_run'] == 7


def test_devices_and_their_random_numbers(monkeypatch):
    """What a GPU needs is asked for in small functions; without one they are called with a stand-in."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert train_room.pick_device('auto') == torch.device('cuda') and train_room.pick_device('cpu').type == 'cpu'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert train_room.pick_device('auto').type == 'cpu' and train_room.pick_device('cuda:1').index == 1
    put = []
    monkeypatch.setattr(torch.cuda, 'get_rng_state', lambda device: torch.tensor([device.index], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, 'set_rng_state', lambda state, device: put.append((state.tolist(), device.index)))
    second, cpu = torch.device('cuda:1'), torch.device('cpu')
    states = train_room.random_states(second)
    assert states['cuda_rng'].tolist() == [1] and set(train_room.random_states(cpu)) == {'torch_rng'}
    drawn = torch.rand(3)
    train_room.set_random_states(states, second)
    assert put == [([1], 1)] and torch.equal(torch.rand(3), drawn)
    train_room.set_random_states(states, cpu)
    train_room.set_random_states(train_room.random_states(cpu), second)
    assert len(put) == 1


def test_stored_zeros_are_no_positives():
    train = sp.csr_matrix(np.array([[1.0, 1, 0, 0], [0, 1, 1, 0]]))
    train.data[0] = 0
    users, positives, _ = PairSampler(train).epoch(np.random.default_rng(0))
    assert sorted(zip(users, positives, strict=True)) == [(0, 1), (1, 1), (1, 2)] and train.nnz == 4


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


def test_the_filter_changes_no_triple():
    """The same seed gives the triples that a search through all pairs gave, and never a pair that exists."""
    train = sp.random(120, 90, 0.15, format='csr', random_state=1)
    sampler, rng = PairSampler(train), np.random.default_rng(5)
    users, positives, negatives = sampler.epoch(np.random.default_rng(5))
    pairs = np.argwhere(train.toarray() != 0)
    order = rng.permutation(len(pairs))
    drawn, again = rng.integers(90, size=len(pairs)), np.arange(len(pairs))
    dense = train.toarray() != 0
    while len(again):
        again = again[dense[pairs[order][again, 0], drawn[again]]]
        drawn[again] = rng.integers(90, size=len(again))
    assert (users == pairs[order, 0]).all() and (positives == pairs[order, 1]).all() and (negatives == drawn).all()
    assert users.dtype == negatives.dtype == np.int32


class Waits(TorchDispatchMode):
    """Counts what makes a processor wait for a card: values it reads, and shapes that depend on values."""

    names = ('_local_scalar_dense', 'nonzero', '_unique2', 'repeat_interleave', '_coalesce', 'masked_select')

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.partition('.')[0]
        masks = name in ('index', 'index_put_') and any(x is not None and x.dtype == torch.bool for x in args[1])
        if name in self.names or masks:
            self.found[f'{name} by a mask' if masks else name] += 1
        return function(*args, **(kwargs or {}))


WAITS = {  # base, objective -> what a step waits for; each has its reason in the chapter on training
    ('MF', 'BPR'): {},
    ('LightGCN', 'BPR'): {},
    ('SimGCL', 'BPR'): {'_unique2': 2},
    ('LightGCN', 'exact'): {'_unique2': 3},
    ('LightGCN', 'sampled'): {'_unique2': 5, 'nonzero': 2, '_local_scalar_dense': 1},
}


@pytest.mark.parametrize('base, terms', WAITS)
def test_a_step_waits_for_the_device_where_it_must_and_nowhere_else(base, terms):
    data = toy_data(60, 40)
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(n, 6)).astype(np.float32) for n in data.shape]
    vectors[1][3] = 0  # an item without a profile
    added = sp.random(*data.shape, 0.01, random_state=0, format='csr', dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        reshaped = {'terms': terms, 'anchors': 8, 'columns': 8, 'every': 1}
        objective = BPR() if terms == 'BPR' else ProMax(*vectors, added, **reshaped)
    cold = {'sum_layers': (1, 2), 'cold': 'layer0'} if base != 'MF' else {}
    model = {'MF': MF, 'LightGCN': LightGCN, 'SimGCL': SimGCL}[base](data, dim=4, **cold)
    run = train_room._Run(model, TrainConfig(seed=0, device='cpu'), {})
    batch = [torch.from_numpy(column[:16]).long() for column in PairSampler(data.train).epoch(run.rng)]
    train_room._step(run, objective, *batch)  # tables that are made at the first need
    with Waits() as waits:
        train_room._step(run, objective, *batch)
    assert waits.found == WAITS[base, terms]


# what an objective has to learn ---------------------------------------------------------------------------------------


class Stretched(BPR):
    """BPR of user vectors that a network of its own stretches."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.mlp = torch.nn.Linear(8, 8)

    def forward(self, model, users, pos, neg):
        u, i = model()
        return {'bpr': bpr_loss(self.mlp(u[users]), i[pos], i[neg])}


class Shift(torch.nn.Module):
    """A part with both hooks, and a number to learn."""

    def __init__(self, seed):
        super().__init__()
        self.by = torch.nn.Parameter(torch.full((8,), 0.1 * (1 + seed)))

    def start(self, nodes):
        return nodes + self.by

    def finish(self, u, i):
        return u + self.by, i


class Shifted(BPR):
    """BPR; its part is made in the model that it meets."""

    def __init__(self, seed=0):
        super().__init__()
        self.seed = seed

    def attach(self, model):
        attach_part(model, 'shift', lambda: Shift(self.seed))


OWN_PARTS = {Stretched: 'attached.objective.mlp.weight', Shifted: 'attached.shift.by'}


@pytest.mark.parametrize('objective', OWN_PARTS)
def test_what_an_objective_learns_is_trained_penalised_and_kept(objective, tmp_path):
    data, name = world(), OWN_PARTS[objective]

    def go(epochs=9, folder=None, seed=0, base=MF, **settings):
        return fit(base(data, dim=8), objective(seed), data, QUICK, folder, epochs=epochs, **settings)

    begun = MF(data, dim=8)
    attach_objective(begun, objective())
    before = begun.state_dict()[name]
    straight = go()
    learned = straight.model.state_dict()[name]
    assert not torch.equal(before, learned)
    assert go(reg=10.0).model.state_dict()[name].norm() < learned.norm()
    go(3, tmp_path / 'a')
    resumed = go(9, tmp_path / 'a')
    assert torch.equal(resumed.model.state_dict()[name], learned)
    assert straight.history.drop(columns='seconds').equals(resumed.history.drop(columns='seconds'))
    with pytest.raises(ValueError, match='start values'):
        go(9, tmp_path / 'a', seed=1)
    assert go(seed=1).card['identity'] != straight.card['identity'] == resumed.card['identity']
    straight.save(tmp_path / 'b')
    assert torch.equal(load_tensors(tmp_path / 'b' / 'model.safetensors')[0][name], learned)
    with pytest.raises(ValueError, match='has parts of an objective'):
        go(optimizer='lazy')


def test_an_objective_begins_every_training_anew():
    data = world()
    for objective in (Stretched(), Shifted()):
        first, second = (fit(MF(data, dim=8), objective, data, QUICK, epochs=3) for _ in range(2))
        assert first.card['identity'] == second.card['identity'] and np.array_equal(first.users, second.users)
        pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
        assert all(torch.equal(*pair) and pair[0] is not pair[1] for pair in pairs)


@pytest.mark.parametrize('base', [MF, LightGCN, GCCF, SimGCL])
def test_hooks_change_what_is_read_and_what_is_said(base):
    model = base(world(), dim=8).eval()
    plain = model()
    attach_part(model, 'shift', lambda: Shift(0))
    if base is GCCF:
        model.attached['shift'].finish = lambda u, i: (u, i)
    assert not model.plain and torch.equal(model.layer0(), torch.cat([model.user, model.item]) + 0.1)
    users, items = model()
    assert not torch.allclose(items, plain[1])  # through layer 0
    with torch.no_grad():
        raw = model.forward()
    if base is not GCCF:  # whose vectors are wider than the part
        assert torch.allclose(users, raw[0] + 0.1) and torch.equal(items, raw[1])
    with pytest.raises(ValueError, match='derive it from Recommender'):
        attach_part(torch.nn.Linear(2, 2), 'shift', lambda: Shift(0))
