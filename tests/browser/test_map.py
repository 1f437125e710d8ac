"""The map: in an exported page opened from disk with the network off, and in JupyterLab as MapExplorer."""

import re

import pytest

from promax_nb.views.reasons import scene_recommender, top_reasons

from .hostile import TEXTS, flat_maps, hostile_scene, small_scene
from .lab import Plot, assert_clean, assert_keeps_data, screenshot, unread

SLOW = '''import time
import promax_nb.views.mapview
def slow(scene, progress=None, **kw):
    for k in range(2000):
        progress(k / 2000, f'step {k}')
        time.sleep(.05)
promax_nb.views.mapview.project_scene = slow
waiting = MapExplorer(scene)
waiting.add_class('t-wait')
waiting'''
CELLS = [
    'from browser.hostile import flat_maps, hostile_scene, small_scene\n'
    'from promax_nb.all import CandidateExplorer, MapExplorer, ProfileBrowser',
    'scene, hostile = small_scene(), hostile_scene()',
    "explorer = MapExplorer(scene, flat_maps(scene))\nexplorer.add_class('t-map')\nexplorer",
    "browser, cand = ProfileBrowser(scene), CandidateExplorer(scene)\nbrowser.add_class('t-browser')\n"
    'explorer.link(browser, cand)\nbrowser',
    SLOW,
    "bad = MapExplorer(hostile, flat_maps(hostile, True))\nbad.add_class('t-bad')\nbad",
]

# Press every second button of the selection's list, and read the card that it opens: names hold the texts of even
# places, profiles those of odd ones.
CARDS = """async root => {
  const read = [];
  const links = [...root.querySelectorAll('.px-selection .px-link')];
  for (let k = 0; k < links.length; k += 2) {
    links[k].click();
    read.push(root.querySelector('.px-card').innerText);
    if (read.length % 10 === 0) await new Promise(r => setTimeout(r));
  }
  return read;
}"""


class Map:
    """The explorer as a person uses it; node n is a user (0 .. M-1) or an item (M ..)."""

    def __init__(self, watched, within: str = 'body', users: int = 60):
        self.watched, self.page, self.users = watched, watched.page, users
        self.root = watched.page.locator(f'{within} .px-root').first
        self.root.wait_for()
        self.plot = Plot(watched, self.root.locator('.px-plot.js-plotly-plot').first)
        self.card, self.live, self.alert = (
            self.root.locator(c).first for c in ('.px-card', '[role=status]', '.px-alert')
        )

    def point(self, node: int) -> tuple:
        return (0, node) if node < self.users else (1, node - self.users)

    def click(self, node: int):
        self.plot.click(*self.point(node))
        self.card.locator('h3').wait_for()

    def tip(self, node: int) -> str:
        self.plot._to(*self.plot.spot(*self.point(node)))
        tip = self.root.locator('.px-tip')
        tip.wait_for()
        return tip.inner_text()

    def alone(self, nodes) -> int:
        """A node that no other is drawn over: the one farthest from its nearest neighbour on the screen."""
        import numpy as np

        at = np.array(self.plot.spots([self.point(n) for n in nodes]))
        return int((np.linalg.norm(at[:, None] - at, axis=2) + np.eye(len(at)) * 1e9).min(1).argmax())

    def search(self, text: str) -> list:
        self.root.locator('.px-search').fill(text)
        return [re.sub('^[●◆] ', '', t.strip()) for t in self.root.locator('.px-results .px-link').all_inner_texts()]


@pytest.fixture(scope='module')
def exported(tmp_path_factory, open_file):
    """exported(scene) -> (scene, its explorer in a page on disk)"""
    from promax_nb.views.page import save_html

    def export(scene, hostile=False, **kw):
        path = tmp_path_factory.mktemp('map') / 'explorer.html'
        return scene, Map(
            open_file(
                save_html({TEXTS['img']: (scene, flat_maps(scene, hostile))}, path, title=TEXTS['close-title']), **kw
            )
        )

    return export


@pytest.fixture(scope='module')
def small(exported):
    return exported(small_scene())


def test_page_a_hover_answers_and_a_click_shows_the_card(small):
    scene, m = small
    node = m.alone(range(120))
    kind, row = ('user', node) if node < 60 else ('item', node - 60)
    assert scene.name(kind, row) in m.tip(node)
    m.click(node)
    card = m.card.inner_text()
    assert scene.name(kind, row) in card and (scene.users if kind == 'user' else scene.items).profile[row] in card
    screenshot(m.root, 'map-page-card')
    assert_clean(m.watched)


def test_page_search_lists_and_opens(small):
    scene, m = small
    assert m.search('harbours and tea houses') == [scene.name('user', 42), scene.name('item', 42)]
    assert m.search(scene.name('item', 7)) == [scene.name('item', 7)]
    assert m.search('u007') == [scene.name('user', 7)]
    m.root.locator('.px-results .px-link').first.press('Enter')
    assert m.card.locator('h3').inner_text() == scene.name('user', 7) and 'History' in m.card.inner_text()
    m.root.locator('.px-distnote', has_text='KL').wait_for()  # drawn after the card
    assert m.search('no such text') == [] and m.search('') == []


def test_page_a_card_says_what_is_shown_and_why(small):
    scene, m = small
    m.search('u007')
    m.root.locator('.px-results .px-link').first.press('Enter')
    shown = m.card.locator('.px-reasons')
    served = scene_recommender(scene)
    reasons = top_reasons(served, 7)
    names = [scene.name('item', reason['item']) for reason in reasons]
    assert shown.locator('.px-link bdi').all_inner_texts() == names
    first, text = reasons[0], shown.locator('li').first.inner_text()
    assert f'before: rank {first["other"]}' in text and scene.name('item', first['first']) in text
    assert 'goes along with' in text and 'carried by' not in shown.inner_text()  # this scene holds vectors only
    assert all(word in text for word in first['words'])
    screenshot(m.card, 'map-page-reasons')
    shown.locator('.px-link').first.click()
    assert m.card.locator('h3').inner_text() == names[0] and not shown.count()
    assert_clean(m.watched)


def test_page_colour_menu_slider_and_second_map(small):
    _, m = small
    before, colours = m.plot.spot(0, 3), 'gd => gd._fullData[0].marker.color.join()'
    was = m.plot.at.evaluate(colours)
    m.root.locator('.px-colour').select_option('interactions')
    m.page.wait_for_function(
        '([gd, was]) => gd._fullData[0].marker.color.join() !== was', arg=[m.plot.at.element_handle(), was]
    )
    m.root.locator('.px-after').click()
    m.page.wait_for_function(
        'gd => gd.layout.xaxis.title.text.includes("after reshaping")', arg=m.plot.at.element_handle()
    )
    assert m.plot.spot(0, 3) != before
    m.root.locator('.px-blend').fill('0')
    m.root.locator('.px-side').check()
    Plot(m.watched, m.root.locator('.px-plot2.js-plotly-plot'))
    screenshot(m.root, 'map-page-two')
    m.root.locator('.px-side').uncheck()
    assert_clean(m.watched)


def test_page_lasso_selects_and_saves(small, tmp_path):
    _, m = small
    m.plot.drag('lasso', 0.5)
    head = m.root.locator('.px-selection h3')
    head.wait_for()
    users, items = map(int, re.findall(r'\d+', head.inner_text()))
    assert 0 < users + items < 120
    with m.page.expect_download() as got:
        m.root.locator('.px-csv').click()
    got.value.save_as(tmp_path / 'selection.csv')
    import pandas as pd

    assert pd.read_csv(tmp_path / 'selection.csv').kind.value_counts().reindex(['user', 'item']).tolist() == [
        users,
        items,
    ]
    m.root.locator('.px-clear').click()
    head.wait_for(state='detached')
    assert_clean(m.watched)


def test_page_a_new_selection_replaces_the_drawn_one(small):
    """A lasso inside an earlier box is a new lasso, and a search after it shows what was found."""
    _, m = small
    count = 'gd => gd._fullData.slice(0, 2).reduce((n, t) => n + (t.selectedpoints ?? []).length, 0)'
    m.plot.drag('select', 0.7)
    m.root.locator('.px-selection h3').wait_for()
    wide = m.plot.at.evaluate(count)
    m.plot.drag('lasso', 0.3)
    m.page.wait_for_function(
        f'([gd, wide]) => {{ const n = ({count})(gd); return n > 0 && n < wide; }}',
        arg=[m.plot.at.element_handle(), wide],
    )
    found = m.search('harbours')
    m.page.wait_for_timeout(200)
    assert m.plot.at.evaluate(count) >= len(found) and f'{m.plot.at.evaluate(count)} of 120' in m.live.inner_text()
    m.search('')
    m.root.locator('.px-clear').click()
    assert_clean(m.watched)


def test_page_arrow_keys_walk(small):
    _, m = small
    m.plot.at.focus()
    m.page.keyboard.press('ArrowRight')
    first = m.card.locator('h3').inner_text()
    m.page.keyboard.press('ArrowLeft')
    assert m.card.locator('h3').inner_text() != first
    assert_clean(m.watched)


def test_page_sends_nothing_away(small):
    assert_keeps_data(small[1].watched)


def test_page_shows_an_error_of_its_own(small):
    """The positive control: a handler broken on purpose says so in the page."""
    _, m = small
    menu = m.root.locator('.px-colour')
    menu.evaluate(
        "e => { e.append(new Option('none such')); e.value = 'none such'; e.dispatchEvent(new Event('change')); }"
    )
    assert 'no column none such' in m.alert.inner_text() and m.alert.get_attribute('role') == 'alert'
    menu.evaluate('e => { e.lastChild.remove(); e.selectedIndex = 0; e.dispatchEvent(new Event("change")); }')


def see_everything_hostile(m, name: str):
    """Every colour, every card, some hovers, the search and the trust record of a hostile scene."""
    for option in m.root.locator('.px-colour option').all():
        m.root.locator('.px-colour').select_option(option.get_attribute('value'))
    m.plot.drag('lasso', 0.99)
    m.root.locator('.px-selection h3').wait_for()
    opened = m.root.evaluate(CARDS)
    assert len(opened) == 50
    for node in range(0, 120, 7):
        m.plot._to(*m.plot.spot(*m.point(node)))
    m.root.locator('summary', has_text='How far').click()
    m.search('img')
    screenshot(m.root, name)
    assert unread([t for t in TEXTS.values() if t.strip()], ' '.join(opened)) == []
    assert_clean(m.watched)


def test_page_hostile_texts_stay_texts(exported):
    see_everything_hostile(exported(hostile_scene(), True)[1], 'map-page-hostile')


def test_page_without_webgl_falls_back(exported, launch):
    scene, m = exported(small_scene(), browser=launch('--disable-3d-apis'))
    assert 'no WebGL' in m.live.inner_text()
    m.click(m.alone(range(120)))
    assert m.card.locator('h3').inner_text()
    assert_clean(m.watched)


def test_page_in_dark_colours(exported):
    _, m = exported(small_scene(), color_scheme='dark')
    assert 'px-dark' in m.root.get_attribute('class')
    m.root.locator('.px-colour').select_option('interactions')
    m.click(m.alone(range(120)))
    screenshot(m.root, 'map-page-dark')
    assert_clean(m.watched)


@pytest.fixture(scope='module')
def book(open_notebook):
    nb = open_notebook(CELLS, 'map.ipynb')
    assert nb.failures() == []
    return nb


@pytest.fixture(scope='module')
def lab_map(book):
    return Map(book, '.t-map')


def test_lab_a_click_shows_the_card_here_and_in_linked_explorers(book, lab_map):
    m = lab_map
    node = m.alone(range(60))
    m.click(node)
    name = book.value(f"scene.name('user', {node})")
    m.card.get_by_role('heading', name=name).wait_for()
    assert book.until('explorer.picked', lambda p: p == ['user', node])
    assert book.until('(browser.picked, cand.user)', lambda p: p == [['user', node], node])
    book.page.locator('.t-browser').get_by_role('heading', name=name).first.wait_for()
    screenshot(m.root, 'map-lab-card')
    book.page.locator('.t-browser').get_by_label('item', exact=True).check()
    book.page.locator('.t-browser').get_by_label('Results').select_option(index=3)
    m.card.get_by_role('heading', name=book.value("scene.name('item', 3)")).wait_for()
    assert book.until('explorer.picked', lambda p: p == ['item', 3])
    assert_clean(book)


@pytest.mark.parametrize('mode', ['lasso', 'select'])
def test_lab_lasso_and_box_give_a_frame(book, lab_map, mode):
    m = lab_map
    m.plot.drag(mode, 0.45 if mode == 'lasso' else 0.6)
    head = m.root.locator('.px-selection h3')
    head.wait_for()
    users, items = map(int, re.findall(r'\d+', head.inner_text()))
    frame = book.until('explorer.selected', lambda f: len(f) == users + items)
    assert 0 < len(frame) < 120 and [sum(r['kind'] == k for r in frame) for k in ('user', 'item')] == [users, items]
    assert {'node', 'kind', 'row', 'id', 'name', 'profile'} <= set(frame[0])
    screenshot(m.root, f'map-lab-{mode}')
    m.root.locator('.px-clear').click()
    assert book.until('explorer.selected', lambda f: f == []) == []
    assert_clean(book)


def test_lab_search_colour_and_slider(book, lab_map):
    m = lab_map
    assert m.search('u007') == [book.value("scene.name('user', 7)")]
    m.root.locator('.px-results .px-link').first.press('Enter')
    assert book.until('explorer.picked', lambda p: p == ['user', 7])
    m.search('')
    m.root.locator('.px-colour').select_option('interactions')
    m.root.locator('.px-ramp').wait_for()
    before = m.plot.spot(0, 3)
    m.root.locator('.px-blend').press('End')
    m.page.wait_for_function(
        'gd => gd.layout.xaxis.title.text.includes("after reshaping")', arg=m.plot.at.element_handle()
    )
    assert m.plot.spot(0, 3) != before
    assert_clean(book)


def test_lab_python_moves_the_browser(book, lab_map):
    m = lab_map
    book.run("explorer.picked = ('item', 5)\nexplorer.select([0, 1, 70])\nexplorer.colour_by('kind').move(.5)")
    m.card.get_by_role('heading', name=book.value("scene.name('item', 5)")).wait_for()
    m.root.locator('.px-selection h3', has_text='2 users, 1 items').wait_for()
    m.page.wait_for_function('gd => gd.layout.xaxis.title.text.includes("50")', arg=m.plot.at.element_handle())
    assert m.root.locator('.px-colour').input_value() == 'kind' and len(book.value('explorer.selected')) == 3
    assert_clean(book)


def test_lab_sends_nothing_away(lab_map):
    assert_keeps_data(lab_map.watched)


def test_lab_a_broken_callback_shows_its_error(book, lab_map):
    m, widget = lab_map, book.page.locator('.t-map')
    book.run(
        "def broken(*a, **k): raise RuntimeError('planted <img src=x onerror=__hit(7)> fault')\n"
        'explorer.canvas.selected = broken'
    )
    m.plot.drag('lasso', 0.4)
    alert = widget.get_by_role('alert').filter(has_text='planted <img src=x onerror=__hit(7)> fault')
    alert.wait_for()
    screenshot(m.root, 'map-lab-error')
    book.run('explorer.canvas.selected = explorer.hear_selection')
    m.plot.drag('lasso', 0.5)
    alert.wait_for(state='detached')
    assert_clean(book)


def test_lab_a_projection_shows_how_far_it_is_and_stops(book):
    widget = book.page.locator('.t-wait')
    widget.get_by_text(re.compile('step [1-9]')).wait_for()
    widget.get_by_role('button', name='Stop').click()
    widget.get_by_text('stopped').wait_for()
    assert book.value('waiting.projection') is None
    assert_clean(book)


def test_lab_follows_the_dark_theme(book, lab_map):
    theme = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
    book.page.evaluate(theme, 'JupyterLab Dark')
    book.page.wait_for_function('e => e.classList.contains("px-dark")', arg=lab_map.root.element_handle())
    screenshot(lab_map.root, 'map-lab-dark')
    screenshot(book.page.locator('.t-browser'), 'browser-dark')
    book.page.evaluate(theme, 'JupyterLab Light')
    book.page.wait_for_function('e => !e.classList.contains("px-dark")', arg=lab_map.root.element_handle())
    assert_clean(book)


def test_lab_hostile_texts_stay_texts(book):
    see_everything_hostile(Map(book, '.t-bad'), 'map-lab-hostile')
