"""The widgets in JupyterLab: controls are used with mouse and keyboard, and what Python sees changes.

Hostile texts stay texts, and errors are shown.
"""

import pytest

from .hostile import TEXTS
from .lab import Plot, assert_clean, assert_keeps_data, screenshot, unread

IMPORTS = '''from browser.hostile import hostile_scene, small_scene
from promax_nb.all import CandidateExplorer, DistributionExplorer, ProfileBrowser'''
SHOW = """{p}browser, {p}dist = ProfileBrowser({p}scene), DistributionExplorer({p}scene)
{p}cand = CandidateExplorer({p}scene)
for name in ('{p}browser', '{p}dist', '{p}cand'): globals()[name].add_class('t-' + name)
display({p}browser, {p}dist, {p}cand)"""
CELLS = [IMPORTS, 'scene, bad_scene = small_scene(), hostile_scene()', SHOW.format(p=''), SHOW.format(p='bad_')]


@pytest.fixture(scope='module')
def book(open_notebook):
    nb = open_notebook(CELLS, 'widgets.ipynb')
    assert nb.failures() == []
    return nb


@pytest.fixture
def browser_(book):
    return book.page.locator('.t-browser')


def test_browser_search_opens_a_card(book, browser_):
    browser_.get_by_role('textbox', name='Search').fill('u007')
    browser_.get_by_role('textbox', name='Search').press('Enter')
    browser_.get_by_text('Enjoys harbours and brass bands').first.wait_for()
    assert book.until('browser.picked', lambda p: p == ['user', 7])
    row = book.value('browser.selected')[0]
    assert (
        row['kind'] == 'user'
        and row['row'] == 7
        and row['id'] == 'u007'
        and row['profile'].startswith('Enjoys harbours and brass bands')
    )
    assert book.value('browser.results')[0]['row'] == 7
    for name in ('Results', 'Users near', 'Items near'):
        assert browser_.get_by_label(name).bounding_box()['width'] > 120  # wide enough to read
    screenshot(browser_, 'browser-card')


def test_browser_lists_what_is_shown_and_says_why(book, browser_):
    assert book.until('browser.picked', lambda p: p == ['user', 7])
    after = browser_.get_by_label('After', exact=True)
    labels = after.locator('option').all_inner_texts()
    assert len(labels) == 10 and labels[0].startswith('1.')
    assert browser_.get_by_label('Before', exact=True).bounding_box()['width'] > 120
    after.select_option(index=1)
    why = browser_.locator('.px-why')
    why.wait_for()
    assert 'by profile alone' in why.inner_text() and 'goes along with the history' in why.inner_text().lower()
    item = book.value('browser.shown.item')
    assert labels[1].endswith(f'#{item}')
    screenshot(browser_, 'browser-why')
    browser_.get_by_role('button', name='Open item').first.click()
    assert book.until('browser.picked', lambda p: p == ['item', item]) and not why.count()


def test_browser_radio_menu_and_list_change_card_and_frame(book, browser_):
    browser_.get_by_role('textbox', name='Search').fill('')
    browser_.get_by_label('item', exact=True).check()
    browser_.get_by_label('by', exact=True).select_option('words')
    browser_.get_by_role('textbox', name='Search').fill('mountain huts')
    browser_.get_by_role('textbox', name='Search').press('Enter')
    found = book.until(
        'browser.results', lambda r: len(r) and all(x['kind'] == 'item' and x.get('how') == 'words' for x in r)
    )
    results = browser_.get_by_label('Results')
    results.locator('option', has_text=found[1]['name']).wait_for(state='attached')
    results.select_option(index=1)
    assert (
        book.until('browser.selected', lambda s: s and s[0]['kind'] == 'item' and s[0]['row'] == found[1]['row'])[0][
            'name'
        ]
        == found[1]['name']
    )
    browser_.get_by_role('heading', name=found[1]['name']).first.wait_for()


def test_browser_edit_changes_vector_neighbours_and_distribution(book, browser_):
    book.run("browser.show('user', 3)")
    before = book.value('browser.neighbours')
    editor = browser_.get_by_role('textbox', name='Profile')
    editor.fill('Reads about winter walks and slow trains <b>only</b>.')
    browser_.get_by_role('button', name='Apply').click()
    edits = book.until('browser.edited', len)
    assert edits[0]['kind'] == 'user' and edits[0]['row'] == 3 and 'slow trains <b>only' in edits[0]['after']
    assert book.value('browser.neighbours') != before
    screenshot(browser_, 'browser-edited')
    browser_.get_by_role('button', name='Undo').click()
    book.until('browser.neighbours', lambda n: n == before)


def test_a_broken_callback_shows_its_error(book, browser_):
    """The positive control of the alert: a method that raises on purpose."""
    book.run(
        "def broken(*a, **k): raise RuntimeError('planted <img src=x onerror=__hit(9)> fault')\n"
        'browser.finder.lookup.find = broken'
    )
    browser_.get_by_role('button', name='Search').click()
    alert = browser_.get_by_role('alert').filter(has_text='fault')
    alert.wait_for()
    assert 'planted <img src=x onerror=__hit(9)> fault' in alert.inner_text()
    screenshot(browser_, 'browser-error')
    book.run('del browser.finder.lookup.find')
    browser_.get_by_role('button', name='Search').click()
    alert.wait_for(state='detached')
    assert_clean(book)


@pytest.fixture
def dist_(book):
    return book.page.locator('.t-dist')


def test_distribution_list_and_search_pick_a_user(book, dist_):
    first = book.value('dist.frame.p')
    dist_.get_by_label('Users').select_option(index=4)
    assert book.until('dist.frame.p', lambda p: p != first) and book.value('dist.user') == 4
    dist_.get_by_role('heading', name='u004').wait_for()
    dist_.get_by_role('textbox', name='User').fill('u011')
    dist_.get_by_role('textbox', name='User').press('Enter')
    dist_.get_by_role('heading', name='u011').wait_for()
    assert book.until('dist.user', lambda u: u == 11)
    dist_.get_by_role('textbox', name='User').fill('')
    dist_.get_by_role('textbox', name='User').press('Enter')
    dist_.get_by_label('Users').locator('option').nth(59).wait_for(state='attached')
    assert {'p', 'q_before', 'q_after', 'train', 'test', 'added'} <= set(book.value('dist.frame')[0])


def test_distribution_sliders_basis_and_menu_change_frame_and_chart(book, dist_):
    tau, q = book.value('dist.tau.value'), book.value('dist.frame.q_after')
    handle = dist_.get_by_role('slider').first
    for _ in range(5):
        handle.press('ArrowLeft')
    assert book.until('dist.frame.q_after', lambda now: now != q) and book.value('dist.tau.value') < tau
    p = book.value('dist.frame.p')
    dist_.get_by_role('button', name='separate').click()
    assert book.until('dist.frame.p', lambda now: now != p)
    order = book.value('dist.points.item')
    dist_.get_by_label('sorted by').select_option('after reshaping')
    assert book.until('dist.points.item', lambda now: now != order)
    chart = Plot(book, dist_.locator('.js-plotly-plot'))
    best = book.value("(int(dist.points['item'][0]), scene.name('item', dist.points['item'][0]))")
    assert best[1] in chart.hover(2, 0)
    screenshot(dist_, 'distribution')
    assert_clean(book)


def test_distribution_shows_both_lists(book, dist_):
    lists = book.value('dist.recommendations')
    seen = dist_.inner_text()
    assert (
        {x['side'] for x in lists} == {'before', 'after'}
        and all(x['title'] in seen for x in lists)
        and 'Recommendations' in seen
    )


def test_candidates_of_another_user(book):
    cand = book.page.locator('.t-cand')
    users = book.value('sorted(scene.provenance.user.unique())')
    cand.get_by_label('Users').select_option(index=users[1])
    frame = book.until('cand.frame', lambda f: f and f[0]['user'] == users[1])
    cand.get_by_role('heading', name=f'u{users[1]:03d}').wait_for()
    assert cand.get_by_text('✓ kept').count() == sum(x['kept'] for x in frame) > 0
    screenshot(cand, 'candidates')


def test_linked_explorers_follow(book, browser_):
    book.run('browser.link(dist, cand)')
    browser_.get_by_role('textbox', name='Search').fill('')
    browser_.get_by_label('user', exact=True).check()
    browser_.get_by_label('by', exact=True).select_option('id or title, else meaning')
    browser_.get_by_role('textbox', name='Search').fill('u021')
    browser_.get_by_role('textbox', name='Search').press('Enter')
    assert book.until('(dist.user, cand.user)', lambda u: u == [21, 21])
    book.page.locator('.t-dist').get_by_role('heading', name='u021').wait_for()
    book.page.locator('.t-dist').get_by_label('Users').select_option(index=2)
    browser_.get_by_text('Enjoys tea houses').first.wait_for()
    assert book.until('browser.picked', lambda p: p == ['user', 2])
    assert_clean(book)


@pytest.mark.parametrize('name', ['dist', 'cand'])
def test_broken_callbacks_of_the_others_show_their_errors(book, name):
    root = book.page.locator(f'.t-{name}')
    book.run(f"def broken(*a, **k): raise RuntimeError('planted fault')\n{name}.draw = broken")
    root.get_by_label('Users').select_option(index=7)
    root.get_by_role('alert').filter(has_text='planted fault').wait_for()
    screenshot(root, f'{name}-error')
    book.run(f'del {name}.draw')
    root.get_by_label('Users').select_option(index=8)
    root.get_by_role('alert').filter(has_text='planted fault').wait_for(state='detached')


def test_charts_send_nothing_away(book):
    assert_keeps_data(book)


def test_hostile_texts_in_the_browser(book):
    root, seen = book.page.locator('.t-bad_browser'), ''
    for kind in ('user', 'item'):
        root.get_by_label(kind, exact=True).check()
        for row in range(0, 60, 2):  # names hold the texts of even places, profiles those of odd ones
            book.run(f"bad_browser.show('{kind}', {row})")
            if kind == 'user' and row % 6 == 0:
                book.run(f"bad_browser.listed['{'after' if row % 12 else 'before'}'].index = 2")
                root.locator('.px-why').wait_for()
            seen += root.inner_text()
        seen += ' '.join(root.get_by_label('Results').locator('option').all_inner_texts())
    screenshot(root, 'browser-hostile')
    assert unread([t for t in TEXTS.values() if t.strip()], seen) == []
    assert_clean(book)


@pytest.mark.parametrize('name', ['dist', 'cand'])
def test_hostile_texts_in_the_others(book, name):
    root, seen = book.page.locator(f'.t-bad_{name}'), ''
    for row in range(0, 60, 2):
        book.run(f'bad_{name}.user = {row}')
        seen += root.inner_text()
    if name == 'dist':
        chart = Plot(book, root.locator('.js-plotly-plot'))
        for point in range(0, 60, 5):
            chart.hover(0, point)
    screenshot(root, f'{name}-hostile')
    assert unread([t for t in list(TEXTS.values())[0:57:2] if t.strip()], seen) == []
    assert_clean(book)


def test_still_pictures_for_pages_without_a_kernel(book, open_file, tmp_path):
    """What is left in a static page: HTML or a picture beside each widget, hostile texts in it stay texts."""
    left = [
        [o['data'] for o in cell if 'application/vnd.jupyter.widget-view+json' in o.get('data', {})]
        for cell in book.outputs()[2:]
    ]
    for cell in left:
        assert len(cell) == 3 and all(''.join(d['text/html']).strip() for d in cell) and 'image/png' in cell[1]
    (tmp_path / 'still.html').write_text(
        '<meta charset="utf-8">' + '<hr>'.join(''.join(d['text/html']) for d in left[1]), encoding='utf-8'
    )
    page = open_file(tmp_path / 'still.html')
    screenshot(page, 'still-hostile', full=True)
    assert '<script' in page.page.locator('body').inner_text()
    assert_clean(page)
