"""Lessons in JupyterLab, as a class meets them: all cells run, hints seen, answers typed, the green boxes seen.

The first lesson in every run, all of them with PROMAX_FULL=1 (each takes a kernel of its own).
"""

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
    lesson = opened(path)
    assert lesson.failures() == []
    cells, filled = lesson.book.cells, fill_answers(lesson.book).cells
    exercises = {
        k: re.match(r'(?s).*^exercise\(\s*(\d+),\s*answer_', c.source, re.M)
        for k, c in enumerate(cells)
        if c.cell_type == 'code'
    }
    exercises = {k: int(m[1]) for k, m in exercises.items() if m}
    assert len(exercises) >= 2
    for k, n in exercises.items():
        box = lesson.cell(k).get_by_role('note').filter(has_text=f'○ Exercise {n}: not answered yet.')
        box.wait_for()
        assert re.search(r'not answered yet\. \S+ \S+', box.inner_text()), 'a hint stands behind it'
    screenshot(lesson, f'lesson-{path.stem}-open')
    for k, n in exercises.items():
        at = next(j for j, c in enumerate(cells) if c.source.startswith(f'answer_{n} = None'))
        lesson.type_into(at, filled[at].source)
        lesson.type_into(k, cells[k].source)
        lesson.cell(k).get_by_role('note').filter(has_text=f'✓ Exercise {n}: right.').wait_for()
        screenshot(lesson, f'lesson-{path.stem}-right-{n}')
    assert lesson.failures() == []
    assert_clean(lesson)
