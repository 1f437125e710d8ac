"""What a run serves: the folder to ship, the lists of everybody, the final training."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from old import make

from promax_nb.cli import main
from promax_nb.data.bookshop import toy_data
from promax_nb.data.saved import load
from promax_nb.models.bases import MF, LightGCN
from promax_nb.models.closed import made_line
from promax_nb.models.final import all_events, fit_final
from promax_nb.models.objectives import BPR
from promax_nb.models.reshape import reshape
from promax_nb.models.results import load_fit
from promax_nb.models.scorers import array_scorer
from promax_nb.models.train import fit
from promax_nb.recommend.build import all_known
from promax_nb.recommend.folder import load_recommender
from promax_nb.recommend.guided import guide_arrays
from promax_nb.recommend.runs import open_recommender, raw_vectors, recommender_of_run
from promax_nb.retrieval.embed import encode

QUICK = dict(batch=256, lr=0.02, min_steps=0, progress=False)


def best_of(folder, name):
    """The seed with the best validation score, by a loop over the histories."""
    scores = {seed: load_fit(folder / 'fits' / f'{name}-{seed}').history['recall@20'].max() for seed in (0, 1)}
    return max(scores, key=lambda seed: (scores[seed], -seed))


def test_a_run_leaves_a_folder_to_ship_and_the_lists_of_everybody(odd_run):
    folder, _, said = odd_run
    served, data = load_recommender(folder / 'recommender'), load(folder / 'data')
    seeds = {name: best_of(folder, name) for name in ('base', 'promax')}
    for name, side in (('base', 'base'), ('promax', 'ours')):
        best = load_fit(folder / 'fits' / f'{name}-{seeds[name]}')
        np.testing.assert_array_equal(served.side(side).vectors[0], best.users)
        assert f'{name} of seed {seeds[name]} ({best.best_score:.4f})' in said
    assert 'of 2 seeds the best on validation, by recall@20' in said
    lists = pd.read_parquet(folder / 'recommendations.parquet')
    assert set(lists.side) == {'base', 'promax', 'recommended'} and set(lists.user) == set(data.users.user)
    for name, side in (('base', 'base'), ('promax', 'ours'), ('recommended', 'recommended')):
        theirs = lists[lists.side == name].drop(columns='side').reset_index(drop=True)
        expected = served.recommend(n=20, side=side)
        assert theirs.item.tolist() == expected.item.tolist() and theirs['rank'].max() == 20
    events = set(zip(data.events.user, data.events.item, strict=True))
    rows = lists.user.map({user: row for row, user in enumerate(data.users.user)})
    columns = lists.item.map({item: row for row, item in enumerate(data.items.item)})
    assert not events & set(zip(rows, columns, strict=True))


def test_a_closed_form_beside_a_training_is_served(odd_run, tmp_path):
    """Whatever validation says on this data: had it chosen a blend, the folder would rank by it."""
    folder = shutil.copytree(odd_run[0], tmp_path / 'run')
    noted = json.loads((folder / 'metrics.json').read_text(encoding='utf-8'))
    blends = [name for name, entry in noted['methods'].items() if entry['clicks']]
    assert len(blends) == 4 and sum(name.endswith(' + texts') for name in blends) == 2
    data, seeds = load(folder / 'data'), json.loads((folder / 'card.json').read_text(encoding='utf-8'))['seeds']
    for name in blends:
        entry = noted['methods'][name]
        noted['recommended']['method'] = name
        (folder / 'metrics.json').write_text(json.dumps(noted), encoding='utf-8')
        served = recommender_of_run(folder)
        side = 'promax' if 'ProMax' in name else 'base'
        how = entry['clicks'][seeds.index(best_of(folder, side))]
        closed = made_line(how['line'], data.train, how['settings'])
        guides, alphas = {how['line']: closed}, {how['line']: how['alpha']}
        given = served.side('ours' if side == 'promax' else 'base').vectors
        texts = [part for part in guide_arrays(served.layers['recommended']) if 'users' in part]
        for part in texts:
            guides['texts'], alphas['texts'] = array_scorer(part['users'], part['items']), float(part['alpha'])
        assert len(texts) == len(entry['texts'][:1]) and served.settings['recommended'] == name
        straight = reshape(array_scorer(*given), guides, alphas, all_known(data), how['form'])
        np.testing.assert_allclose(served.recommended.array([3]), straight.array([3]), atol=1e-4)


def test_what_is_served_knows_the_space_of_its_profiles(odd_run):
    folder = odd_run[0]
    served = load_recommender(folder / 'recommender')
    assert served.encoder['id'].startswith('folder:') and served.encoder['width'] == 384
    for whitening, texts, vectors in zip(served.place, served.profiles, served.vectors, strict=True):
        read = encode(texts, empty='zero')  # all of them: in bfloat16 the other texts of a batch round a text's vector
        np.testing.assert_allclose(whitening(read), vectors, atol=1e-4)
    assert served.settings['tau'] == 0.2 and served.settings['events'] == 'train' and served.added.nnz


def test_raw_vectors_of_a_run_are_read_with_its_prompt(odd_run, monkeypatch):
    """Without the prompt other vectors were made, and encoded anew."""
    folder, given = odd_run[0], {}
    monkeypatch.setattr('promax_nb.retrieval.embed.encode', lambda texts, *model, **how: given.update(how))
    tables = pd.DataFrame({'profile': ['a']}), pd.DataFrame({'profile': ['b']})
    raw_vectors(folder, load(folder / 'data'), tables, {'encoder_prompt': 'query: ', 'encoder_revision': 'main'})
    assert given['prompt'] == 'query: ' and given['revision'] == 'main'


def test_a_run_of_before_gets_its_recommender_when_it_is_asked_for(tmp_path, monkeypatch):
    run = shutil.copytree(make.HERE / 'run', tmp_path / 'run')
    served = open_recommender(run)
    best = load_fit(run / 'fits' / 'promax-0')
    np.testing.assert_array_equal(served.ours.vectors[0], best.users)
    assert served.profiles[0][0].startswith('Enjoys witty') and served.added.nnz == 7 and served.place is not None
    monkeypatch.setattr('promax_nb.recommend.runs.recommender_of_run', None)  # from now on it is read
    assert open_recommender(run).recommend().equals(served.recommend())
    assert open_recommender(run / 'recommender').recommend().equals(served.recommend())


def test_what_is_no_finished_run_is_told(odd_run, tmp_path):
    run = shutil.copytree(odd_run[0], tmp_path / 'R')
    shutil.rmtree(run / 'recommender')
    (run / 'metrics.json').unlink()
    with pytest.raises(ValueError, match='unfinished run'):
        open_recommender(run)
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        open_recommender(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='neither a run folder'):
        open_recommender(tmp_path)


# final --------------------------------------------------------------------------------------------------------------


def test_a_final_training_is_a_training_on_everything(tmp_path):
    """By hand: the same base on all events, for the epochs that were kept."""
    shop = toy_data(60, 40, seed=2)
    chosen = fit(LightGCN(shop, dim=8, seed=3), BPR(), shop, epochs=12, patience=1, **QUICK)
    final = fit_final(lambda data: LightGCN(data, dim=8, seed=3), BPR(), shop, chosen, **QUICK)
    everything = all_events(shop)
    assert (everything.train != (shop.train + shop.valid + shop.test)).nnz == 0
    model = LightGCN(everything.train, dim=8, seed=3)
    by_hand = fit(model, BPR(), everything, epochs=chosen.best_epoch, validate=False, **QUICK)
    np.testing.assert_array_equal(final.users, by_hand.users)
    assert len(final.history) == chosen.best_epoch and 'recall@20' not in final.history
    counted = {'train': everything.train.nnz, 'valid': 0, 'test': 0}
    assert np.isnan(final.best_score) and final.card['interactions'] == counted


def test_a_final_training_goes_on_to_the_same_numbers(tmp_path):
    shop = toy_data(60, 40, seed=2)
    everything = all_events(shop)
    how = dict(validate=False, checkpoint_seconds=0, **QUICK)
    straight = fit(MF(everything, dim=8), BPR(), everything, epochs=8, **how)
    fit(MF(everything, dim=8), BPR(), everything, epochs=5, folder=tmp_path / 'F', **how)
    resumed = fit(MF(everything, dim=8), BPR(), everything, epochs=8, folder=tmp_path / 'F', **how)
    np.testing.assert_array_equal(straight.users, resumed.users)
    with pytest.raises(ValueError, match='validation split is empty'):
        fit(MF(everything, dim=8), BPR(), everything, epochs=8, folder=tmp_path / 'F', **QUICK)
    with pytest.raises(ValueError, match='held back for nothing'):
        fit(MF(shop, dim=8), BPR(), shop, epochs=8, validate=False, **QUICK)


def test_final_of_a_finished_run(odd_run, tmp_path, capsys):
    run, args, _ = odd_run
    folder = shutil.copytree(run, tmp_path / 'R')
    before = (folder / 'metrics.json').read_bytes(), load_recommender(folder / 'recommender')
    again = [*args[:-1], str(folder)]
    assert main(['run', *again, '--final']) == 0
    said = capsys.readouterr().out
    assert 'no metric of these exists' in said
    assert (folder / 'metrics.json').read_bytes() == before[0], 'the metrics are those of the measured trainings'
    data, served = load(folder / 'data'), load_recommender(folder / 'recommender')
    assert served.settings['events'] == 'all: train, valid and test'
    seed = best_of(folder, 'promax')
    final, chosen = load_fit(folder / 'final' / f'promax-{seed}'), load_fit(folder / 'fits' / f'promax-{seed}')
    assert len(final.history) == chosen.best_epoch and final.card['final']['metrics'] is None
    np.testing.assert_array_equal(served.ours.vectors[0], final.users)
    assert served.train.nnz == data.train.nnz + data.valid.nnz + data.test.nnz
    assert not np.array_equal(before[1].ours.vectors[0], final.users)
    lists = pd.read_parquet(folder / 'recommendations.parquet')
    assert lists[lists.side == 'promax'].item.tolist() == served.recommend(n=20, side='ours').item.tolist()
    assert lists[lists.side == 'recommended'].item.tolist() == served.recommend(n=20).item.tolist()
    written = (folder / 'final' / f'promax-{seed}' / 'checkpoint.safetensors').stat().st_mtime_ns
    assert main(['run', *again, '--final']) == 0, 'the same command again trains nothing'
    np.testing.assert_array_equal(load_recommender(folder / 'recommender').ours.vectors[0], final.users)
    assert load_fit(folder / 'final' / f'promax-{seed}').history.seconds.tolist() == final.history.seconds.tolist()
    assert written
    assert main(['run', *again]) == 0, 'and without the flag what was measured is served again'
    np.testing.assert_array_equal(load_recommender(folder / 'recommender').ours.vectors[0], before[1].ours.vectors[0])
