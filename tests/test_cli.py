"""The commands, from files to a run folder; settings, refusals, doctor."""

import contextlib
import dataclasses
import io
import json
import math
import shutil
import sqlite3
import subprocess
import sys
import typing
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from promax_nb import cli
from promax_nb.cli import main
from promax_nb.data import settings
from promax_nb.data.bookshop import toy_data
from promax_nb.data.saved import load
from promax_nb.experiment import DataConfig, RunConfig, claim, experiment
from promax_nb.lettingo.align_settings import AlignConfig
from promax_nb.lettingo.story import LettingoConfig
from promax_nb.models.beyond import beyond
from promax_nb.models.evaluate import ranked, user_metrics
from promax_nb.models.gate import TextGate
from promax_nb.models.results import load_fit, load_tensors
from promax_nb.recommend.runs import open_recommender
from promax_nb.report import cause, still_improving, verdict
from promax_nb.views.scene import open_run

SHORT = ['--epochs', '6', '--batch', '256', '--lr', '.01', '--width', '16', '--min-steps', '0', '--kcore', '0']
SHORT += ['--encoder', 'static']


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A small bookshop as the files a person would have."""
    folder, data = tmp_path_factory.mktemp('files'), toy_data(150, 80)
    events = data.events.assign(
        user=data.users.user.to_numpy()[data.events.user], item=data.items.item.to_numpy()[data.events.item]
    ).drop(columns='split')
    events.to_csv(folder / 'events.csv', index=False)
    data.items[['item', 'title', 'text']].to_csv(folder / 'items.csv', index=False)
    return folder


def run(*args):
    return main(['run', *map(str, args)])


@pytest.fixture(scope='module')
def finished(files, tmp_path_factory):
    """A run of two seeds: its arguments without the folder, its folder, and what it said."""
    out, said = tmp_path_factory.mktemp('finished') / 'RUN', io.StringIO()
    args = ['--events', files / 'events.csv', '--items', files / 'items.csv', '--seeds', '0,1', *SHORT]
    with contextlib.redirect_stdout(said):
        assert run(*args, '--out', out) == 0
    return args, out, said.getvalue()


def test_run_writes_everything_and_continues(finished, tmp_path, capsys):
    args, made, first = finished
    assert 'recall@20' in first and 'report.html' in first and '95 %' in first
    out = shutil.copytree(made, tmp_path / 'RUN')
    args = [*args, '--out', out]
    metrics, card = (json.loads((out / f'{n}.json').read_text()) for n in ('metrics', 'card'))
    assert metrics['base']['recall@20'] > 0 and metrics['promax'].keys() == metrics['base'].keys()
    assert metrics['compare']['ndcg@20']['difference'] == pytest.approx(
        metrics['promax']['ndcg@20'] - metrics['base']['ndcg@20']
    )
    assert metrics['about']['seeds'] == [2, 2] and card['seeds'] == [0, 1] and card['base']['split']['threshold'] == 4
    assert card['base']['versions']['torch'] and card['promax']['objective']['teacher']['share_at_floor'] >= 0
    assert all(a['passed'] for a in card['audit'])
    history = pd.read_parquet(out / 'history.parquet')
    assert (
        set(history.run) == {'base', 'promax'}
        and {'bpr', 'sdr', 's2dr', 'reg'} <= set(history)
        and set(history.seed) == {0, 1}
    )
    assert set(load_tensors(out / 'model.safetensors')[0]) == {'user', 'item'}
    assert len(pd.read_parquet(out / 'profiles-users.parquet')) == len(load_fit(out / 'fits' / 'base-0').users)
    page = (out / 'report.html').read_text(encoding='utf-8')
    assert 'src="http' not in page and 'Protocol card' in page
    assert run(*args) == 0  # the same command again: nothing is trained anew, the same numbers
    assert json.loads((out / 'metrics.json').read_text()) == metrics
    assert run(*args, '--sdr', '.9') == 2 and 'sdr (0.5 -> 0.9)' in capsys.readouterr().err
    assert json.loads((out / 'metrics.json').read_text()) == metrics


def test_a_run_says_what_to_use(finished, tmp_path):
    """One entry a method with the same keys; what validation chose is served; the gate stands before the training."""
    args, out, said = finished
    metrics, page = (out / 'metrics.json').read_text(), (out / 'report.html').read_text(encoding='utf-8')
    told = json.loads(metrics)
    lines = {'popularity', 'LightGCN', 'LightGCN + ProMax'}
    lines |= {f'{line}{more}' for line in ('ItemKNN', 'EASE') for more in ('', ' + popularity')}
    closed = max(('ItemKNN', 'EASE'), key=lambda name: told['methods'][name]['valid']['ndcg@20'])
    lines |= {f'{trained} + {closed}' for trained in ('LightGCN', 'LightGCN + ProMax')}
    assert lines <= set(told['methods']) <= lines | {f'{line} + texts' for line in lines}
    assert len({tuple(entry) for entry in told['methods'].values()}) == 1
    assert told['methods']['LightGCN']['test']['recall@20'] == pytest.approx(told['base']['recall@20'])
    assert told['methods']['LightGCN + ProMax']['against']['recall@20']['difference'] == pytest.approx(
        told['compare']['recall@20']['difference']
    )
    best = max(told['methods'], key=lambda name: told['methods'][name]['valid']['ndcg@20'])
    assert told['recommended']['method'] == best and f'Use {best}' in said and f'What to use here: {best}' in page
    assert said.index(told['gate']['sentence']) < said.index('training LightGCN') and told['gate']['sentence'] in page
    served, others = open_recommender(out), open_run(out).others
    third = [f'recommended: {best}'] if served.best_side == 'recommended' else []
    assert served.settings['recommended'] == best and list(others) == third
    for run_of in others.values():  # beside base and ProMax its lists are those of the test
        tested = user_metrics(ranked(run_of, load(out / 'data')), load(out / 'data'))[0]
        assert tested['ndcg@20'].mean() == pytest.approx(told['methods'][best]['test']['ndcg@20'], rel=1e-6)
    alone = [*args, '--out', tmp_path / 'R', '--no-methods', '--epochs', '1', '--seeds', '0']
    assert run(*alone) == 0
    none = json.loads((tmp_path / 'R' / 'metrics.json').read_text())
    assert none['methods'] == {} and none['recommended'] is None
    assert open_recommender(tmp_path / 'R').best_side == 'ours'


@pytest.mark.parametrize('alone, adds, word', [
    ({'raw': 0.24, 'whitened 64': 0.12}, (0.1, 0.05, 0.2), 'Try another --width'),
    ({'raw': 0.24, 'whitened 64': 0.22}, (0.01, -0.05, 0.06), 'not shown to know anything'),
    ({'raw': 0.24, 'whitened 64': 0.22}, (0.1, 0.05, 0.2), 'Smaller weights'),
])
def test_the_cause_is_named_where_reshaping_did_not_help(alone, adds, word):
    table = pd.DataFrame([{'space': space, 'guide': 'profile', 'alone': value} for space, value in alone.items()])
    measures = dict(zip(('adds', 'low', 'high'), adds, strict=True))
    gate = TextGate(0.2, 0.1, 0.1, 'EASE', 0.2, metric='ndcg@20', chosen={}, users=9, table=table, **measures)
    worse = pd.Series({'base': 0.3, 'ours': 0.2, 'difference': -0.1, 'low': -0.15, 'high': -0.05}, name='recall@20')
    better = worse.copy()
    better[['difference', 'low', 'high']] = 0.1, 0.05, 0.15
    assert word in cause(gate, worse) and cause(gate, better) == '' and cause(None, worse) == ''


def test_what_is_shown_stands_beside_the_metrics(finished):
    """The run folder, the page and the shell say the same about the lists, with diversity in the profiles."""
    _, out, said = finished
    table, metrics = pd.read_parquet(out / 'beyond.parquet'), json.loads((out / 'metrics.json').read_text())
    assert len(metrics['beyond']) == len(table) and metrics['about_beyond']['k'] == 20
    for told, row in zip(metrics['beyond'], table.to_dict('records'), strict=True):
        assert told['ours'] == pytest.approx(row['ours']) and told['group'] == row['group']
    rows = table[table.group == 'all'].set_index('metric')
    assert rows.users['gini@20'] == metrics['about']['users'] and rows.ours['diversity@20'] > 0
    lists = {name: [load_fit(out / 'fits' / f'{name}-{seed}') for seed in (0, 1)] for name in ('base', 'promax')}
    data = load(out / 'data')
    alone = beyond(lists['base'], lists['promax'], data).set_index(['group', 'metric']).loc['all']
    shared = [metric for metric in rows.index if metric in alone.index]
    columns = ['base', 'ours', 'low', 'high']  # a product with other columns beside these may round otherwise
    pd.testing.assert_frame_equal(rows.loc[shared, columns], alone.loc[shared, columns], rtol=1e-12)
    (line,) = (line for line in said.splitlines() if line.startswith('Lists of 20'))
    assert f'{rows.ours["coverage@20"]:.0%} of the catalogue' in line and f'{rows.base["overlap@20"]:.2f})' in line
    page = (out / 'report.html').read_text(encoding='utf-8')
    assert 'Beyond accuracy' in page and line in page


def test_map_of_a_run(finished, tmp_path, capsys):
    out = shutil.copytree(finished[1], tmp_path / 'RUN')
    assert main(['map', str(out), '--seed', '3']) == 0
    said = capsys.readouterr().out
    assert 'map.html' in said and 'neighbours' in said and 'works offline' in said
    page = (out / 'map.html').read_text(encoding='utf-8')
    assert 'src="http' not in page and 'px-mount' in page
    record, table = json.loads((out / 'map.json').read_text()), pd.read_parquet(out / 'map.parquet')
    assert (
        record['seed'] == 3
        and len(table) == 230
        and np.isfinite(table[['base x', 'base y', 'reshaped x', 'reshaped y']].to_numpy()).all()
    )
    (out / 'metrics.json').unlink()  # as after an interruption
    assert main(['map', str(out)]) == 2
    told = capsys.readouterr().err
    assert 'unfinished run' in told and 'Traceback' not in told
    assert main(['map', str(tmp_path / 'nowhere')]) == 2 and 'nowhere' in capsys.readouterr().err


def test_map_of_a_run_with_names_by_a_model(finished, tmp_path, capsys, monkeypatch):
    """What the model answers is kept in the run: the second page asks nothing."""
    out, asked, settings = shutil.copytree(finished[1], tmp_path / 'RUN'), [], []

    def namer(prompt):
        asked.append(prompt)
        return f'Shelf {len(prompt)}'

    monkeypatch.setattr(cli, 'make_writer', lambda config: settings.append(config) or namer)
    args = ['map', str(out), '--llm', 'some-model', '--base-url', 'http://127.0.0.1:9/v1', '--names', '6']
    assert main([*args, '--llm-option', 'top_p=0.9']) == 0
    assert 0 < len(asked) <= 6 and 'labels are names given by namer' in capsys.readouterr().out
    assert settings[0].llm == 'some-model' and settings[0].llm_options == {'top_p': 0.9}
    assert settings[0].base_url == 'http://127.0.0.1:9/v1'
    page, record = (out / 'map.html').read_text(encoding='utf-8'), json.loads((out / 'map.json').read_text())
    assert 'data-part="seen"' in page and record['names']['llm'] == 'namer' and record['names']['named'] > 0
    count = len(asked)
    assert main(args) == 0 and len(asked) == count
    assert main(['map', str(out)]) == 0, 'and without a model the labels are words'
    assert 'data-part="seen"' not in (out / 'map.html').read_text(encoding='utf-8')
    capsys.readouterr()
    assert main(['map', str(out), '--llm', 'template']) == 2 and 'no names' in capsys.readouterr().err
    nowhere = tmp_path / 'nowhere'
    assert main(['map', str(nowhere), '--llm', 'some-model']) == 2 and not nowhere.exists()
    assert 'nowhere' in capsys.readouterr().err


def test_toml_and_flags(files, tmp_path, capsys):
    toml = tmp_path / 'run.toml'
    toml.write_text(
        f'events = "{files / "events.csv"}"\nitems = "{files / "items.csv"}"\nbase = "MF"\nseeds = [3]\nmin-steps = 0\n'
        'epochs = 3\nwidth = 16\nkcore = 0\nthreshold = 3\n'
    )
    assert run('--config', toml, '--out', tmp_path / 'R', '--s2dr', '0') == 0
    settings = json.loads((tmp_path / 'R' / 'settings.json').read_text())
    assert settings['base'] == 'MF' and settings['s2dr'] == 0 and settings['seeds'] == [3]
    assert json.loads((tmp_path / 'R' / 'card.json').read_text())['base']['split']['threshold'] == 3
    toml.write_text('epoch = 3\n')
    assert run('--config', toml, '--out', tmp_path / 'R2') == 2 and "did you mean 'epochs'" in capsys.readouterr().err
    toml.write_text('base = "BERT"\n')
    assert run('--config', toml, '--out', tmp_path / 'R2') == 2 and 'none of MF' in capsys.readouterr().err
    toml.write_text('base = \n')
    assert run('--config', toml, '--out', tmp_path / 'R2') == 2 and 'not valid TOML' in capsys.readouterr().err
    assert not (tmp_path / 'R2').exists()


@pytest.mark.parametrize(
    'change,message',
    [
        (['--events', 'missing.csv'], 'no file missing.csv'),
        ([], 'no data is given'),
        (['--format', 'csv', '.'], "use 'atomic' or 'rlmrec'"),
        (['--format', 'atomic', 'no-such-folder'], 'no-such-folder'),
        (['--config', 'no.toml'], 'no file no.toml'),
    ],
)
def test_bad_data_arguments(change, message, capsys, tmp_path):
    assert run('--out', tmp_path / 'x', *change) == 2
    err = capsys.readouterr().err
    assert message in err and 'Traceback' not in err and not (tmp_path / 'x').exists()


def test_bad_tables(tmp_path, capsys, files):
    bad = tmp_path / 'bad.csv'
    for content, message in (('a,b\n1,2\n', 'user'), ('user,item\n1,\n2,3\n', 'item'), ('', 'cannot be read')):
        bad.write_text(content)
        assert run('--events', bad, '--out', tmp_path / 'x') == 2 and message in capsys.readouterr().err
    bad.write_bytes(b'PAR1 broken')
    assert (
        run('--events', bad.rename(tmp_path / 'bad.parquet'), '--out', tmp_path / 'x') == 2
        and 'cannot be read' in capsys.readouterr().err
    )
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'thesis.txt').write_text('mine')
    assert (
        run('--events', files / 'events.csv', '--items', files / 'items.csv', '--out', tmp_path / 'full', *SHORT) == 2
    )
    assert (
        'nothing in it is overwritten' in capsys.readouterr().err
        and (tmp_path / 'full' / 'thesis.txt').read_text() == 'mine'
    )
    assert (
        run('--events', files / 'events.csv', '--out', tmp_path / 'y', *SHORT) == 2
        and 'no item has a title' in capsys.readouterr().err
    )


def test_unknown_flag_and_values(capsys):
    for args in (['run', '--epoch-count', '3'], ['run', '--base', 'BERT'], ['nothing'], ['run', '--epochs', 'many']):
        with pytest.raises(SystemExit) as e:
            main(args)
        assert e.value.code == 2
    assert "invalid choice: 'BERT'" in capsys.readouterr().err


def test_every_base_and_tuning(tmp_path, monkeypatch):
    data = toy_data(120, 60)
    short = dict(epochs=3, batch=512, lr=0.01, min_steps=0, width=16, encoder='static')

    def claim_with_vectors(folder, *inputs):
        """A claimed folder that has the text vectors of the first run, of the same texts: they are encoded once."""
        claim(folder, *inputs)
        if (tmp_path / 'MF' / 'vectors.db').exists() and not (folder / 'vectors.db').exists():
            shutil.copy(tmp_path / 'MF' / 'vectors.db', folder)

    monkeypatch.setattr('promax_nb.experiment.claim', claim_with_vectors)
    for base in ('MF', 'SimGCL'):  # each base is trained in test_frozen too
        experiment(data, tmp_path / base, RunConfig(base=base, **short), say=lambda line: None)
    tuned = experiment(data, tmp_path / 'tuned', RunConfig(base='MF', tune=True, **short), say=lambda line: None)
    grid = pd.read_csv(tmp_path / 'tuned' / 'tune.csv')
    best = tuned.promax[0].card['objective']
    assert (
        len(grid) == 12
        and (best['sdr'], best['s2dr']) == (grid.sdr[0], grid.s2dr[0])
        and grid['recall@20'].is_monotonic_decreasing
    )
    with pytest.raises(ValueError, match='MF has no layers'):
        experiment(data, tmp_path / 'z', RunConfig(base='MF', layers=2, **short), say=lambda line: None)


def test_verdict_claims_no_more_than_the_interval():
    def say(d, lo, hi):
        return verdict(
            pd.Series({'base': 0.1, 'difference': d, 'low': lo, 'high': hi, 'relative': d / 0.1}, name='recall@20')
        )

    assert (
        'better' in say(0.01, 0.002, 0.02)
        and 'worse' in say(-0.01, -0.02, -0.001)
        and 'No difference' in say(0.01, -0.001, 0.02)
    )


def test_trainings_cut_off_by_the_limit_are_named():
    def done(best, run):
        return SimpleNamespace(best_epoch=best, card={'epochs_run': run})

    config = RunConfig(epochs=100, seeds=(3, 4))
    assert still_improving(
        {'base': [done(99, 100), done(40, 100)], 'ProMax': [done(95, 96), done(50, 80)]}, config
    ) == ['base, seed 3']


def test_doctor(capsys, monkeypatch):
    monkeypatch.setenv('OPENAI_API_KEY', 'canary-value')
    assert main(['doctor']) == 0
    out = capsys.readouterr().out
    assert 'torch' in out and 'OPENAI_API_KEY is set' in out and 'canary-value' not in out
    real = cli.importlib.metadata.version

    def without_faiss(name):
        if name == 'faiss-cpu':
            raise cli.importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(cli.importlib.metadata, 'version', without_faiss)
    assert main(['doctor']) == 0 and 'without faiss-cpu' in capsys.readouterr().out


def test_import_is_light():
    code = ('import sys, promax_nb; print([m for m in ("torch", "pandas", "numpy", "faiss", "transformers", '
        '"plotly") if m in sys.modules])')
    assert (
        subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
    )


@pytest.mark.parametrize('command', ['run', 'lettingo'])
def test_help_names_every_setting(command):
    """Every field of every dataclass that the command reads has a flag and a help."""
    (sub,) = (a.choices[command] for a in cli.parser()._actions if a.choices and a.dest == 'command')
    flags = {action.dest: action for action in sub._actions}
    for config in COMMANDS[command]:
        helps = settings.helps(config)
        for part in dataclasses.fields(config):
            action = flags.pop(part.name, None)
            if action is None:  # of two fields with one name the first counts
                assert config is not COMMANDS[command][0]
                continue
            assert helps[part.name] and action.help.startswith(helps[part.name].replace('%', '%%')), part.name
            assert action.option_strings[0].startswith('--' + part.name.replace('_', '-').removesuffix('s'))


# every setting, in every wrong kind -----------------------------------------------------------------------------------

COMMANDS = {'run': (DataConfig, RunConfig), 'lettingo': (LettingoConfig, DataConfig), 'align': (AlignConfig,)}
TOML = (
    '"many"', '""', '"5"', '"-1"', '3', '-1', '0', '512.5', '1e400', 'nan', '-inf',
    'true', '[]', '[1, "a"]', '[[1]]', '{}',
    '{a = 1}', '1979-05-27', '07:32:00', '9' * 400, '"\\u0000"', '"a\\nb"', '""" """',
)  # fmt: skip
TYPED = (
    '', ' ', 'many', 'nan', 'inf', '-inf', '1e999', '9' * 400, '1,2,', ',', '\x00', '0.5.5', 'none', '[1]', '{"a": 1}')


@pytest.fixture
def nothing_runs(monkeypatch):
    """The commands up to the point where work would begin."""

    def stop(*given, **settings):
        raise ValueError('understood')

    def understood(config):
        raise ValueError('understood')

    monkeypatch.setattr(cli, 'experiment', stop)
    monkeypatch.setattr(cli, 'load_data', understood)
    monkeypatch.setattr('promax_nb.lettingo.story.lettingo', stop)
    monkeypatch.setattr('promax_nb.lettingo.align.align', stop)
    monkeypatch.setattr('promax_nb.lettingo.align.load_pairs', stop)


def one_sentence(argv, capsys) -> str:
    """What a command says to a person: it ends with 2 (what was understood is stopped there), never with a
    traceback."""
    try:
        code = main(argv)
    except SystemExit as ended:  # argparse
        code = ended.code
    said = capsys.readouterr().err
    assert code == 2 and 'Traceback' not in said and 'nobody foresaw' not in said, (argv, code, said)
    return said.strip().splitlines()[-1]


def fields(command):
    """(dataclass field, its type) of every setting of a command."""
    for config in COMMANDS[command]:
        kinds = settings.kinds_of(config)
        for part in dataclasses.fields(config):
            yield config, part, kinds[part.name]


@pytest.mark.parametrize('command', COMMANDS)
def test_every_key_of_a_file_in_every_kind(command, tmp_path):
    """Each value is read as the type of its field, or refused by name."""
    file, read, refused = tmp_path / 'c.toml', 0, 0
    for config, part, kind in fields(command):
        inner, optional = settings.without_none(kind)
        for value in TOML:
            file.write_text(f'{part.name} = {value}')
            try:
                found = settings.read_toml(file, config)[part.name]
            except ValueError as error:
                assert part.name in str(error) or 'not valid TOML' in str(error), (part.name, value, str(error))
                refused += 1
                continue
            read += 1
            plain = typing.get_origin(inner) or inner
            fits = (found is None and optional) or plain is typing.Literal or isinstance(found, plain)
            assert fits, (part.name, value)
            assert not isinstance(found, float) or math.isfinite(found)
    assert read > len(COMMANDS[command]) and refused > read


@pytest.mark.parametrize('command', COMMANDS)
def test_a_wrong_key_of_a_file_at_the_command_line(command, nothing_runs, tmp_path, capsys):
    file = tmp_path / 'c.toml'
    rest = {'align': 'model = "x"\npairs = "y"\nout = "z"\n'}.get(command, '')
    for k, (_, part, _) in enumerate(fields(command)):
        file.write_text(f'{part.name} = {TOML[k % len(TOML)]}\n{rest}')
        one_sentence([command, '--config', str(file), *(['--out', 'R'] if command != 'align' else [])], capsys)


@pytest.mark.parametrize('command', ['run', 'lettingo'])
def test_every_flag_in_every_kind(command, nothing_runs, tmp_path, capsys):
    (sub,) = (a.choices[command] for a in cli.parser()._actions if a.choices and a.dest == 'command')
    turn = 0
    for action in sub._actions:
        if action.dest in ('help', 'config', 'out') or action.nargs == 0:
            continue
        for text in TYPED:  # argparse reads each of them, or refuses it with the code 2
            words = [text] * (action.nargs or 1)
            try:
                sub.parse_args([action.option_strings[0], *words])
            except SystemExit as ended:
                assert ended.code == 2
        turn += 1
        words = [TYPED[turn % len(TYPED)]] * (action.nargs or 1)
        one_sentence([command, '--out', 'R', action.option_strings[0], *words], capsys)


@pytest.mark.parametrize(
    'argv',
    [
        ['map', 'x', '--seed', '1.5'],
        ['map', 'x', '--sample', '0'],
        ['map', 'x', '--names', '0'],
        ['map', 'x', '--llm', 'm', '--workers', '0'],
        ['map', 'x', '--method', 'best'],
        ['map', ''],
        ['map', '\x00'],
        ['demo', '--seeds', 'a'],
        ['demo', '--world', '-1'],
        ['align', '--config', '.'],
        ['align', '--config', 'c.toml', '--max-steps', 'x'],
        ['doctor', 'x'],
        ['run', '--config', '.', '--out', 'R'],
        ['run', '--config', '', '--out', 'R'],
        ['run', '--events', '.', '--out', 'R'],
        ['run', '--events', '\x00', '--out', 'R'],
        ['lettingo', '--config', 'c.toml'],
        ['--no-such'],
        [],
    ],
)
def test_other_mistakes_are_one_sentence(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    one_sentence(argv, capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_key_given_twice_and_a_file_that_is_no_text(tmp_path, capsys):
    file = tmp_path / 'c.toml'
    file.write_text('min-steps = 1\nmin_steps = 2\n')
    assert 'stands twice' in one_sentence(['run', '--config', str(file), '--out', 'R'], capsys)
    file.write_bytes(b'\xff\xfe\x00')
    assert 'not valid TOML' in one_sentence(['run', '--config', str(file), '--out', 'R'], capsys)


def test_flags_and_tables_of_a_file_meet(nothing_runs, monkeypatch, tmp_path, capsys):
    file, given = tmp_path / 'c.toml', {}

    def look(data, out, config, say):
        given['config'] = config
        raise ValueError('understood')

    monkeypatch.setattr(cli, 'load_data', lambda config: None)
    monkeypatch.setattr(cli, 'experiment', look)
    file.write_text('llm = "m"\nseeds = 3\nepochs = "5"\n[llm-options]\ntop_p = 0.5\nseed = 1\n')
    argv = ['run', '--config', str(file), '--out', 'R', '--llm-option', 'top_p=.9', '--llm-option', 'stop=END']
    assert 'understood' in one_sentence([*argv, '--max-tokens', 'none', '--temperature', '0.3'], capsys)
    config = given['config']
    assert config.llm_options == {'top_p': 0.9, 'seed': 1, 'stop': 'END'} and config.seeds == (3,)
    assert config.epochs == 5 and config.max_tokens is None and config.temperature == 0.3


@pytest.mark.parametrize(
    'error,code,words',
    [
        (KeyboardInterrupt(), 130, 'type the same command again'),
        (OSError(28, 'No space left on device', 'R/x'), 2, 'the disk is full'),
        (PermissionError(13, 'Permission denied', 'R/x'), 2, 'R/x may not be read or written'),
        (MemoryError(), 2, 'the memory of this machine'),
        (sqlite3.OperationalError('database or disk is full'), 2, 'the disk is full'),
        (RuntimeError('CUDA out of memory'), 2, 'CUDA out of memory'),
        (KeyError('recall'), 2, 'PROMAX_DEBUG=1'),
        (BrokenPipeError(), 141, ''),
    ],
)
def test_whatever_happens_is_one_sentence(error, code, words, monkeypatch, capsys):
    def fail(config):
        raise error

    monkeypatch.setattr(cli, 'load_data', fail)
    monkeypatch.setattr(cli, '_no_reader', lambda: None)
    assert run('--out', 'R') == code
    said = capsys.readouterr().err
    assert words in said and 'Traceback' not in said and len(said.strip().splitlines()) <= 1


def test_who_looks_for_a_fault_gets_the_traceback(monkeypatch):
    def fail(config):
        raise KeyError('recall')

    monkeypatch.setattr(cli, 'load_data', fail)
    monkeypatch.setenv('PROMAX_DEBUG', '1')
    with pytest.raises(KeyError):
        run('--out', 'R')


def test_a_reader_who_goes_away_ends_the_command_in_silence():
    code = 'from promax_nb.cli import main; import sys; sys.exit(main(["doctor"]))'
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait() == 141 and said == ''


@pytest.mark.parametrize('command', ['run', 'lettingo', 'demo', 'map', 'align'])
def test_a_cure_names_what_the_command_line_has(command):
    """An argument in a sentence becomes the flag, where there is one; else it stays as it is."""
    (sub,) = (a.choices[command] for a in cli.parser()._actions if a.choices and a.dest == 'command')
    for action in sub._actions:
        flag = next((option for option in action.option_strings if option.startswith('--')), None)
        if flag in (None, '--help'):
            continue
        name = flag[2:].replace('-', '_')
        assert flag in cli.with_flags(f'set {name}=3, please', command)
    assert cli.with_flags('pass such_a_thing=3', command) == 'pass such_a_thing=3'
    assert cli.with_flags('it is 3 >= 2 and a == b', command) == 'it is 3 >= 2 and a == b'
