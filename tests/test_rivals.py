"""Rivals train, keep the contracts, and compute what their formulas say; controls keep what they promise."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from test_contributing import recipe, run_the_contract

from promax_nb.data.bookshop import toy_data
from promax_nb.models.bases import SGL, LightGCN
from promax_nb.models.contenders import CONTENDERS, contender
from promax_nb.models.controls import random_added, svd_vectors
from promax_nb.models.evaluate import evaluate
from promax_nb.models.objectives import BPR, attach_objective
from promax_nb.models.rival_bases import AlphaRec, AttributeGCN
from promax_nb.models.rivals import (
    KAR,
    AddedPositives,
    Distilled,
    ProEx,
    RLMRecCon,
    RLMRecGen,
    SampledSoftmax,
)
from promax_nb.models.scorers import as_scorer
from promax_nb.models.train import fit
from promax_nb.models.variants import FadingProMax, ItemProMax, TrustedProMax
from promax_nb.recommend.layers import layers_of
from promax_nb.retrieval.embed import encode
from promax_nb.testing import check_base, check_objective, toy_world

QUICK = dict(batch=256, lr=0.01, device='cpu', progress=False)


def vectors(data, width=6):
    rng = np.random.default_rng(7)
    su, si = (rng.normal(size=(n, width)).astype(np.float32) for n in data.shape)
    su[3], si[5] = 0, 0  # nobody wrote these
    return su, si


OBJECTIVES = {
    'distilled': lambda data: Distilled(*vectors(data), k=4),
    'added': lambda data: AddedPositives(data.valid),
    'con': lambda data: RLMRecCon(*vectors(data)),
    'gen': lambda data: RLMRecGen(*vectors(data)),
    'kar': lambda data: KAR(*vectors(data), own=2, hidden=8),
    'proex': lambda data: ProEx([vectors(data), vectors(data)]),
    'proex one': lambda data: ProEx([vectors(data)]),
    'softmax': lambda data: SampledSoftmax(k=12, people=True),
}


@pytest.mark.parametrize('name', OBJECTIVES)
def test_rivals_keep_the_contract(name):
    check_objective(OBJECTIVES[name])


def alpha(data, seed):
    return AlphaRec(data, vectors(data)[1], dim=4, seed=seed)


def attributes(data, seed):
    sides = (sp.random(n, 5, 0.3, random_state=n, format='csr') for n in data.shape)
    return AttributeGCN(data, *sides, dim=4, layers=2, seed=seed)


def sgl(data, seed):
    return SGL(data, dim=4, layers=2, seed=seed)


@pytest.mark.parametrize('base', [alpha, attributes, sgl])
def test_bases_of_rivals_keep_the_contract(base):
    check_base(base)


def nce(a, b, tau):
    """Mean of -log softmax of the diagonal, in plain steps."""
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / tau
    return -torch.log_softmax(logits, 1).diagonal().mean()


def test_con_is_the_sum_over_the_batch_with_its_repeats():
    data = toy_world()
    su, si = (np.random.default_rng(n).normal(size=(n, 6)).astype(np.float32) for n in data.shape)
    model, objective = LightGCN(data, dim=4), RLMRecCon(su, si, weight=1.0)
    attach_objective(model, objective)
    users, pos, neg = (torch.tensor(ids) for ids in ([0, 1, 1, 7], [2, 2, 5, 2], [8, 9, 8, 1]))
    u, i = model()
    network = model.attached['rlmrec_con']
    table_u, table_i = network(torch.from_numpy(su)), network(torch.from_numpy(si))
    logits = F.normalize(u[users], dim=1) @ F.normalize(table_u, dim=1).T / 0.2
    expected = -torch.log_softmax(logits, 1)[torch.arange(4), users].mean()
    expected = expected + nce(i[pos], table_i[pos], 0.2) + nce(i[neg], table_i[neg], 0.2)
    assert torch.allclose(objective(model, users, pos, neg)['con'], expected, atol=1e-5)


def test_hidden_nodes_are_hidden_while_training_alone():
    data = toy_world()
    model, objective = LightGCN(data, dim=4), OBJECTIVES['gen'](data)
    attach_objective(model, objective)
    part = model.attached['rlmrec_gen']
    rows = part.draw(sum(data.shape), 0.2, torch.device('cpu'))
    assert len(rows) == int(0.2 * sum(data.shape)) and not model.layer0()[rows].any() and part.token.requires_grad
    assert torch.equal(model.eval().layer0(), torch.cat([model.user, model.item]))


def test_proex_predicts_with_the_mean_of_its_profiles():
    data = toy_world()
    su, si = vectors(data)
    result = fit(LightGCN(data, dim=4), ProEx([(su, si), (2 * su, si)]), data, epochs=1, **QUICK)
    model, part = result.model, result.model.attached['proex']
    model.train()
    e = model()[0]
    assert np.allclose(result.users, (e + part.translated('su').mean(0)).detach(), atol=1e-6)
    assert layers_of(result, as_scorer(result), data.train) == {}  # no sum over the history: told as going along
    with pytest.raises(ValueError, match='has no variance'):
        ProEx([(su, si), (su, si)], environments=1)


def test_sampled_softmax_never_draws_what_was_read():
    data = toy_world()
    rows = data.train[:4].toarray() > 0
    everything = sp.csr_matrix(np.vstack([~rows[:1], rows[1:]]).astype(np.float32))  # user 0 has all but their own
    model = LightGCN(everything, dim=4)
    users, pos = torch.zeros(3, dtype=torch.long), torch.tensor(np.flatnonzero(~rows[0])[:3])
    loss = SampledSoftmax(k=200)(model, users, pos, pos)['softmax']
    scores = (model()[0][:1] @ model()[1].T / 0.15)[0]
    free = scores[torch.from_numpy(rows[0])]
    most = torch.logsumexp(torch.stack([scores[pos], *[free.max().expand(3)] * 200]), 0) - scores[pos]
    assert loss <= most.mean() + 1e-5


@pytest.mark.parametrize('name', CONTENDERS)
def test_every_contender_trains(name):
    data, (su, si) = toy_world(), vectors(toy_world())
    genres = sp.random(data.shape[1], 5, 0.3, random_state=1, format='csr')
    given = {'more': [(su[::-1].copy(), si)], 'attributes': (data.train @ genres > 1, genres), 'added': data.valid}
    method = CONTENDERS[name]
    needs = {need: given[need] for need in method.needs}
    if 'edges' in name or 'added' in name or 'ProMax' in name:
        needs['added'] = given['added']
    assert len(method.trials) == 6 or name == 'attributes as nodes' and len(method.trials) == 3
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        model, objective = contender(name, data, su, si, seed=2, dim=4, **method.trials[0], **needs)
    history = fit(model, objective, data, epochs=3, **QUICK).history
    term = 'bpr' if 'bpr' in history else 'softmax'
    assert history[term].iloc[-1] < history[term].iloc[0]
    if method.needs:
        with pytest.raises(ValueError, match='pass it as a setting'):
            contender(name, data, su, si, seed=2)


def test_svd_vectors_find_what_is_held_out():
    data = toy_data(120, 60)
    users, items = svd_vectors(data.train, 8)
    again = svd_vectors(data.train, 8)
    chance = data.test.nnz / data.test.shape[0] / data.shape[1]
    assert users.shape == (120, 8) and np.array_equal(users, again[0])
    assert evaluate((users, items), data.test, data.train)['recall@20'] > 20 / data.shape[1] > chance


@pytest.mark.parametrize('how', ['uniform', 'popular'])
def test_random_edges_are_as_many_and_new(how):
    data = toy_data(80, 50)
    added = sp.random(80, 50, 0.06, random_state=0, format='csr')
    added = sp.csr_matrix(added.multiply(added.indices.max() >= 0) - added.multiply(data.train))
    added.eliminate_zeros()
    chance = random_added(added, data.train, how, seed=3)
    assert (np.diff(chance.indptr) == np.diff(added.indptr)).all() and not chance.multiply(data.train).nnz
    assert (chance != random_added(added, data.train, how, seed=3)).nnz == 0 and (chance != added).nnz
    often = np.corrcoef(np.bincount(chance.indices, minlength=50), np.bincount(added.indices, minlength=50))[0, 1]
    assert how == 'uniform' or often > 0.3
    with pytest.raises(ValueError, match="use 'uniform' or 'popular'"):
        random_added(added, data.train, 'chance')


def test_a_rival_in_one_cell():
    space = {}
    exec(recipe('Add a rival in one cell'), space)
    try:
        run_the_contract('Add a rival in one cell', space)
        data = toy_world()
        model, objective = contender('Drawn', data, *vectors(data), seed=1, dim=4, weight=1.0)
        result = fit(model, objective, data, epochs=6, **QUICK)
        assert result.history.drawn.iloc[-1] < result.history.drawn.iloc[0]
        assert 'attached.drawn.0.weight' in result.model.state_dict()
    finally:
        del CONTENDERS['Drawn']


def test_vectors_of_others_are_refused():
    data = toy_world()
    su, si = vectors(data)
    with pytest.raises(ValueError, match='one vector per id'):
        fit(LightGCN(data, dim=4), RLMRecCon(su[1:], si), data, epochs=1, **QUICK)
    with pytest.raises(ValueError, match='is no contender'):
        contender('nobody', data, su, si, seed=0)
    assert isinstance(contender('base', data, su, si, seed=0)[1], BPR)


def test_trust_weighs_users_and_needs_one_weight_each():
    data = toy_world()
    draws = np.random.default_rng(2)
    su, si = (draws.normal(size=(n, 6)).astype(np.float32) for n in data.shape)
    trust = np.zeros(len(su))
    trust[3] = 0.5
    model = LightGCN(data, dim=6, seed=1)
    batch = [torch.tensor(ids) for ids in ([3, 3, 4], [0, 1, 2], [3, 4, 5])]
    how = dict(trust=trust, sdr=1.0, s2dr=0.0)
    ours = TrustedProMax(su, si, **how)(model, *batch)['sdr'].detach()
    sampled = TrustedProMax(su, si, **how, terms='sampled', every=1)(model, *batch)['sdr'].detach()
    u, i = (F.normalize(table.detach(), dim=1) for table in model())
    teacher = torch.softmax(F.normalize(torch.tensor(su[3]), dim=0) @ F.normalize(torch.tensor(si), dim=1).T / 0.2, 0)
    want = -0.5 * (teacher * torch.log_softmax(u[3] @ i.T / 0.2, 0)).sum() / 2  # a mean over two users
    assert float(ours) == pytest.approx(float(want), rel=1e-5)
    assert float(sampled) == pytest.approx(float(want), rel=1e-5), 'all columns are there: the estimate is exact'
    with pytest.raises(ValueError, match='one weight for each'):
        TrustedProMax(su, si, trust=trust[1:], s2dr=0.0)


def test_what_fades_goes_on_where_it_was(tmp_path):
    """The count of steps is kept: half a training and the rest is the whole."""
    data = toy_world()
    su, si = vectors(data)

    def made():
        return LightGCN(data, dim=6, seed=1), FadingProMax(su, si, over=9, sdr=1.0, s2dr=0.0)

    how = QUICK | {'batch': 64, 'eval_every': 1}
    whole = fit(*made(), data, epochs=6, **how)
    fit(*made(), data, epochs=2, folder=tmp_path, **how)
    rest = fit(*made(), data, epochs=6, folder=tmp_path, **how)
    assert np.array_equal(whole.users, rest.users) and whole.history.sdr.equals(rest.history.sdr)
    assert whole.history.sdr.iloc[0] > 0 and whole.history.sdr.iloc[-1] == 0


def test_items_are_reshaped_after_their_texts():
    data = toy_world()
    draws = np.random.default_rng(2)
    su, si = (draws.normal(size=(n, 6)).astype(np.float32) for n in data.shape)
    model = LightGCN(data, dim=6, seed=1)
    batch = [torch.tensor(ids) for ids in ([0, 1], [2, 2], [3, 4])]
    terms = ItemProMax(su, si, sdr=0.5, s2dr=0.0, items=0.3)(model, *batch)
    _, i = (F.normalize(table.detach(), dim=1) for table in model())
    text = F.normalize(torch.tensor(si), dim=1)
    p = torch.softmax(text[2] @ text.T / 0.2, 0)
    sharp = 1 + (p * p.log()).sum() / np.log(len(p))
    want = -0.3 * max(float(sharp), 0.1) * (p * torch.log_softmax(i[2] @ i.T / 0.2, 0)).sum()
    assert float(terms['items'].detach()) == pytest.approx(float(want), rel=1e-4)


def test_the_fair_table_in_miniature(tmp_path, monkeypatch):
    """Trials, seeds, a kill, the table: the same numbers, and the row says when test was first read."""
    root = Path(__file__).resolve().parent.parent / 'benchmarks'
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.setenv('PYTHONPATH', f'{root}:{root.parent}')
    import controls
    import fair

    monkeypatch.setattr(controls, 'encode', lambda texts, **how: encode(texts, 'static', empty='zero'))
    words = '--parts bookshop --only LLM-ESR --seeds 1 --trials 2 --epochs 3 --min-steps 0'.split()
    fair.main([str(tmp_path), *words, '--prepare'])
    assert (tmp_path / 'prepared' / 'bookshop-0-8.npz').is_file()
    fair.main([str(tmp_path), *words])
    files = sorted((tmp_path / 'bookshop-0-LightGCN-8').glob('*.json'))
    kept = {file.stem: json.loads(file.read_text()) for file in files}
    seeds = [name for name in kept if name.endswith('seed-1')]
    assert len(kept) == 6 and len(seeds) == 2
    assert all(('test' in facts) == ('test_first_read' in facts) == (name in seeds) for name, facts in kept.items())
    rival = next(name for name in seeds if name.startswith('LLM-ESR'))
    (tmp_path / 'bookshop-0-LightGCN-8' / f'{rival}.json').unlink()
    fair.main([str(tmp_path), *words])
    again = json.loads((tmp_path / 'bookshop-0-LightGCN-8' / f'{rival}.json').read_text())
    assert again['test'] == kept[rival]['test'] and again['identity'] == kept[rival]['identity']
    fair.main([str(tmp_path), *words, '--collect', str(tmp_path / 'table.json')])
    table = json.loads((tmp_path / 'table.json').read_text())['bookshop-0-LightGCN-8']
    assert set(table['methods']) == {'base', 'LLM-ESR'}
    row = table['against base']['LLM-ESR']['ndcg@20']
    difference = np.mean(table['methods']['LLM-ESR']['ndcg@20']) - np.mean(table['methods']['base']['ndcg@20'])
    assert row['difference'] == pytest.approx(difference, abs=1e-6) and row['low'] <= row['difference'] <= row['high']
