"""What README, CONTRIBUTING, the prose of the notebooks and the command line's help name in code letters exists:
files, commands, options, extras, names."""

import ast
import builtins
import contextlib
import inspect
import io
import json
import keyword
import re
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import implicit.cpu.als
import implicit.evaluation
import nbformat
import numpy as np
import pytest

from promax_nb.cli import main, parser

ROOT = Path(__file__).resolve().parent.parent
FOREIGN = {  # placeholders, files that a recipe makes, names of the data sets' files, what `make docs` writes
    'nbs/NN_name.ipynb',
    'promax_nb/name.py',
    'nbs/models/09_train.py',
    '/NN_name.ipynb',  # nbs/<wing>/NN_name.ipynb
    '/name.py',
    'nbs/lessons/7_counting.ipynb',
    'pkl',
    'r0007',
    'llms.txt',
}
SUFFIXES = tuple(
    '.py .ipynb .md .ini .toml .cff .yml .yaml .js .css .html .json .parquet .csv .db .safetensors .txt'.split()
)


def tree_names(code: str) -> set:
    """Every identifier of a piece of Python, and every word of its strings that are not docstrings."""
    found = set()
    for n in ast.walk(ast.parse(code)):
        for field in ('id', 'attr', 'arg', 'name', 'asname', 'module'):
            if isinstance(v := getattr(n, field, None), str):
                found.update([v, *v.split('.')])
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant):
            n.value = ast.Constant(0)
        elif isinstance(n, ast.Constant) and isinstance(n.value, str):
            found.update(re.findall(r'[\w.@%-]+', n.value))
    return found


def own_names(notebook) -> set:
    """What its code cells name, code that waits behind a # included."""
    lines = [line for c in notebook.cells if c.cell_type == 'code' for line in c.source.split('\n')]
    waiting = {word for line in lines if line.startswith('# ') for word in re.findall(r'\w+', line)}
    return waiting | tree_names('\n'.join('pass' if re.match(r'\s*[%!]', line) else line for line in lines))


class House:
    """What there is."""

    def __init__(self):
        self.names = (
            set(dir(builtins))
            | set(keyword.kwlist)
            | set(packages_distributions())
            | set(dir(np))
            | set(dir(np.random.Generator))
        )
        for path in [
            *(ROOT / 'promax_nb').rglob('*.py'),
            *(ROOT / 'benchmarks').glob('*.py'),
            ROOT / 'setup.py',
            ROOT / 'tests' / 'frame.py',
            ROOT / 'tests' / 'conftest.py',
            *(ROOT / 'tests').glob('*outside.py'),  # what other libraries call theirs: these run it
            *(ROOT / 'tests').glob('outside/in_*.py'),
        ]:
            self.names |= {path.stem} | tree_names(path.read_text(encoding='utf-8'))
            module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
            self.names |= {module, module.removeprefix('promax_nb.')}
        self.names |= {path.stem for path in (ROOT / 'tests').glob('test_*.py')}
        self.targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.M))
        config = ConfigParser(delimiters=['='])
        config.read(ROOT / 'settings.ini', encoding='utf-8')
        self.names |= set(config['DEFAULT']) | set(
            re.findall(r"'(\w+)': wanted", (ROOT / 'setup.py').read_text(encoding='utf-8'))
        )
        self.extras = set(re.findall(r"'(\w+)': wanted", (ROOT / 'setup.py').read_text(encoding='utf-8')))
        self.commands = {}
        (action,) = (a for a in parser()._actions if a.choices and not a.option_strings)
        for name, sub in action.choices.items():
            self.commands[name] = {o for a in sub._actions for o in a.option_strings}
        made = {'.git', '.venv', '_docs', '_proc', '__pycache__'}
        self.files = {
            p.relative_to(ROOT).as_posix() for p in ROOT.rglob('*') if not made & set(p.relative_to(ROOT).parts)
        }
        self.files |= {f.rpartition('/')[2] for f in self.files} | {
            Path(f).stem for f in self.files if f.endswith('.ipynb')
        }
        self.files |= {f.removeprefix('nbs/') for f in self.files}

    def problem(self, text: str, own=frozenset()) -> str | None:
        """Why this piece of code names something that is not there."""
        for target in re.findall(r'(?:^|\s)make ([a-z][\w-]*)', text):
            if target not in self.targets:
                return f'make {target} is no target of the Makefile'
        for extra in re.findall(r'promax_nb\[(\w+)\]', text):
            if extra not in self.extras:
                return f'{extra} is no extra of the package'
        for command, rest in re.findall(r'(?:^|\s)(?:promax|-m promax_nb\.cli) ([a-z][\w-]*)(.*)', text):
            if command not in self.commands:
                return f'promax {command} is no command'
            for option in re.findall(r'(?<=\s)--[a-z][\w-]*', rest):
                if option not in self.commands[command]:
                    return f'promax {command} has no option {option}'
        for name in re.findall(r'-m (promax_nb[\w.]*)', text):
            if not (ROOT / (name.replace('.', '/') + '.py')).exists():
                return f'there is no module {name}'
        for path in re.findall(r'(?<![\w/.:-])[\w.-]*(?:/[\w.-]+)*/?(?![\w/:-])', text):
            of_reader = text.startswith('promax run ') and path.endswith(('.csv', '.toml'))
            if path in FOREIGN | self.names or of_reader or path.startswith(('/', 'RUN/')):
                continue  # a reader runs on files of his own; an address of a service is no file
            if path.rstrip('/').endswith(SUFFIXES) or re.fullmatch(
                r'(?:nbs|promax_nb|tests|docs|configs|benchmarks|lessons|\.github)/.*', path
            ):
                if path.rstrip('/') not in self.files and path not in self.names | own:
                    return f'there is no file {path}'
        if re.search(r'\s', re.sub(r"\(.*\)|'[^']*'", '', text.strip(), flags=re.S)):
            return None  # a sentence, a formula or a command: looked at above
        for name in re.findall(
            r'(?<![\w./\[-])([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?=\(|$|=|,|\))',
            re.sub(r"'[^']*'|\"[^\"]*\"", "''", text.strip()),
        ):
            for part in name.split('.'):
                if (
                    part not in self.names
                    and part not in own
                    and part not in FOREIGN
                    and name not in self.files | FOREIGN
                ):
                    return f'there is no name {part}'
        return None


def inline(markdown: str) -> list:
    """Pieces in code letters: `...` in a line, and the lines of fenced blocks of shell commands."""
    fences = re.compile(r'^(`{3,}|~{3,})(\w*)\n(.*?)^\1', re.M | re.S)
    out = [
        line.split('   #')[0]
        for _, kind, body in fences.findall(markdown)
        if kind in ('sh', 'bash', 'shell')
        for line in body.splitlines()
    ]
    return out + re.findall(r'(?<!`)`([^`\n]+)`(?!`)', fences.sub('', markdown))


def helps() -> str:
    """What every command says to --help."""
    out = io.StringIO()
    commands = 'demo run map recommend similar explain serve lettingo align doctor'.split()
    for argv in ([], *([command] for command in commands)):
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            main([*argv, '--help'])
    return out.getvalue()


@pytest.fixture(scope='module')
def house():
    return House()


def of_other_libraries() -> set:
    """Calls of implicit, RecTools and LensKit with their arguments; tests/test_outside.py looks at each of them."""
    found = set()
    for path in (ROOT / 'tests' / 'outside').glob('*.json'):
        for name, arguments in json.loads(path.read_text(encoding='utf-8')).get('calls', {}).items():
            found |= {*name.split('.'), *arguments}
    for home in (implicit.evaluation, implicit.cpu.als.AlternatingLeastSquares):
        for name, value in inspect.getmembers(home, inspect.isroutine):
            if not name.startswith('_'):
                found |= {name, *inspect.signature(value).parameters}
    return found


def looked_at():
    """(place, text, names of its own) of everything that is read here."""
    for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'):
        text = (ROOT / name).read_text(encoding='utf-8')
        recipes = [c for c in re.findall(r'^```python\n(.*?)^```', text, re.M | re.S) if not c.startswith('%')]
        yield name, inline(text), set().union(*map(tree_names, recipes))
    for path in sorted((ROOT / 'nbs').rglob('*.ipynb')):
        if '.ipynb_checkpoints' in path.parts:
            continue
        book = nbformat.read(path, 4)
        yield (
            path.relative_to(ROOT).as_posix(),
            [p for c in book.cells if c.cell_type == 'markdown' for p in inline(c.source)],
            own_names(book) | (of_other_libraries() if path.stem == 'other_libraries' else set()),
        )


def test_every_name_exists(house):
    wrong, seen = [], 0
    for place, pieces, own in looked_at():
        seen += len(pieces)
        wrong += [f'{place}: `{p}`: {why}' for p in pieces if (why := house.problem(p, own or frozenset()))]
    assert not wrong and seen > 300, '\n'.join(wrong)


def test_help_names_what_exists(house):
    text = helps()
    assert 'usage: promax run' in text
    for line in re.findall(r'`([^`]+)`|(promax [a-z-]+ --[a-z-]+)|((?:configs|nbs)/[\w./-]*)', text):
        assert house.problem(''.join(line)) is None, line
    assert {c for c in re.findall(r'^usage: promax ([a-z]+)', text, re.M)} == set(house.commands)
    examples = [
        p
        for line in (ROOT / 'configs').iterdir()
        for p in re.findall(r'^#\s+(accelerate .*)', line.read_text(encoding='utf-8'), re.M)
    ]
    assert examples and all(house.problem(e) is None for e in examples)


@pytest.mark.parametrize(
    'text',
    [
        'make dmeo',
        'promax frobnicate',
        'promax run --no-such-option 3',
        "pip install 'promax_nb[alien]'",
        'nbs/99_gone.ipynb',
        'tests/test_gone.py',
        'toy_dtaa()',
        'python -m promax_nb.gone',
        'MapExplorer.lassoo(3)',
        'whitten',
        'TrainConfig(epocs=3)',
        'views.no_such_view',
    ],
)
def test_what_does_not_exist_is_found(house, text):
    assert house.problem(text)


@pytest.mark.parametrize(
    'text',
    [
        'make demo',
        'promax run --base MF',
        "pip install 'promax_nb[align]'",
        'nbs/data/00_storage.ipynb',
        'README.md',
        "toy_data(density='dense')",
        'python -m promax_nb.cli',
        'MapExplorer',
        'whiten',
        'TrainConfig(epochs=3)',
        'x @ y.T',
    ],
)
def test_what_exists_passes(house, text):
    assert house.problem(text) is None
