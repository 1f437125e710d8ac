"""The package as somebody gets it: built, looked into, installed away from the repository with the core's
requirements alone, used."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email import message_from_string
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from promax_nb import all as front
from promax_nb.cli import main

ROOT = Path(__file__).resolve().parent.parent
PARTS = (
    'settings.ini',
    'setup.py',
    'MANIFEST.in',
    'README.md',
    'LICENSE',
    'CHANGELOG.md',
    'CITATION.cff',
    'constraints.txt',
)


def settings():
    config = ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    return config['DEFAULT']


def run(*argv, **how):
    return subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=900, **how)


def needs(lines) -> dict:
    """Everything that these requirements bring with them, as installed here: name -> distribution."""
    found, todo, seen = {}, [Requirement(line) for line in lines], set()
    while todo:
        r = todo.pop()
        key = re.sub(r'[-_.]+', '-', r.name).lower(), tuple(sorted(r.extras))
        if key in seen:
            continue
        seen.add(key)
        found[key[0]] = d = distribution(r.name)
        asked = [Requirement(q) for q in d.requires or []]
        todo += [q for q in asked if q.marker is None or any(q.marker.evaluate({'extra': e}) for e in r.extras or {''})]
    return found


@pytest.fixture(scope='session')
def built(tmp_path_factory):
    """(wheel, sdist); the wheel is made from what the sdist holds."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('dist')
    for name in PARTS:
        shutil.copy(ROOT / name, source)
    for name in ('promax_nb', 'tests', 'nbs'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    done = run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, source)
    assert done.returncode == 0, done.stderr[-3000:]
    return next(out.glob('*.whl')), next(out.glob('*.tar.gz'))


@pytest.fixture(scope='session')
def away(built, tmp_path_factory):
    """A function that runs a command of a fresh environment in an empty folder; to open a file of the repository
    ends the program there.

    The environment sees what the core's requirements bring (links to what is installed here) and promax_nb from the
    wheel: the plain `pip install`.
    """
    home = tmp_path_factory.mktemp('away')
    assert run(sys.executable, '-m', 'venv', '--without-pip', home / 'venv').returncode == 0
    place = next((home / 'venv').glob('lib/python*/site-packages'))
    for d in needs(settings()['requirements'].split()).values():
        for top in {f.parts[0] for f in d.files if f.parts[0] not in ('..', '__pycache__')}:
            if not (place / top).exists():
                (place / top).symlink_to(d.locate_file(top))
    (place / 'sitecustomize.py').write_text(
        'import os, sys\n'
        f'def guard(event, args, root={str(ROOT) + os.sep!r}, kept={str(Path(sys.prefix)) + os.sep!r}):\n'
        '    if event != "open" or not isinstance(args[0], str): return\n'
        '    path = os.path.abspath(args[0])\n'
        '    if path.startswith(root) and not path.startswith(kept):\n'
        '        sys.stderr.write(f"REPOSITORY READ: {path}\\n"); os._exit(77)\n'
        'sys.addaudithook(guard)\n'
    )
    done = run(
        sys.executable,
        '-m',
        'pip',
        '--python',
        home / 'venv' / 'bin' / 'python',
        'install',
        '--quiet',
        '--no-deps',
        '--no-index',
        built[0],
    )
    assert done.returncode == 0, done.stderr
    (home / 'empty').mkdir()
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'PYTHONHOME', 'VIRTUAL_ENV')}
    env['PATH'] = f"{home / 'venv' / 'bin'}{os.pathsep}{env['PATH']}"

    def go(*argv):
        return run(home / 'venv' / 'bin' / argv[0], *argv[1:], cwd=home / 'empty', env=env)

    go.folder, go.python = home / 'empty', home / 'venv' / 'bin' / 'python'
    return go


def test_what_the_wheel_and_the_sdist_hold(built):
    with zipfile.ZipFile(built[0]) as z:
        held = set(z.namelist())
        meta = message_from_string(z.read(next(n for n in held if n.endswith('METADATA'))).decode())
    mine = {
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / 'promax_nb').rglob('*')
        if p.is_file() and '__pycache__' not in p.parts
    }
    assert {
        'promax_nb/py.typed',
        'promax_nb/views/points.js',
        'promax_nb/views/explorer.js',
        'promax_nb/views/explorer.css',
        'promax_nb/views/person.css',
        'promax_nb/lettingo/tiny_writer/model.safetensors',
    } <= mine
    assert {n for n in held if '.dist-info/' not in n} == mine and any(n.endswith('licenses/LICENSE') for n in held)
    with tarfile.open(built[1]) as t:
        sources = {n.partition('/')[2] for n in t.getnames()}
    assert mine | set(PARTS) <= sources and not [n for n in sources if n.startswith(('tests', 'nbs', 'benchmarks'))]
    assert (
        meta['Version'] == settings()['version']
        and meta['License-Expression'] == 'Apache-2.0'
        and meta['Requires-Python'] == '>=3.11'
    )
    assert built[0].stat().st_size < 5e6


def test_the_core_is_lean_and_the_extras_hold_each_other(built):
    with zipfile.ZipFile(built[0]) as z:
        meta = message_from_string(z.read(next(n for n in z.namelist() if n.endswith('METADATA'))).decode())
    asked = [Requirement(r) for r in meta.get_all('Requires-Dist')]
    extras = {
        e: {r.name for r in asked if r.marker and r.marker.evaluate({'extra': e})}
        for e in meta.get_all('Provides-Extra')
    }
    core = {r.name for r in asked if not r.marker}
    assert set(extras) == {'align', 'serve', 'ray', 'all', 'dev'} and not extras['ray'] & extras['dev']
    assert (
        extras['align'] | extras['serve'] < extras['all'] < extras['dev']
        and {'trl', 'peft', 'accelerate', 'datasets'} == extras['align']
    )
    assert not core & (extras['dev'] - extras['serve']) and not set(needs(settings()['requirements'].split())) & (
        extras['align'] | {'jupyterlab', 'fastapi'}
    )


def test_version_and_python_are_said_in_one_place():
    cfg, version = settings(), settings()['version']
    assert re.search(r"__version__ = ['\"](.+)['\"]", (ROOT / 'promax_nb' / '__init__.py').read_text())[1] == version
    assert re.search(r'^## (\S+)', (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8'), re.M)[1] == version
    declared = set(re.findall(r'Python :: (3\.\d+)', (ROOT / 'setup.py').read_text(encoding='utf-8')))
    tested = set()
    for step in yaml.safe_load((ROOT / '.github' / 'workflows' / 'test.yml').read_text(encoding='utf-8'))['jobs'][
        'test'
    ]['steps']:
        if 'python-version' in step.get('with', {}):
            tested.add(str(step['with']['python-version']))
    assert declared == tested == {cfg['min_python']}, (
        'a Python version is declared where it is tested, and nowhere else'
    )


def citation_problems(text: str, version: str) -> list:
    """What is wrong with a CITATION.cff."""
    c = yaml.safe_load(text)
    lost = [
        k
        for k in ('cff-version', 'message', 'title', 'authors', 'version', 'license', 'repository-code', 'references')
        if not c.get(k)
    ]
    if lost:
        return [f'lacks {", ".join(lost)}']
    said = [
        ('version', str(c['version']), version),
        ('cff-version', str(c['cff-version']), '1.2.0'),
        ('license', c['license'], 'Apache-2.0'),
        ('repository-code', c['repository-code'], settings()['git_url']),
    ]
    out = [f'{k} is {a}, not {b}' for k, a, b in said if a != b]
    papers = {i['value']: r for r in c['references'] for i in r['identifiers']}
    for paper, year, where in (('arXiv:2604.26231', 2026, 'SIGIR 2026'), ('arXiv:2506.18309', 2025, 'KDD 2025')):
        r = papers.get(paper, {})
        if (r.get('year'), r.get('conference', {}).get('name')) != (year, where):
            out.append(f'{paper} is not cited as {where}')
        elif not all({'family-names', 'given-names'} <= set(a) for a in r['authors']):
            out.append(f'{paper} has an author without a name')
    return out


def test_citation():
    text, version = (ROOT / 'CITATION.cff').read_text(encoding='utf-8'), settings()['version']
    assert citation_problems(text, version) == []
    assert citation_problems(text, '9.9') and citation_problems(text.replace('2506.18309', '0000.00000'), version)
    assert citation_problems(text.replace('license: Apache-2.0\n', ''), version) == ['lacks license']


def examples() -> list:
    """README's python blocks under 'A session', in order."""
    part = (ROOT / 'README.md').read_text(encoding='utf-8').split('\n## A session')[1].split('\n## ')[0]
    return re.findall(r'```python\n(.*?)```', part, re.S)


def test_the_guard_of_these_tests_can_bark(away):
    done = away('python', '-c', f'open({str(ROOT / "README.md")!r})')
    assert done.returncode == 77 and 'REPOSITORY READ' in done.stderr


def test_readme_first_example_away_from_the_repository(away):
    """The words the README shows are the words that come out."""
    code = examples()[0] + '\nimport promax_nb; print("FROM", promax_nb.__file__)'
    done = away('python', '-W', 'error::ImportWarning', '-c', code)
    assert done.returncode == 0, done.stderr[-3000:]
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    shown = re.findall(r'```\n+((?: {4}.*\n)+)', readme.split('\n## A session')[1])[0]
    assert done.stdout.startswith(shown.strip()[:200])
    place = done.stdout.rpartition('FROM ')[2].strip()
    assert place.endswith('site-packages/promax_nb/__init__.py') and not place.startswith(str(ROOT / 'promax_nb'))


def test_commands_of_the_plain_wheel(away):
    """doctor names each missing part with its cure; what needs an extra says so in one sentence and leaves nothing
    behind."""
    done = away('promax', 'doctor')
    assert (
        done.returncode == 0
        and re.search(r'^missing  alignment', done.stdout, re.M)
        and "pip install 'promax_nb[align]'" in done.stdout
    )
    for part in ('core', 'retrieval', 'maps', 'widgets', 'hosted LLMs', 'local LLMs', 'profiles to vectors'):
        assert f'ok       {part} ' in done.stdout
    assert 'git clone' in done.stdout and 'Quarto' in done.stdout
    done = away('promax', 'lettingo')
    assert done.returncode == 2 and "pip install 'promax_nb[align]'" in done.stderr and 'Traceback' not in done.stderr
    assert list(away.folder.iterdir()) == []


@pytest.mark.skipif(
    not os.environ.get('PROMAX_FULL'),
    reason='REDUCED RUN: PROMAX_FULL=1 (make test-full) runs the demo and the whole session of the README',
)
def test_demo_and_whole_session_full(away):
    done = away('python', '-c', '\n'.join(examples()))
    assert done.returncode == 0 and 'recall@20' in done.stdout, done.stderr[-3000:]
    done = away('promax', 'demo')
    assert (
        done.returncode == 0 and 'recall@20' in done.stdout and (away.folder / 'demo-run' / 'report.html').exists()
    ), done.stderr[-3000:]


def test_a_kept_writer_and_the_widgets_need_no_extra(away):
    code = (
        'from promax_nb.all import *\n'
        'data = toy_data(20, 250, density="dense", split="temporal")\n'
        'history = split_history(data, targets=2, users=[0])\n'
        'print(explore(writer(*tiny_lm()), data, history, n=1, form="slots", progress=False).profile[0])\n'
        'print(type(ProfileBrowser).__name__)'
    )
    done = away('python', '-c', code)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2 and len(done.stdout.split()) > 5, done.stderr[
        -3000:
    ]


def mypy(*argv, **how):
    return run(sys.executable, '-m', 'mypy', '--config-file', ROOT / 'mypy.ini', '--no-error-summary', *argv, **how)


def test_types_of_the_package(tmp_path):
    """mypy over promax_nb finds nothing, and finds what is planted."""
    shutil.copytree(ROOT / 'promax_nb', tmp_path / 'promax_nb', ignore=shutil.ignore_patterns('__pycache__'))
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = mypy('--cache-dir', tmp_path / 'cache', cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(tmp_path / 'promax_nb' / 'all.py', 'a') as f:
        f.write('\nversion: int = verdict(as_table)\n')
    done = mypy('--cache-dir', tmp_path / 'cache', cwd=tmp_path, env=env)
    assert done.returncode == 1 and re.fullmatch(
        r'promax_nb/all\.py:\d+: error: .*"str".*"int".*\[assignment\]\n', done.stdout
    ), done.stdout


def test_types_reach_who_uses_the_wheel(away, tmp_path):
    """A program against the installed package: py.typed is seen, right uses pass, wrong ones are found, each on its
    own line."""
    good = ('from promax_nb.all import *\ndata = toy_data(n_users=30)\nresult = fit(MF(data), BPR(), '
        'data)\nprint(result.history, verdict(data).upper())\n')
    bad = ['toy_data(n_user=3)', 'data.no_such_field', 'verdict(data) + 1', 'fit(MF(data))']
    (tmp_path / 'use.py').write_text(good + '\n'.join(bad) + '\n')
    done = mypy(
        '--cache-dir',
        tmp_path / 'cache',
        '--python-executable',
        away.python,
        '--enable-error-code',
        'call-arg',
        'use.py',
        cwd=tmp_path,
    )
    lines = [int(n) for n in re.findall(r'^use\.py:(\d+): error', done.stdout, re.M)]
    assert sorted(set(lines)) == list(range(5, 5 + len(bad))), done.stdout + done.stderr


def public_names() -> dict:
    """Name -> the rooms whose `__all__` lists it."""
    owner = {}
    for path in sorted((ROOT / 'promax_nb').rglob('*.py')):
        if path.name in ('_modidx.py', 'all.py'):
            continue
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__':
                for name in ast.literal_eval(node.value):
                    owner.setdefault(name, []).append('.'.join(path.relative_to(ROOT).with_suffix('').parts))
    return owner


def test_rooms_give_different_names_to_different_things():
    """One public name, one room: a name alone says where it lives."""
    owner = public_names()
    twice = {name: rooms for name, rooms in owner.items() if len(rooms) > 1 and name != 'main'}
    assert not twice and len(owner) > 100, twice


def test_the_front_is_short_and_true():
    """`from promax_nb.all import *` brings what its list says, at most a hundred names, each public in its room."""
    listed, space, owner = front.__all__, {}, public_names()
    exec('from promax_nb.all import *', space)
    assert set(space) - {'__builtins__'} == set(listed) and len(set(listed)) == len(listed) <= 100
    assert not [name for name in listed if name not in owner]
    shown = {node.id for code in examples() for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    assert not [name for name in shown & set(owner) if name not in listed], 'README uses what the front does not bring'


def test_a_name_from_elsewhere_says_where():
    """What 0.1.0 brought by the front still comes, with the room it lives in; what nobody has is refused."""
    with pytest.warns(FutureWarning, match='write `from promax_nb.views.regions import clusters`'):
        from promax_nb.all import clusters
    assert clusters is importlib.import_module('promax_nb.views.regions').clusters
    with pytest.raises(AttributeError, match='neither has any room'):
        exec('front.no_such_name')
    with pytest.raises(ImportError):
        exec('from promax_nb.all import no_such_name')


def test_the_module_is_the_command_too():
    """`accelerate launch -m promax_nb.cli align` depends on it."""
    done = run(sys.executable, '-m', 'promax_nb.cli', '--version', env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.stdout.strip() == distribution('promax_nb').version


def test_doctor_finds_the_lessons(tmp_path, monkeypatch, capsys):
    (tmp_path / 'nbs' / 'lessons').mkdir(parents=True)
    (tmp_path / 'nbs' / 'lessons' / '1_first.ipynb').write_text('{}')
    monkeypatch.chdir(tmp_path / 'nbs')
    assert main(['doctor']) == 0 and f'lessons  1 in {tmp_path / "nbs" / "lessons"}' in capsys.readouterr().out
