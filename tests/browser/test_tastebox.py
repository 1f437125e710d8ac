"""TasteBox in JupyterLab: typing changes both lists, a click says why, hostile texts stay texts."""

import pytest

from .hostile import TEXTS
from .lab import assert_clean, screenshot, unread

SHOW = """{name} = TasteBox(served({scene}()), n=8)
{name}.add_class('t-{name}')
{name}"""
CELLS = [
    'from browser.hostile import hostile_scene, served, small_scene\nfrom promax_nb.all import TasteBox',
    SHOW.format(name='good', scene='small_scene'),
    SHOW.format(name='bad', scene='hostile_scene'),
]


@pytest.fixture(scope='module')
def book(open_notebook):
    nb = open_notebook(CELLS, 'tastebox.ipynb')
    assert nb.failures() == []
    return nb


def test_lists_change_as_one_types(book):
    root = book.page.locator('.t-good')
    root.get_by_text('this is what is popular').wait_for()
    popular = book.value('good.after.item.tolist()')
    taste = root.get_by_role('textbox', name='Taste')
    taste.press_sequentially('winter walks', delay=20)  # keys, one after the other, without leaving the box
    first = book.until('good.after.item.tolist()', lambda items: items != popular)
    answers = book.value('good.typing.answered')
    assert answers < 8, 'every key was answered: nothing waited for the others'
    assert book.value('good.guest is not None') and book.value('good.text.value') == 'winter walks'
    taste.press_sequentially(' and harbours, no mountains', delay=20)
    book.until('[good.text.value, good.typing.waiting]', lambda now: now[0].endswith('mountains') and not now[1])
    assert book.value('good.after.item.tolist()') != first
    for place, title in enumerate(book.value('good.after.title.tolist()'), 1):
        line = root.locator('select').last.locator('option', has_text=f'{place}. {title}')
        line.wait_for(state='attached')
    screenshot(root, 'tastebox')
    assert_clean(book)


def test_a_liked_item_and_a_click(book):
    root = book.page.locator('.t-good')
    item, title = book.value('good.served.items.item[5]'), book.value('good.served.items.title[5]')
    root.get_by_role('textbox', name='Liked').fill(item)
    root.get_by_role('textbox', name='Liked').press('Tab')
    found = root.get_by_label('Found')
    found.locator('option', has_text=title).first.wait_for(state='attached')
    found.select_option(index=0)
    assert book.until('good.liked.ids', lambda ids: ids == [item]) == [item]
    root.get_by_role('button', name=title).wait_for()
    book.until('good.guest.known.tolist()', lambda known: known == [5])
    root.locator('select').last.select_option(index=1)
    chosen = book.until('good.why and good.why.item', bool)
    assert chosen == book.value('good.after.item[1]')
    root.get_by_text('words of the profile').first.wait_for()
    screenshot(root, 'tastebox-why')
    root.get_by_role('button', name='Clear').click()
    assert book.until('good.guest is None', bool) and book.value('good.liked.ids') == []


def test_hostile_texts_stay_texts(book):
    root = book.page.locator('.t-bad')
    book.run('bad.ask("<img src=x onerror=__hit(1)> winter", bad.served.items.item[:2].tolist())')
    for place in range(4):
        book.run(f'bad.explain(bad.after.item[{place}])')
    texts = list(TEXTS.values())
    for text in texts[:12]:
        root.get_by_role('textbox', name='Taste').fill(text)
        book.until('bad.text.value', lambda value, text=text: value == text)
    shown = root.locator('select').last.inner_text()
    assert unread([title for title in book.value('bad.after.title.tolist()') if title.strip()], shown) == []
    assert_clean(book)
