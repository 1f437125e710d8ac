"""PairBrowser in JupyterLab: candidates, targets and pairs of the user that is picked; hostile texts stay texts."""

import pytest

from .hostile import TEXTS
from .lab import assert_clean, screenshot, unread

SHOW = """data, past, texts, scores, pairs, after = {name}_tables = pair_tables({hostile})
{name} = PairBrowser(data, past, texts, scores, pairs, before=texts[texts['sample'] == 0], after=after)
{name}.add_class('t-{name}')
{name}"""
CELLS = [
    'from browser.hostile import pair_tables\nfrom promax_nb.views.pairs import PairBrowser',
    SHOW.format(name='good', hostile=False),
    SHOW.format(name='bad', hostile=True),
]


@pytest.fixture(scope='module')
def book(open_notebook):
    nb = open_notebook(CELLS, 'pairs.ipynb')
    assert nb.failures() == []
    return nb


def test_the_user_that_is_picked_is_shown_whole(book):
    root = book.page.locator('.t-good')
    first = book.value('good.user')
    assert book.value('len(good.chosen)') > 0  # one with pairs comes first
    root.get_by_label('Users').select_option(index=5)
    user = book.until('good.user', lambda u: u != first)
    root.get_by_role('heading', name=book.value('good.scene.name("user", good.user)')).first.wait_for()
    for title in ('What the writer saw', 'What the judge sees', 'Held out'):
        root.locator('summary', has_text=title).click()
    seen = root.inner_text()
    frame = book.value('good.frame')
    assert len(frame) == 6 and [x['logp'] for x in frame] == sorted((x['logp'] for x in frame), reverse=True)
    for x in frame:
        assert ' '.join(x['profile'].split())[:60] in ' '.join(seen.split())
    titles = book.value("good.scene.data.items.title[good.targets['item']].tolist()")
    assert len(titles) == 12 and all(t in seen for t in titles)
    assert 'The writer before and after' in seen and user == book.value('good.user')
    screenshot(root, 'pairs')
    assert_clean(book)


def test_search_picks_a_user(book):
    root = book.page.locator('.t-good')
    name = book.value('good.scene.data.users.user[11]')
    root.get_by_role('textbox', name='User').fill(name)
    root.get_by_role('textbox', name='User').press('Enter')
    assert book.until('good.user', lambda u: u == 11) == 11
    root.get_by_role('heading', name='user #11').first.wait_for()


def test_a_user_that_was_not_explored_says_so(book):
    book.run('good.user = 22')
    book.page.locator('.t-good').get_by_text('no candidate profiles').wait_for()


def test_hostile_texts_stay_texts(book):
    root, seen = book.page.locator('.t-bad'), ''
    for user in range(20):
        book.run(f'bad.user = {user}')
        book.until('bad.user', lambda u, user=user: u == user)
        seen += root.inner_text()
    screenshot(root, 'pairs-hostile')
    assert unread([t for t in TEXTS.values() if t.strip()], seen) == []
    assert_clean(book)
