"""The map: in an exported page opened from disk with the network off, and in JupyterLab as MapExplorer."""
import re

import pytest

from .hostile import TEXTS, flat_maps, hostile_scene, small_scene
from .lab import Plot, assert_clean, screenshot, unread

CELLS = ['from browser.hostile import flat_maps, hostile_scene, small_scene\nfrom promax_nb.widgets import MapExplorer, ProfileBrowser, DistributionExplorer',
         'scene = small_scene()\nmaps = flat_maps(scene)',
         'explorer = MapExplorer(scene, maps)\nexplorer',
         'browser = ProfileBrowser(scene)\nexplorer.link(browser)\nbrowser']

# Press every button of the selection's list, and read the card that it opens.
CARDS = """async root => {
  const read = [];
  for (const b of root.querySelectorAll('.px-selection .px-link')) {
    b.click();
    read.push(root.querySelector('.px-card').innerText);
    if (read.length % 10 === 0) await new Promise(r => setTimeout(r));
  }
  return read;
}"""


class Map:
    """The explorer as a person uses it; node n is a user (0 .. M-1) or an item (M ..)."""

    def __init__(self, watched, users: int = 60):
        self.watched, self.page, self.users = watched, watched.page, users
        self.root = watched.page.locator('.px-root').first
        self.root.wait_for()
        self.plot = Plot(watched, self.root.locator('.px-plot.js-plotly-plot').first)
        self.card, self.live, self.alert = (self.root.locator(c).first for c in ('.px-card', '[role=status]', '.px-alert'))

    def point(self, node: int) -> tuple: return (0, node) if node < self.users else (1, node - self.users)

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
    from promax_nb.views import save_html

    def export(scene, hostile=False, **kw):
        path = tmp_path_factory.mktemp('map') / 'explorer.html'
        return scene, Map(open_file(save_html({TEXTS['img']: (scene, flat_maps(scene, hostile))}, path, title=TEXTS['close-title']), **kw))
    return export


@pytest.fixture(scope='module')
def small(exported): return exported(small_scene())


def test_page_a_hover_answers_and_a_click_shows_the_card(small):
    scene, m = small
    node = m.alone(range(120))
    kind, row = ('user', node) if node < 60 else ('item', node - 60)
    assert scene.name(kind, row) in m.tip(node)
    m.click(node)
    card = m.card.inner_text()
    assert scene.name(kind, row) in card and (scene.users if kind == 'user' else scene.items).profile[row] in card
    screenshot(m.watched, 'map-page-card', full=True)
    assert_clean(m.watched)


def test_page_search_lists_and_opens(small):
    scene, m = small
    assert m.search('harbours and tea houses')[0] == scene.name('user', 0) or m.search(scene.name('item', 7)) == [scene.name('item', 7)]
    assert m.search('u007') == [scene.name('user', 7)]
    m.root.locator('.px-results .px-link').first.press('Enter')
    assert m.card.locator('h3').inner_text() == scene.name('user', 7) and 'History' in m.card.inner_text()
    assert 'KL' in m.root.locator('.px-distnote').inner_text()
    assert m.search('no such text') == [] and m.search('') == []


def test_page_colour_menu_slider_and_second_map(small):
    _, m = small
    before, colours = m.plot.spot(0, 3), 'gd => gd._fullData[0].marker.color.join()'
    was = m.plot.at.evaluate(colours)
    m.root.locator('.px-colour').select_option('interactions')
    m.page.wait_for_function('([gd, was]) => gd._fullData[0].marker.color.join() !== was', arg=[m.plot.at.element_handle(), was])
    m.root.locator('.px-after').click()
    m.page.wait_for_function('gd => gd.layout.xaxis.title.text.includes("after reshaping")', arg=m.plot.at.element_handle())
    assert m.plot.spot(0, 3) != before
    m.root.locator('.px-blend').fill('0')
    m.root.locator('.px-side').check()
    Plot(m.watched, m.root.locator('.px-plot2.js-plotly-plot'))
    screenshot(m.watched, 'map-page-two', full=True)
    m.root.locator('.px-side').uncheck()
    assert_clean(m.watched)


def test_page_lasso_selects_and_saves(small, tmp_path):
    _, m = small
    m.plot.drag('lasso', m.plot.around(.5))
    head = m.root.locator('.px-selection h3')
    head.wait_for()
    users, items = map(int, re.findall(r'\d+', head.inner_text()))
    assert 0 < users + items < 120
    with m.page.expect_download() as got: m.root.locator('.px-csv').click()
    got.value.save_as(tmp_path / 'selection.csv')
    import pandas as pd
    assert pd.read_csv(tmp_path / 'selection.csv').kind.value_counts().reindex(['user', 'item']).tolist() == [users, items]
    m.root.locator('.px-clear').click()
    head.wait_for(state='detached')
    assert_clean(m.watched)


def test_page_arrow_keys_walk(small):
    _, m = small
    m.plot.at.focus()
    m.page.keyboard.press('ArrowRight')
    first = m.card.locator('h3').inner_text()
    m.page.keyboard.press('ArrowLeft')
    assert m.card.locator('h3').inner_text() != first
    assert_clean(m.watched)


def test_page_shows_an_error_of_its_own(small):
    """The positive control: a handler broken on purpose says so in the page."""
    _, m = small
    menu = m.root.locator('.px-colour')
    menu.evaluate("e => { e.append(new Option('none such')); e.value = 'none such'; e.dispatchEvent(new Event('change')); }")
    assert 'no column none such' in m.alert.inner_text() and m.alert.get_attribute('role') == 'alert'
    menu.evaluate('e => { e.lastChild.remove(); e.selectedIndex = 0; e.dispatchEvent(new Event("change")); }')


def test_page_hostile_texts_stay_texts(exported):
    _, m = exported(hostile_scene(lone=False), True)
    for option in m.root.locator('.px-colour option').all(): m.root.locator('.px-colour').select_option(option.get_attribute('value'))
    m.plot.drag('lasso', m.plot.around(.99))
    m.root.locator('.px-selection h3').wait_for()
    opened = m.root.evaluate(CARDS)
    assert len(opened) > 90
    for node in range(0, 120, 7): m.plot._to(*m.plot.spot(*m.point(node)))
    m.root.locator('summary', has_text='How far').click()
    m.search('img')
    screenshot(m.watched, 'map-page-hostile', full=True)
    assert unread([t for t in TEXTS.values() if t.strip()], ' '.join(opened)) == []
    assert_clean(m.watched)


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
    screenshot(m.watched, 'map-page-dark', full=True)
    assert_clean(m.watched)
