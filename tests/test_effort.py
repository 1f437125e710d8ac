"""Both sides of a comparison get the same number of trials, and what is said about it is true."""

import json
from math import prod

import pandas as pd
import pytest

from promax_nb.data.bookshop import toy_data
from promax_nb.experiment import RunConfig, claim, experiment
from promax_nb.models.bases import MF, LightGCN
from promax_nb.models.effort import base_grid, effort_record, effort_sentence
from promax_nb.models.objectives import BPR
from promax_nb.models.train import TrainConfig, fit, tune
from promax_nb.trainings import choose_base, weights_grid

SHORT = dict(epochs=3, batch=256, lr=0.01, min_steps=0, width=8, dim=8, encoder='static')


@pytest.fixture(scope='module')
def shop():
    return toy_data(80, 50)


@pytest.mark.parametrize('sdr', [0.5, 0.0])
@pytest.mark.parametrize('s2dr', [0.1, 0.0])
@pytest.mark.parametrize('layers', [3, None])
def test_as_many_trials_as_the_other_side(sdr, s2dr, layers):
    trials = prod(len(values) for values in weights_grid(RunConfig(sdr=sdr, s2dr=s2dr)).values())
    grid = base_grid(1e-3, 0.0, layers, trials)
    assert prod(len(values) for values in grid.values()) == trials
    assert grid['lr'][0] == 1e-3 and grid['reg'][0] == 0
    assert all(len(set(values)) == len(values) for values in grid.values())
    with pytest.raises(ValueError, match='no grid of 5 trials'):
        base_grid(1e-3, 0.0, layers, 5)


def test_every_name_of_a_grid_reaches_whom_it_belongs_to(shop, tmp_path):
    """Each trial is the very training that its row says: learning rate, weight decay and layers."""
    config = TrainConfig(epochs=3, batch=256, min_steps=0)
    grid = {'lr': [0.01, 0.03], 'layers': [1, 2]}
    table = tune(lambda layers: LightGCN(shop, dim=8, layers=layers), BPR, grid, shop, config, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    for row in table.to_dict('records'):
        same = fit(LightGCN(shop, dim=8, layers=row['layers']), BPR(), shop, config, lr=row['lr'])
        assert same.best_score == row['recall@20']
    assert table['recall@20'].is_monotonic_decreasing


def test_what_was_given_wins_where_nothing_is_better():
    table = pd.DataFrame({'lr': [0.1, 0.3], 'recall@20': [0.5, 0.5]})
    record = effort_record({'lr': [0.1, 0.3]}, table)
    assert record['chosen'] == {'lr': 0.1} and record['valid recall@20'] == record['valid recall@20 of the first']


def test_the_sentence_says_who_was_tuned():
    record = {'trials': 12, 'chosen': {'lr': 0.003}}
    both = effort_sentence({'base': record, 'promax': record})
    assert 'the same effort' in both and both.count('12 trials (lr=0.003)') == 2
    assert 'unequal effort' in effort_sentence({'base': record, 'promax': record | {'trials': 6}})
    assert 'its base was not' in effort_sentence({'promax': record})
    assert 'ProMax has the weights that were given' in effort_sentence({'base': record})
    assert effort_sentence({}).startswith('Neither side was tuned')


@pytest.mark.parametrize('base,changed', [('MF', {}), ('LightGCN', {'layers': 1}), ('SimGCL', {'sum_layers': (1,)})])
def test_layers_are_tried_only_where_nobody_fixed_them(shop, tmp_path, base, changed):
    config = RunConfig(base=base, sdr=0.0, s2dr=0.0, **SHORT, **changed)
    chosen, record = choose_base(shop, config, tmp_path)
    assert 'layers' not in record['tried'] and chosen.layers == config.layers and record['trials'] == 1


def test_a_run_tunes_both_sides_and_says_so(shop, tmp_path):
    config = RunConfig(base='MF', s2dr=0.0, tune=True, **SHORT)
    result = experiment(shop, tmp_path / 'run', config, say=lambda line: None)
    tables = {name: pd.read_csv(tmp_path / 'run' / f'{name}.csv') for name in ('tune-base', 'tune')}
    assert [len(table) for table in tables.values()] == [6, 6]
    lr, reg = tables['tune-base'].loc[0, ['lr', 'reg']]
    for fitted in (*result.base, *result.promax):
        assert fitted.card['train']['lr'] == pytest.approx(lr) and fitted.card['train']['reg'] == pytest.approx(reg)
    assert result.promax[0].card['objective']['sdr'] == tables['tune'].sdr[0]
    for name in ('card', 'metrics'):
        kept = json.loads((tmp_path / 'run' / f'{name}.json').read_text(encoding='utf-8'))
        assert kept['tuning']['base']['trials'] == kept['tuning']['promax']['trials'] == 6
        assert kept['effort'] == effort_sentence(result.tuning) and 'the same effort' in kept['effort']
    assert 'the same effort' in (tmp_path / 'run' / 'report.html').read_text(encoding='utf-8')
    trials = sorted((tmp_path / 'run' / 'tune').iterdir())
    again = experiment(shop, tmp_path / 'run', config, say=lambda line: None)
    assert again.compare.equals(result.compare) and sorted((tmp_path / 'run' / 'tune').iterdir()) == trials


def test_folders_whose_base_was_not_tuned_are_known_by_that(shop, tmp_path):
    """Tuned before bases were: continued with --no-tune-base, otherwise refused by name; an untuned run goes on."""
    for name, tuned in (('old', True), ('plain', False)):
        claim(tmp_path / name, shop, RunConfig(tune=tuned, tune_base=False))
        file = tmp_path / name / 'settings.json'
        noted = json.loads(file.read_text(encoding='utf-8'))
        del noted['tune_base']
        file.write_text(json.dumps(noted), encoding='utf-8')
        (tmp_path / name / 'tune').mkdir()  # from here on settings count
    with pytest.raises(ValueError, match=r'settings.tune_base \(False -> True\)'):
        claim(tmp_path / 'old', shop, RunConfig(tune=True))
    claim(tmp_path / 'old', shop, RunConfig(tune=True, tune_base=False))
    claim(tmp_path / 'plain', shop, RunConfig())


def test_a_run_may_gain_seeds_and_nothing_else(shop, tmp_path):
    claim(tmp_path, shop, RunConfig(seeds=(0,)))
    (tmp_path / 'fits').mkdir()  # from here on settings count
    claim(tmp_path, shop, RunConfig(seeds=(0, 1, 2)))
    for seeds in ((0,), (1, 2), (0, 2, 1)):
        with pytest.raises(ValueError, match='settings.seeds'):
            claim(tmp_path, shop, RunConfig(seeds=seeds))


def test_earlier_seeds_stay_as_they_are_trained(shop, tmp_path):
    settings = RunConfig(base='MF', **SHORT)
    first = experiment(shop, tmp_path, settings, say=lambda line: None)
    second = experiment(shop, tmp_path, settings, say=lambda line: None, seeds=(0, 1, 2))
    assert second.base[0].history.seconds.equals(first.base[0].history.seconds)
    assert first.compare.method_p.isna().all() and second.compare.method_p.notna().all()
    assert MF.__name__ == second.base[2].card['model'] and len(second.promax) == 3
