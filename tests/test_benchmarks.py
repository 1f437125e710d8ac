"""Benchmarks for which a card or a long time is needed run in miniature, so that they do not rot."""

import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from promax_nb.data.bookshop import toy_data

FOLDER = Path(__file__).parent.parent / 'benchmarks'


def script(name):
    """A benchmark as a module."""
    spec = importlib.util.spec_from_file_location(f'benchmark_{name}', FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def gpu():
    return script('gpu')


def test_the_script_for_cards_runs_in_miniature(gpu, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, 'DEVICE', 'cpu')
    monkeypatch.setattr(gpu, 'BASES', {name: gpu.BASES[name] for name in ('MF', 'LightGCN')})
    call = ['--out', str(tmp_path), '--mini', '--only', 'epochs,term,evaluate,tenfold']
    gpu.main(call)
    kept = {name: json.loads((tmp_path / f'{name}.json').read_text())['rows'] for name in call[-1].split(',')}
    for rows in kept.values():
        assert rows and not [row for row in rows.values() if 'failed' in row], rows
    trained = {f'{base}, {objective}' for base in gpu.BASES for objective in ('BPR', 'ProMax')}
    set_up = {'BPR, set up', 'ProMax, set up'}
    assert set(kept['epochs']) == set(kept['tenfold']) == trained | set_up
    assert all(kept['epochs'][name]['epoch'] > 0 for name in trained)
    assert not kept['epochs']['MF, BPR']['extrapolated'] and kept['tenfold']['MF, BPR']['extrapolated']
    assert all(row['gradient off by'] < 1e-2 for name, row in kept['term'].items())
    assert all(row['gradient off by'] < 1e-5 for name, row in kept['term'].items() if name.endswith('ours'))
    assert all(0 <= row['recall@20'] <= 1 and row['users'] > 0 for row in kept['evaluate'].values())
    capsys.readouterr()
    gpu.main(call)
    assert capsys.readouterr().out == '', 'what is there is not measured again'


def test_a_resumed_writer_is_told_from_its_diaries(gpu, tmp_path):
    shape = {'pairs a step': 2, 'matrix weights': 1000, 'layers': 2, 'width': 8}
    (tmp_path / 'shape.json').write_text(json.dumps(shape))

    def diary(launch, steps):
        rows = [{'step': s, 'loss': 1 / s, 'seconds': 0.5, 'tokens': 100 * s, 'peak GiB': None} for s in steps]
        (tmp_path / f'launch-{launch}.jsonl').write_text('\n'.join(map(json.dumps, rows)))

    diary(1, range(1, gpu.LAST + 1))
    with pytest.raises(RuntimeError, match='the launches ended at steps 7 and 0'):
        gpu.writer_row(tmp_path)
    diary(2, range(gpu.SAVED + 1, gpu.STEPS + 1))
    row = gpu.writer_row(tmp_path)
    assert row['tokens/s'] == 200 and row['went on at step'] == 5 and row['losses apart by at most'] == 0
    assert row['TFLOP/s, MFU'] == pytest.approx((3 * 2000 + 4 * 2 * 2 * 25 * 8) * 100 / 0.5 / 1e12)
    assert row['MFU'] is None or torch.cuda.is_available()


@pytest.mark.skipif(not os.environ.get('PROMAX_FULL'), reason='two processes that train: PROMAX_FULL=1 runs it')
def test_full_miniature_of_the_large_writer(gpu, tmp_path):
    gpu.main(['--out', str(tmp_path), '--mini', '--only', 'dpo'])
    row = json.loads((tmp_path / 'dpo.json').read_text())['rows']['mini, LoRA']
    assert 'failed' not in row, row
    assert row['losses apart by at most'] == 0 and row['went on at step'] == gpu.SAVED + 1


def test_the_loops_over_users_give_our_numbers(monkeypatch):
    bench = script('evaluate')
    for name, number in dict(USERS=90, ITEMS=60, TRAIN=700, TEST=300).items():
        monkeypatch.setattr(bench, name, number)
    threads = torch.get_num_threads()
    row = bench.measure(*bench.generated(), threads, 1)  # asserts that they agree
    assert row['apart'] < 1e-9 and 0 < row['recall@20'] < 1 and set(row['times ours']) == {'published', 'by user'}


def test_the_three_ways_to_find_similar_users_agree():
    bench = script('retrieval')
    vectors = bench.make_vectors(1500)
    truth, _ = bench.Index(vectors, 'exact').nearest(vectors[: bench.CHECK], bench.K + 1)
    rows = {kind: bench.measure(vectors, kind, truth) for kind in ('exact', 'approximate', 'hnsw')}
    assert rows['exact']['recall@20'] == 1 and min(row['recall@20'] for row in rows.values()) > 0.9
    assert np.isfinite([row['seconds_for_everybody'] for row in rows.values()]).all()


def test_controls_know_texts_from_clicks(tmp_path, monkeypatch):
    """In a shop whose texts tell the taste: texts add, texts of the wrong items do not, and a run goes on."""
    from promax_nb.data.bookshop import toy_data
    from promax_nb.retrieval.embed import encode

    bench = script('controls')
    monkeypatch.setattr(bench, 'WIDTH', 16)
    monkeypatch.setattr(bench, 'WORLDS', {'toy': lambda folder, split: toy_data(200, 90, seed=split)})
    monkeypatch.setattr(bench, 'encode', lambda texts, **how: encode(texts, 'static', empty='zero'))
    found = bench.one_split('toy', 3, tmp_path, tmp_path)
    rows, line = found['rows'], found['line']
    gain = {row: numbers['ndcg@20 - line'][0] for row, numbers in rows.items()}
    right, wrong = (f'{line} + {texts}' for texts in ('history texts, centred', 'texts of the wrong items'))
    assert gain[line] == 0 and gain[right] > gain[wrong]
    assert {f'{line} + SVD of the user', 'popularity, alone', f'{right[:-9]}, by rank fusion'} <= set(rows)
    (tmp_path / 'toy-0.json').write_text(json.dumps({'rows': {}}))
    monkeypatch.setattr(bench, 'one_split', None)
    monkeypatch.setattr('sys.argv', ['x', str(tmp_path), '--work', str(tmp_path), '--only', '--splits', '0'])
    bench.main()


def test_the_table_of_the_readme_is_what_was_measured():
    rows = json.loads((FOLDER / 'results' / 'scale.json').read_text())['steps']
    assert script('scale').for_readme(rows) in (FOLDER.parent / 'README.md').read_text()


@pytest.mark.skipif(not os.environ.get('PROMAX_FULL'), reason='three trainings: PROMAX_FULL=1 runs it')
def test_full_a_pretrained_writer_runs_in_miniature_and_goes_on(tmp_path, capsys):
    """Stopped before its trainings it goes on with them; what is there is not made again."""
    lm = script('real_lm')
    call = ['--mini', '--work', str(tmp_path / 'w'), '--only', 'DPO 0.001', 'GRPO rank', '--chain', 'GRPO rank']
    lm.main([*call, '--seconds', '0'])
    assert 'is left for another call' in capsys.readouterr().out
    lm.main(call)
    made = capsys.readouterr().out
    kept = json.loads((tmp_path / 'w' / 'result.json').read_text())
    assert 'trained GRPO rank' in made and {'GRPO rank', 'DPO 0.001', 'as is', 'template'} <= set(kept['means'])
    assert {row['writer'] for row in kept['against as is']} >= {'DPO 0.001', 'GRPO rank', 'full and true', 'none'}
    assert any(row['name'] == 'EASE + mean and GRPO rank' for row in kept['chain']['compared'])
    assert kept['second judge'] and len(kept['examples']) == 5
    lm.main(call)
    assert ' s] ' not in capsys.readouterr().out


def test_rows_of_another_folder_stay_beside_the_same_base(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    table = script('fair_table')
    old = {
        'methods': {'base': {'settings': {'lr': 1}}, 'KAR': {'ndcg@20': [0.1]}, 'EASE': {'ndcg@20': [0.2]}},
        'against base': {'KAR': {'ndcg@20': {'low': -1}}, 'EASE': {'ndcg@20': {'low': 0}}},
    }
    new = {'methods': {'base': {'settings': {'lr': 1}}, 'EASE': {'ndcg@20': [0.3]}}, 'against base': {'EASE': {}}}
    table.with_kept(new, old)
    assert new['methods']['KAR'] == {'ndcg@20': [0.1], 'kept': True} and new['methods']['EASE'] == {'ndcg@20': [0.3]}
    assert new['against base'] == {'EASE': {}, 'KAR': {'ndcg@20': {'low': -1}}}
    other = {'methods': {'base': {'settings': {'lr': 2}}}, 'against base': {}}
    table.with_kept(other, old)
    assert list(other['methods']) == ['base'], 'another base is another comparison'


def test_groups_of_users_make_up_the_whole(monkeypatch):
    """Gains within groups, weighed by their users, are the gain over all; who knows nothing is in no third."""
    monkeypatch.syspath_prepend(str(FOLDER))
    table = script('fair_table')
    rng, users = np.random.default_rng(0), np.arange(0, 120, 2)
    data = toy_data(120, 50)
    known = rng.random(120)
    known[:10] = np.nan
    monkeypatch.setattr(table, 'prepared', lambda *cell: (data, None, None, None))
    monkeypatch.setattr(table, 'knowledge', lambda *cell: known)
    rows = {}
    for name, gain in (('base', 0), ('ProMax', 0.2), ('EASE', 0.1)):
        runs = 1 if name == 'EASE' else 3
        values = [rng.random((60, 2)) + gain * (users[:, None] > 60) for _ in range(runs)]
        rows[name] = [pd.DataFrame(one, index=users, columns=list(table.METRICS)) for one in values]
    cell, options = SimpleNamespace(data='', split='', dim=8), SimpleNamespace(root=None, work=None)
    found = pd.DataFrame(table.for_whom(cell, rows, {'EASE'}, 'ProMax', 'EASE', options))
    assert set(zip(found['first'], found['method'], strict=True)) == {('base', 'ProMax'), ('EASE', 'ProMax')}
    counted = found[found['by'] == 'training items']
    for (first, metric), part in counted.groupby(['first', 'metric']):
        over_all = [np.mean([run[metric].mean() for run in rows[side]]) for side in ('ProMax', first)]
        weighed = (part['difference'] * part['users']).sum() / part['users'].sum()
        assert part['users'].sum() == 60 and weighed == pytest.approx(over_all[0] - over_all[1])
        assert (part['low'] <= part['difference']).all() and (part['difference'] <= part['high']).all()
    thirds = found[(found['by'] == 'texts know') & (found['first'] == 'base') & (found['metric'] == 'ndcg@20')]
    assert sorted(thirds['users']) == [18, 18, 19] and list(thirds['group']) == sorted(thirds['group'])
