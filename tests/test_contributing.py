"""The recipes of CONTRIBUTING.md, exactly as it prints them, and its map of the rooms."""

import ast
import re
from pathlib import Path

import jupytext
import numpy as np
import pytest

from promax_nb.data.bookshop import toy_data
from promax_nb.lettingo.explore import explore
from promax_nb.lettingo.histories import split_history
from promax_nb.lettingo.judge import judge, predictions
from promax_nb.lettingo.styles import styled
from promax_nb.models.evaluate import compare
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.train import fit
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.template import template
from promax_nb.profiles.write import write
from promax_nb.teach import fill_answers

ROOT = Path(__file__).resolve().parent.parent


def recipe(heading, mark='```'):
    """The one code cell under a heading."""
    part = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8').split(f'\n## {heading}\n')[1].split('\n## ')[0]
    (cell,) = re.findall(rf'^{mark}python\n(.*?)^{mark}$', part, re.S | re.M)
    return cell


def test_a_fifth_base_in_one_cell():
    space = {}
    exec(recipe('Add a base recommender in one cell'), space)
    data, rng = toy_data(120, 60), np.random.default_rng(0)
    su, si, extra = rng.normal(size=(120, 8)), rng.normal(size=(60, 8)), data.train * 0
    for objective in (BPR(), ProMax(su, si, extra)):
        result = fit(space['OneHop'](data, dim=8), objective, data, epochs=6, batch=256, lr=0.01)
        assert result.history.bpr.iloc[-1] < result.history.bpr.iloc[0] and result.model.mix.item() != 0
    assert 'recall@20' in compare(result, result, data).index


@pytest.fixture(scope='module')
def world():
    data = toy_data(40, 250, density='dense', split='temporal')
    return data, split_history(data, targets=4, users=list(range(8)))


def test_a_writer_in_one_cell(world):
    space = {}
    exec(recipe('Add a writer in one cell'), space)
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
        if hasattr(value, 'state'):
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


def test_the_map_of_rooms_is_true():
    """CONTRIBUTING's table names every numbered notebook there is, and imports point to lower numbers only."""
    text, books = (
        (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8'),
        sorted((ROOT / 'nbs').glob('[0-9][0-9]_*.ipynb')),
    )
    named = re.findall(r'^\| (\d\d_\w+) \|', text, re.M)
    assert named == [b.stem for b in books]
    number = {b.stem[3:]: int(b.stem[:2]) for b in books}
    for b in books:
        module = (ROOT / 'promax_nb' / f'{b.stem[3:]}.py').read_text(encoding='utf-8')
        for other in re.findall(r'from promax_nb\.(\w+) import', module) + re.findall(r'from \.(\w+) import', module):
            assert number[other] < int(b.stem[:2]), f'{b.stem} imports {other}'
