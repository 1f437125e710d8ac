"""On a graphics card everything is as it is on the processor; skipped where there is none."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from promax_nb.data.bookshop import toy_data
from promax_nb.models.bases import GCCF, MF, LightGCN, SimGCL
from promax_nb.models.evaluate import evaluate
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.train import fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='no graphics card here')
HOW = dict(batch=256, lr=0.01, eval_every=1, min_steps=0, progress=False, seed=3)


@pytest.fixture(scope='module')
def data():
    return toy_data(120, 80)


def objective(data, name):
    rng = np.random.default_rng(0)
    if name == 'BPR':
        return BPR()
    vectors = [rng.normal(size=(n, 12)).astype(np.float32) for n in data.shape]
    added = sp.random(*data.shape, 0.01, random_state=0, format='csr', dtype=np.float32)
    return ProMax(*vectors, added, sdr=1.0, s2dr=0.1)


def trained(data, base, name, device, folder=None, epochs=4):
    model, how = base(data, dim=16, seed=1), HOW | {'device': device, 'epochs': epochs}
    return fit(model, objective(data, name), data, folder=folder, **how)


@pytest.mark.parametrize('name', ['BPR', 'ProMax'])
@pytest.mark.parametrize('base', [MF, LightGCN, GCCF])
def test_the_card_trains_what_the_processor_trains(data, base, name):
    here, there = (trained(data, base, name, device) for device in ('cpu', 'cuda'))
    for ours, theirs in ((here.users, there.users), (here.items, there.items)):
        assert np.abs(ours - theirs).max() < 2e-3 * np.abs(ours).max()
    assert np.allclose(here.history['recall@20'], there.history['recall@20'], atol=0.02)


@pytest.mark.parametrize('name', ['BPR', 'ProMax'])
def test_noise_of_the_card_is_another_one(data, name):
    found = trained(data, SimGCL, name, 'cuda')
    assert np.isfinite(found.users).all() and found.best_score > 0
    again = trained(data, SimGCL, name, 'cuda')
    assert np.allclose(found.users, again.users, atol=1e-4), 'the same seed is the same training'


@pytest.mark.parametrize('base', [LightGCN, SimGCL])
def test_resumed_on_the_card(data, base, tmp_path):
    trained(data, base, 'ProMax', 'cuda', tmp_path, epochs=2)
    resumed, straight = trained(data, base, 'ProMax', 'cuda', tmp_path), trained(data, base, 'ProMax', 'cuda')
    assert np.allclose(resumed.users, straight.users, atol=1e-4)
    assert np.allclose(resumed.history.bpr, straight.history.bpr, rtol=1e-4)


def test_ranked_on_the_card(data):
    draw = torch.Generator().manual_seed(0)
    tables = [torch.randn(n, 8, generator=draw) for n in data.shape]
    here = evaluate(tuple(tables), data.test, data.train)
    there = evaluate(tuple(table.cuda() for table in tables), data.test, data.train)
    assert here.keys() == there.keys() and all(abs(here[name] - there[name]) < 1e-9 for name in here)
