"""The recipes of CONTRIBUTING.md, exactly as it prints them, and its map of the rooms."""

import ast
import re
from pathlib import Path

import house
import jupytext
import numpy as np
import pytest

from promax_nb.data.bookshop import toy_data
from promax_nb.lettingo.explore import explore
from promax_nb.lettingo.histories import split_history
from promax_nb.lettingo.judge import judge, predictions
from promax_nb.lettingo.styles import styled
from promax_nb.models.bases import MF
from promax_nb.models.inference import compare
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.train import fit
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.template import template
from promax_nb.profiles.write import write
from promax_nb.teach import fill_answers

ROOT = Path(__file__).resolve().parent.parent
# a wing imports from those before it
WINGS = ('data', 'profiles', 'retrieval', 'models', 'recommend', 'lettingo', 'views')


def recipe(heading, mark='```'):
    """The one code cell under a heading."""
    part = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8').split(f'\n## {heading}\n')[1].split('\n## ')[0]
    (cell,) = re.findall(rf'^{mark}python\n(.*?)^{mark}$', part, re.S | re.M)
    return cell


def run_the_contract(heading, space):
    """The line that ends a recipe, as it prints it."""
    part = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8').split(f'\n## {heading}\n')[1].split('\n## ')[0]
    (call,) = re.findall(r'^Run the contract: `(promax_nb\.testing\..+?\))`', part, re.M)
    exec(f'import promax_nb.testing\n{call}', space)


def test_a_fifth_base_in_one_cell():
    space = {}
    exec(recipe('Add a base recommender in one cell'), space)
    run_the_contract('Add a base recommender in one cell', space)
    data, rng = toy_data(120, 60), np.random.default_rng(0)
    su, si, extra = rng.normal(size=(120, 8)), rng.normal(size=(60, 8)), data.train * 0
    for objective in (BPR(), ProMax(su, si, extra)):
        result = fit(space['OneHop'](data, dim=8), objective, data, epochs=6, batch=256, lr=0.01)
        assert result.history.bpr.iloc[-1] < result.history.bpr.iloc[0] and result.model.mix.item() != 0
    assert 'recall@20' in compare(result, result, data).index


def test_an_objective_in_one_cell():
    space = {}
    exec(recipe('Add an objective in one cell'), space)
    run_the_contract('Add an objective in one cell', space)
    data = toy_data(120, 60)
    how = dict(epochs=6, batch=256, lr=0.01)
    free, dear = (fit(MF(data, dim=8), space['Popular'](price), data, **how) for price in (0, 1.0))
    assert np.linalg.norm(dear.items) < np.linalg.norm(free.items) and 'length' in dear.history
    assert dear.card['objective'] == {'objective': 'Popular', 'price': 1.0}


@pytest.fixture(scope='module')
def world():
    data = toy_data(40, 250, density='dense', split='temporal')
    return data, split_history(data, targets=4, users=list(range(8)))


def test_a_writer_in_one_cell(world):
    space = {}
    exec(recipe('Add a writer in one cell'), space)
    run_the_contract('Add a writer in one cell', space)
    data, history = world
    items = write(template(), item_prompts(data))
    users = write(space['three_titles'], user_prompts(data, items))
    titles = set(data.items['title'])
    assert (users['status'] == 'ok').all() and (users['writer'] == 'three_titles').all()
    assert all(t in titles for t in users.profile[0].removeprefix('Enjoys ').removesuffix('.').split(', '))
    several = explore([space['three_titles'], template(seed=0)], data, history, n=2, progress=False)
    assert set(several['writer']) == {'three_titles', 'template'} and (several['status'] == 'ok').all()
    failed = explore(lambda_named('silent', lambda prompt: ''), data, history, n=1, progress=False)
    assert (failed['status'] == 'failed').all() and failed['reason'].str.len().gt(0).all()


def lambda_named(name, f):
    f.__name__ = name
    return f


def test_a_judge_in_one_cell(world):
    space = {}
    exec(recipe('Add a judge in one cell'), space)
    run_the_contract('Add a judge in one cell', space)
    data, history = world
    profiles = explore([styled('true'), styled('vague')], data, history, n=1, progress=False)
    answers = predictions(profiles, data, history, space['overlap'], progress=False)
    assert (answers['status'] == 'ok').all() and set(answers['predicted']) == {'like', 'neutral'}
    said = answers['predicted'].eq('like').groupby(answers['writer']).mean()
    assert said['style:true'] > said['style:vague'], 'a profile that names tastes has more to overlap with'
    assert len(judge(profiles, data, history, space['overlap'], progress=False)) == len(profiles)


def outcomes(book):
    """Run a notebook's cells in one namespace: exercise -> how it stands."""
    space, found = {}, {}
    for c in book.cells:
        if c.cell_type != 'code':
            continue
        *first, last = ast.parse(c.source).body
        exec(compile(ast.Module(first, []), 'lesson', 'exec'), space)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), 'lesson', 'eval'), space)
        else:
            value = exec(compile(ast.Module([last], []), 'lesson', 'exec'), space)
        if getattr(value, 'number', 0):  # 0: a guess
            found[value.number] = value.state
    return found


def test_a_lesson():
    """The lesson that the recipe prints has what lessons have, and its exercises see the difference."""
    book = jupytext.reads(recipe('Add a lesson', '````'), fmt='py:percent')
    first, second, last = book.cells[0].source, book.cells[1].source, book.cells[-1].source
    assert (
        re.match(r'# Lesson \d+: .+\n\n> .+', first)
        and '<!-- badge -->' in second
        and 'colab.research.google.com' in second
    )
    assert 'Instructor notes' in last and any('predict(' in c.source for c in book.cells)
    assert outcomes(book) == {1: 'open', 2: 'open'}
    assert outcomes(fill_answers(book, 'mistake')) == {1: 'wrong', 2: 'wrong'}
    assert outcomes(fill_answers(book)) == {1: 'right', 2: 'right'}


def rooms() -> list:
    """(name, place in the order of imports) of every room that a numbered notebook exports, in reading order."""
    wings = [p.parent.name for p in (ROOT / 'promax_nb').glob('*/__init__.py')]
    order = [wing for wing in WINGS if wing in wings]
    assert set(order) == set(wings), 'a wing is not in WINGS'
    found = []
    for path in (ROOT / 'nbs').rglob('[0-9][0-9]_*.ipynb'):
        number, name = path.stem.split('_', 1)
        wing = path.parent.name
        if wing in order:
            found.append(((order.index(wing), int(number)), f'{wing}.{name}'))
        elif wing == 'nbs':
            found.append(((len(order), int(number)), name))
    return [(name, place) for place, name in sorted(found)]


def imported(module: str, names: dict) -> set:
    """The rooms that a room imports, at the top or inside a function."""
    path = ROOT / 'promax_nb' / (module.replace('.', '/') + '.py')
    package = ['promax_nb', *module.split('.')[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = '.'.join([*above, *filter(None, [node.module])])
            found |= {origin} | {f'{origin}.{alias.name}' for alias in node.names}
    return {name for name in names if f'promax_nb.{name}' in found}


def the_map() -> list:
    """(room, what it does, test file) as CONTRIBUTING's table has them."""
    text = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    return re.findall(r'^\| `([\w.]+)` \| (.+?) \| `(\w+)` \|$', text, re.M)


def test_the_map_names_every_room_in_order():
    assert [room for room, _, _ in the_map()] == [name for name, _ in rooms()]
    for room, purpose, held_by in the_map():
        assert (ROOT / 'promax_nb' / (room.replace('.', '/') + '.py')).exists(), room
        assert (ROOT / 'tests' / f'{held_by}.py').exists(), f'{room} is held by {held_by}'
        assert len(purpose.split()) > 5, f'{room}: say what enters and what leaves'


def test_imports_point_down_the_map():
    places = dict(rooms())
    upward = [
        f'{room} imports {other}'
        for room, place in places.items()
        for other in imported(room, places)
        if places[other] >= place
    ]
    assert not upward


def test_an_import_inside_a_function_is_seen():
    places = dict(rooms())
    assert 'data.frames' in imported('experiment', places)
    assert 'data.storage' in imported('data.interactions', places)


def test_rooms_are_small_and_readable():
    """What CONTRIBUTING says of lines, rooms and walls, measured by tests/house.py."""
    found = house.measure(ROOT / 'promax_nb')
    total = found['summary']
    assert total['chains'] == 0 and total['one_line_bodies'] == 0
    assert total['widget_depth'] <= 2 and total['names_in_all'] <= 100
    for room in found['rooms']:
        assert room['lines'] <= 700, f'{room["name"]} has {room["lines"]} lines'
        assert room['density'] < 5.5, f'{room["name"]}: {room["density"]} expression nodes a line, {room["densest"]}'
        assert not room['private_imports'] + room['private_attributes'], room
