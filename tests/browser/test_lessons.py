"""Lessons in JupyterLab, as a class meets them: all cells run, hints seen, answers typed, the green boxes seen.

The first lesson in every run, all of them with PROMAX_FULL=1 (each takes a kernel of its own).
"""

import ast
import os
import re
from pathlib import Path

import nbformat
import pytest

from promax_nb.teach import fill_answers

from .conftest import _context
from .lab import DONE, PANEL, READY, Notebook, assert_clean, screenshot

LESSONS = sorted((Path(__file__).resolve().parents[2] / 'nbs' / 'lessons').glob('[0-9]*.ipynb'))
RAN = PANEL + '.content.widgets[{}].model.executionCount'


class Lesson(Notebook):
    """A lesson's own notebook, opened and run."""

    def start(self, server, path: Path):
        self.server, self.name, self.book = server, path.name, nbformat.read(path, 4)
        for c in self.book.cells:
            if c.cell_type == 'code':
                c.outputs, c.execution_count = [], None
        nbformat.write(self.book, server.root / path.name)
        self.page.goto(server.address(path.name), wait_until='domcontentloaded')
        self._until(READY, 'the kernel to be ready')
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self._until(DONE, 'all cells to finish')
        return self

    def cell(self, k: int):
        """The k-th cell, brought into view: JupyterLab keeps only those on the page that can be seen."""
        self.page.evaluate(
            f'async k => {{ const n = {PANEL}.content; n.activeCellIndex = k; await n.scrollToItem(k, "center"); }}', k
        )
        place = self.page.locator(f'.jp-Cell[data-windowed-list-index="{k}"]')
        place.wait_for()
        return place

    def run(self, k: int):
        """Run a cell that may be folded, and wait for it."""
        before = self.page.evaluate(f'() => {RAN.format(k)}')
        self.cell(k)
        self.page.evaluate(f'k => {{ {PANEL}.content.activeCellIndex = k; }}', k)
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
        self._until(
            f"() => {RAN.format(k)} > {before} && {PANEL}.sessionContext.session.kernel.status === 'idle'",
            f'cell {k} to run',
        )

    def type_into(self, k: int, source: str):
        """Click into a code cell, replace what stands there, and run it with Shift+Enter, as a person does."""
        before = self.page.evaluate(f'() => {RAN.format(k)}')
        self.cell(k).locator('.cm-content').click()
        self.page.keyboard.press('ControlOrMeta+a')
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press('Shift+Enter')
        self._until(
            f"() => {RAN.format(k)} > {before} && {PANEL}.sessionContext.session.kernel.status === 'idle'",
            f'cell {k} to run',
        )


@pytest.fixture(scope='module')
def opened(browser, lab):
    """One lesson at a time, closed with its kernel afterwards."""
    context, lessons = _context(browser), []

    def open_one(path):
        lessons.append(Lesson(context))
        return lessons[-1].start(lab, path)

    yield open_one
    for x in lessons:
        x.close()
    context.close()


@pytest.mark.parametrize('path', LESSONS if os.environ.get('PROMAX_FULL') else LESSONS[:1], ids=lambda p: p.stem)
def test_a_class_works_through_a_lesson(opened, path):
    """As a mediocre student does: a guess by click, two wrong answers, the hints they bring, then the right one."""
    lesson = opened(path)
    assert lesson.failures() == []
    guess_and_meet(lesson)
    cells = lesson.book.cells
    filled = {kind: fill_answers(lesson.book, kind).cells for kind in ('mistake', 'answer')}
    exercises = {
        k: re.match(r'(?s).*^exercise\(\s*(\d+),\s*answer_', c.source, re.M)
        for k, c in enumerate(cells)
        if c.cell_type == 'code'
    }
    exercises = {k: int(m[1]) for k, m in exercises.items() if m}
    assert len(exercises) >= 2
    for k, n in exercises.items():
        lesson.cell(k).get_by_role('note').filter(has_text=f'○ Exercise {n}: not answered yet. Hints come').wait_for()
    screenshot(lesson, f'lesson-{path.stem}-open')
    for k, n in exercises.items():
        at = next(j for j, c in enumerate(cells) if c.source.startswith(f'answer_{n} = None'))
        first, second = ast.literal_eval(re.search(r'(?s)^hints = (\(.*?\n\))', cells[k].source, re.M)[1])
        tries = (filled['mistake'][at].source, first, second), (f'answer_{n} = -1e99', second, None)
        for wrong, seen, hidden in tries:
            lesson.type_into(at, wrong)
            lesson.run(k)
            box = lesson.cell(k).get_by_role('note').filter(has_text=f'↻ Exercise {n}: not yet.')
            box.filter(has_text=seen).wait_for()
            assert hidden is None or hidden not in box.inner_text()
        screenshot(lesson, f'lesson-{path.stem}-wrong-{n}')
        lesson.type_into(at, filled['answer'][at].source)
        lesson.run(k)
        lesson.cell(k).get_by_role('note').filter(has_text=f'✓ Exercise {n}: right.').wait_for()
    assert lesson.failures() == []
    assert_clean(lesson)


def guess_and_meet(lesson):
    """Click a wrong choice of the first prediction, and meet it beside the result."""
    sources = [c.source for c in lesson.book.cells]
    asked = next(k for k, source in enumerate(sources) if source.startswith('guess_1 = predict('))
    met = next(k for k, source in enumerate(sources) if re.search(r'^guess_1\.met\(', source, re.M))
    choices = lesson.cell(asked).get_by_role('radio')
    right = lesson.cell(met).get_by_role('note').filter(has_text='Your guess: none was made. It is: ').inner_text()
    labels = [text.strip() for text in lesson.cell(asked).locator('label').all_inner_texts() if text.strip()]
    wrong = next(k for k, label in enumerate(labels) if f'It is: {label}' not in right)
    lesson.cell(asked)
    choices.nth(wrong).check()
    lesson.run(met)
    lesson.cell(met).get_by_role('note').filter(has_text=f'Your guess: {labels[wrong]}. It is: ').wait_for()
    screenshot(lesson, f'lesson-{lesson.name}-guess')
