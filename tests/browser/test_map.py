"""The map: in an exported page opened from disk with the network off, and in JupyterLab as MapExplorer."""

import re

import numpy as np
import pytest

from promax_nb.retrieval.vectors import unit_rows
from promax_nb.views.nodes import node_table
from promax_nb.views.packing import stems_of, word_places
from promax_nb.views.person import lists_of
from promax_nb.views.reasons import reasons_for, scene_recommender

from .hostile import TEXTS, flat_maps, hostile_scene, named_maps, small_scene
from .lab import assert_clean, screenshot, unread

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
    'from promax_nb.all import CandidateExplorer, MapExplorer, ProfileBrowser, Workbench',
    'scene, hostile = small_scene(), hostile_scene()',
    "explorer = MapExplorer(scene, flat_maps(scene))\nexplorer.add_class('t-map')\nexplorer",
    "browser, cand = ProfileBrowser(scene), CandidateExplorer(scene)\nbrowser.add_class('t-browser')\n"
    'explorer.link(browser, cand)\nbrowser',
    SLOW,
    "bad = MapExplorer(hostile, flat_maps(hostile, True))\nbad.add_class('t-bad')\nbad",
    "desk = Workbench(scene, flat_maps(scene))\ndesk.add_class('t-desk')\ndesk",
    'from browser.hostile import named_maps\nnamed = MapExplorer(scene, named_maps(scene))\n'
    "named.add_class('t-named')\nnamed",
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

    def __init__(self, watched, within: str = 'body'):
        self.watched, self.page = watched, watched.page
        self.root = watched.page.locator(f'{within} .px-root').first
        self.root.wait_for()
        self.plot = self.root.locator('.px-plot').first
        self.page.wait_for_function('e => e.explorer.points.written', arg=self.root.element_handle())
        self.card, self.live, self.alert = (
            self.root.locator(c).first for c in ('.px-card', '[role=status]', '.px-alert')
        )

    def ask(self, what: str, *arguments):
        """A question to the explorer behind the page: `e` is it."""
        return self.root.evaluate(f'(root, given) => {{ const e = root.explorer; return {what}; }}', list(arguments))

    def spots(self, nodes) -> list:
        """Where on the screen nodes are drawn."""
        self.plot.scroll_into_view_if_needed()
        return self.ask('given[0].map(i => e.points.spot(i))', list(nodes))

    def to(self, node: int):
        self.page.mouse.move(*self.spots([node])[0])

    def click(self, node: int):
        self.page.mouse.click(*self.spots([node])[0])
        self.card.locator('h3').wait_for()

    def tip(self, node: int) -> str:
        self.to(node)
        tip = self.root.locator('.px-tip')
        tip.wait_for()
        return tip.inner_text()

    def drag(self, mode: str, share: float):
        """Press a button of the bar ('lasso' or 'box') and draw around the middle of the map; then back to moving."""
        self.plot.scroll_into_view_if_needed()
        self.root.locator(f'.px-{mode}').click()
        box = self.plot.bounding_box()
        dx, dy = box['width'] * share / 2, box['height'] * share / 2
        x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
        corners = [[x + dx, y - dy], [x + dx, y + dy], [x - dx, y + dy], [x - dx, y - dy]]
        self.page.mouse.move(x - dx, y - dy)
        self.page.mouse.down()
        for corner in corners[: 4 if mode == 'lasso' else 2]:
            self.page.mouse.move(*corner, steps=4)
        self.page.mouse.up()
        self.root.locator('.px-move').click()

    def selected(self) -> int:
        return self.ask('(e.state.selected ?? []).length')

    def alone(self, nodes) -> int:
        """A node that no other is drawn over: the one farthest from its nearest neighbour on the screen."""
        at = np.array(self.spots(nodes))
        return int((np.linalg.norm(at[:, None] - at, axis=2) + np.eye(len(at)) * 1e9).min(1).argmax())

    def search(self, text: str) -> list:
        self.root.locator('.px-search').fill(text)
        found = self.root.locator('.px-results:not(.px-alike) .px-link').all_inner_texts()
        return [re.sub('^[●◆] ', '', text.strip()) for text in found]


@pytest.fixture(scope='module')
def exported(tmp_path_factory, open_file):
    """exported(scene) -> (scene, its explorer in a page on disk)"""
    from promax_nb.views.page import save_html

    def export(scene, hostile=False, maps=flat_maps, **kw):
        path = tmp_path_factory.mktemp('map') / 'explorer.html'
        page = save_html({TEXTS['img']: (scene, maps(scene, hostile))}, path, title=TEXTS['close-title'])
        return scene, Map(open_file(page, **kw))

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
    first = m.search('harbours and tea houses')
    assert first[:2] == [scene.name('user', 42), scene.name('item', 42)] and len(first) == 4  # then in any order
    assert m.search('houses harbours tea') and set(m.search('houses harbours tea')) == set(first)
    assert m.search(scene.name('item', 7)) == [scene.name('item', 7)]
    assert m.search('u007') == [scene.name('user', 7)]
    m.root.locator('.px-results:not(.px-alike) .px-link').first.press('Enter')
    assert m.card.locator('h3').inner_text() == scene.name('user', 7) and 'History' in m.card.inner_text()
    m.root.locator('.px-distnote', has_text='KL').wait_for()  # drawn after the card
    assert m.search('no such text') == [] and m.search('') == []


def test_page_search_finds_what_is_close_in_meaning(small):
    """Behind the texts with these words come those nearest to where the profiles put the words."""
    scene, m = small
    texts = scene.users.profile.tolist() + scene.items.profile.tolist()
    space = unit_rows(np.concatenate(scene.vectors))
    words, places = word_places(space, texts)
    close = space @ places[[words.index(stem) for stem in stems_of('mountains, brass')]].sum(0)
    m.search('mountains, brass')
    listed = m.root.locator('.px-alike .px-link')
    listed.first.wait_for()
    assert '0 of 120 match. Close in meaning' in m.root.locator('.px-live').inner_text()
    nodes = [int(link.get_attribute('data-node')) for link in listed.all()]
    assert len(set(nodes) & set(np.argsort(-close)[:10].tolist())) >= 8, 'places travel in 8 bits'
    assert m.selected() == 10
    m.search('mountain is:item')
    listed.first.wait_for()
    assert all(int(link.get_attribute('data-node')) >= 60 for link in listed.all()), 'facets hold for them too'
    assert not any('mountain' in texts[int(link.get_attribute('data-node'))] for link in listed.all())
    m.search('zzz')
    assert listed.count() == 0
    assert_clean(m.watched)


def test_page_search_knows_stems_and_facets(small):
    scene, m = small
    table = node_table(scene, flat_maps(scene))

    def found(text):
        m.search(text)
        said = m.root.locator('.px-live').inner_text()
        return int(said.split(' of ')[0]) if ' of 120 match' in said else said

    assert found('harbour tea') == found('harbour teas houses') == 4, 'stems'
    users = (table['kind'] == 'user').to_numpy()
    counts, gain = table['interactions'].to_numpy(), table['rank change of held-out items'].to_numpy()
    assert found('is:user') == 60 and found('is:item u007') == 0
    assert found('interactions<5') == (counts < 5).sum()
    assert found('is:user interactions>=5') == (users & (counts >= 5)).sum() > 0
    order = np.argsort(np.where(gain < 0, gain, np.inf), kind='stable')
    m.search('is:lost')
    first = m.root.locator('.px-results:not(.px-alike) .px-link').first
    assert int(first.get_attribute('data-node')) == order[0] and f'{np.nanmin(gain):.3f}' in first.inner_text()
    assert found('is:gained') == (gain > 0).sum() and found('is:lost') == (gain < 0).sum() > 0
    group = table['sparsity group'].dropna().iloc[0]
    assert found(f'sparsity-group:{group.split()[0]}') == table['sparsity group'].str.contains(group.split()[0]).sum()
    assert found('is:lost harbours') <= found('is:lost')
    assert found('colour:red').startswith('nothing is called colour: ')
    assert found('is:old').startswith('is:old is unknown')
    assert 'is a number' in found('interactions:5') and found('https://a b') == 0, 'other colons are plain words'
    m.search('')
    m.root.locator('.px-search').blur()
    m.root.locator('.px-search').focus()
    assert 'also is:user' in m.root.locator('.px-live').inner_text()


def test_page_a_card_shows_the_lists_the_claims_and_why(small):
    scene, m = small
    m.search('u007')
    m.root.locator('.px-results:not(.px-alike) .px-link').first.press('Enter')
    shown, lists = m.card.locator('.px-person'), lists_of(scene, 7)
    for column, side in enumerate(('before', 'after')):
        names = shown.locator('.pm-list').nth(column).locator('.pm-item').all_inner_texts()
        assert names == [scene.name('item', slot.item) for slot in lists[side]]
        stars = shown.locator('.pm-list').nth(column).locator('.pm-star').count()
        assert stars == sum(slot.hit for slot in lists[side])
    kept = [slot for slot in lists['before'] if slot.ranks['after'] <= 10 or slot.hit]
    entering = [slot for slot in lists['after'] if slot.ranks['before'] > 10 and slot.hit]
    assert shown.locator('svg line').count() == len(kept) + len(entering)
    shown.locator('.pm-why summary').click()
    reasons = reasons_for(scene_recommender(scene), 7, [slot.item for slot in lists['after'][:5]])
    first, text = reasons[0], shown.locator('.pm-why li').first.inner_text()
    assert scene.name('item', first['first']) in text and all(word in text for word in first['words'])
    assert 'goes along with' in text and 'carried by' not in shown.inner_text()  # this scene holds vectors only
    screenshot(m.card, 'map-page-person')
    assert m.ask('e.state.picked') == 7
    shown.locator('.pm-list .pm-item').last.press('Enter')
    item = lists['after'][-1].item
    assert m.card.locator('h3').inner_text() == scene.name('item', item) and not shown.count()
    (x, y), box = m.spots([scene.data.n_users + item])[0], m.plot.bounding_box()
    assert box['x'] < x < box['x'] + box['width'] and box['y'] < y < box['y'] + box['height'], 'the map flew there'
    assert_clean(m.watched)


def test_page_colour_menu_slider_and_second_map(small):
    _, m = small
    before, colours = m.spots([3])[0], 'Array.from(e.rgba.slice(0, 240)).join()'
    was = m.ask(colours)
    m.root.locator('.px-colour').select_option('interactions')
    assert m.ask(colours) != was
    m.root.locator('.px-after').click()
    m.root.locator('.px-caption', has_text='after reshaping').wait_for()
    assert m.spots([3])[0] != before
    m.root.locator('.px-blend').fill('0')
    m.root.locator('.px-side').check()
    m.root.locator('.px-plot2 canvas').first.wait_for()
    screenshot(m.root, 'map-page-two')
    m.root.locator('.px-side').uncheck()
    assert_clean(m.watched)


def test_page_the_legend_filters_and_escape_clears(small):
    """What is filtered is neither drawn nor met; Escape brings everything back."""
    _, m = small
    shown = 'e.rgba.filter((v, k) => (k & 3) === 3 && v > 0).length'
    m.root.locator('.px-colour').select_option('item: genre')
    m.root.locator('.px-legend .px-chip', has_text='poetry').click()
    chips = m.root.locator('.px-legend .px-chip')
    pressed = {chip.inner_text().strip(): chip.get_attribute('aria-pressed') for chip in chips.all()}
    assert set(pressed.values()) == {'true', 'false'}, 'what is hidden says so'
    poetry = m.ask(shown)
    assert 0 < poetry < 120 and f'{poetry} of 120' in m.live.inner_text()
    m.root.locator('.px-legend .px-chip', has_text='users').click()
    items = m.ask(shown)
    assert 0 < items < poetry
    m.drag('lasso', 0.99)
    assert m.selected() <= items
    m.root.locator('.px-legend .px-chip').first.press('Escape')
    assert m.ask(shown) == 120 and m.selected() == 0 and m.card.locator('h3').count() == 0
    assert_clean(m.watched)


def test_page_no_label_lies_over_another_or_over_the_picked_point(small):
    """At four zooms, from the boxes that were written."""
    _, m = small
    m.click(m.alone(range(120)))
    for zoom in (1, 2, 5, 14):
        m.ask('e.points.fit()')
        m.ask('e.points.zoomAt(e.points.view.width / 2, e.points.view.height / 2, given[0])', zoom)
        m.ask('e.points.paint()')
        boxes = m.ask('e.points.written.map(w => w.box)')
        x, y = m.ask('e.points.screen(...["x", "y"].map(k => e.points.places()[k][e.state.picked]))')
        assert boxes or zoom > 1
        boxes.append([x - 9, y - 9, x + 9, y + 9])
        for k, a in enumerate(boxes):
            for b in boxes[:k]:
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (zoom, a, b)
    m.ask('e.points.fit()')
    m.root.locator('.px-clear').click()


def test_page_lasso_selects_and_saves(small, tmp_path):
    _, m = small
    m.drag('lasso', 0.5)
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


def test_page_groups_stand_side_by_side(small, tmp_path):
    """Kept by hand, compared by the browser as `cohort` does it."""
    from promax_nb.views.cohorts import cohort

    scene, m = small
    m.drag('lasso', 0.6)
    m.root.locator('.px-keepA').click()
    m.root.locator('.px-clear').click()
    m.root.locator('.px-groups').get_by_text('rest').first.wait_for()
    group = [i for i in m.ask('Array.from(e.groups.kept.A)') if i < scene.data.n_users]
    seen, made = m.ask('e.groups.compare("user")'), cohort(scene, group)
    assert [g[1] for g in seen['groups']] == [made.groups['A'].tolist(), made.groups['rest'].tolist()]
    for table, mine, said in ((made.attributes, seen['attributes'], 'value'), (made.words, seen['words'], 'word')):
        assert len(mine) == len(table)
        there = {(row.get('attribute'), row[said]): row for row in mine}
        for row in table.to_dict('records'):
            other = there[row.get('attribute'), row[said]]
            assert other['counts'] == [row['A count'], row['rest count']] and abs(other['z'] - row['z']) < 1e-9
    if len(made.gains):
        cells = [cell for gain in seen['gains'] for cell in gain['cells'][:2]]
        for cell, row in zip(cells, made.gains[made.gains.group != 'A - rest'].to_dict('records'), strict=True):
            assert abs(cell['middle'] - row['middle']) < 1e-5 and cell['users'] == row['users']
            assert abs(cell['low'] - row['low']) < 0.02, 'other draws, the same interval'
    screenshot(m.root, 'map-page-groups')
    with m.page.expect_download() as got:
        m.root.locator('.px-savegroups').click()
    got.value.save_as(tmp_path / 'groups.csv')
    assert (tmp_path / 'groups.csv').read_text().startswith('"what","value","group","count"')
    second = sorted({*range(5), *group[:3]})
    m.ask('e.groups.keep("B", given[0])', second)
    both = len(set(second) & set(group))
    m.root.locator('.px-both').filter(has_text=f'{both} users are in both groups').wait_for()
    m.ask('e.groups.keep("B", null)')
    m.root.get_by_role('button', name='let go of A').first.click()
    m.root.locator('.px-groups').wait_for(state='hidden')
    assert_clean(m.watched)


def read_a_name(m, made, picture: str):
    """Point at a name, click it, read what the model saw, fly to one of the texts, and close it again."""
    written = m.ask('e.points.written.filter(w => w.label.seen).map(w => [w.label.text, w.box])')
    names = made.named['base'].set_index('text')
    text, box = next((text, box) for text, box in written if names['level'][text] == 0)
    m.plot.scroll_into_view_if_needed()
    corner, panel = m.plot.bounding_box(), m.root.locator('.px-names')
    at = corner['x'] + (box[0] + box[2]) / 2, corner['y'] + (box[1] + box[3]) / 2
    m.page.mouse.move(*at)
    tip = m.root.locator('.px-tip')
    tip.wait_for()
    assert text in tip.inner_text() and 'click for the texts' in tip.inner_text()
    assert not panel.is_visible()
    m.page.mouse.click(*at)
    panel.wait_for()
    assert panel.locator('h3').inner_text() == text and names['words'][text] in panel.inner_text()
    read = zip(panel.locator('.px-link').all(), panel.locator('.px-seen').all_inner_texts(), strict=True)
    told = [told for _, told, _ in names['seen'][text]]
    for (link, rest), whole in zip(read, told, strict=True):
        assert whole in (rest, f'{link.inner_text()[2:]}: {rest}'), 'the title and the text are what was sent'
    over = panel.bounding_box()
    assert at[0] < over['x'] or at[0] > over['x'] + over['width'], 'the name itself stays to be seen'
    assert panel.locator('h4').inner_text().startswith('From beside it')
    screenshot(m.root, picture)
    link = panel.locator('.px-link').nth(1)
    link.click()
    node = int(link.get_attribute('data-node'))
    assert node == names['seen'][text][1][0] and m.ask('e.state.picked') == node
    middle = 'Math.hypot(...(([x, y], b) => [x - b.left - b.width / 2, y - b.top - b.height / 2])'
    far = f'{middle}(e.points.spot({node}), e.points.box.getBoundingClientRect()))'
    m.page.wait_for_function(f'root => {{ const e = root.explorer; return {far} < 3; }}', arg=m.root.element_handle())
    assert panel.is_visible(), 'the next text can be looked at'
    m.page.keyboard.press('Escape')
    assert not panel.is_visible() and m.ask('e.state.picked') == node, 'Escape closes this first'
    m.page.keyboard.press('Escape')
    assert m.ask('e.state.picked') == -1
    m.ask('e.points.fit()')


def test_page_a_name_by_a_model_tells_what_it_saw(exported):
    scene = small_scene()
    made = named_maps(scene)
    _, m = exported(scene, maps=lambda *_: made)
    assert m.root.locator('.px-legend .px-namer').text_content() == 'names by by length'
    read_a_name(m, made, 'map-page-named')
    chip, panel = m.root.locator('.px-namer'), m.root.locator('.px-names')  # the same without a mouse
    chip.press('Enter')
    listed = panel.locator('li').all_inner_texts()
    here = made.named['base']
    assert listed == here['text'][here['named'] & (here['start'] < 1)].tolist()
    assert m.ask('document.activeElement === e.names')
    panel.get_by_role('button', name=listed[-1], exact=True).press('Enter')
    panel.locator('.px-seen').first.wait_for()
    assert panel.locator('h3').inner_text() == listed[-1]
    m.page.keyboard.press('Escape')
    assert not panel.is_visible() and m.ask('document.activeElement.classList.contains("px-namer")')
    chip.press('Enter')
    panel.get_by_role('button', name='Close').press('Enter')
    assert not panel.is_visible()
    assert_clean(m.watched)


def test_page_labels_of_words_answer_as_before(small):
    _, m = small
    assert m.root.locator('.px-namer, .px-names').count() == 0
    assert not m.ask('e.points.written.some(w => w.label.seen || e.points.font(w.label).includes("italic"))')
    assert m.ask('e.points.labelAt(...e.points.written[0].box)') is None


def test_page_hostile_texts_that_a_model_saw_stay_texts(exported):
    scene = hostile_scene()
    made = named_maps(scene, True)
    _, m = exported(scene, True, maps=lambda *_: made)
    panel, count = m.root.locator('.px-names'), 0
    for space in made.named:
        for place in range(m.ask('e.s.labels[given[0]].filter(l => l.seen).length', space)):
            m.ask('e.showName(e.s.labels[given[0]].filter(l => l.seen)[given[1]])', space, place)
            panel.locator('.px-seen').first.wait_for()
            count += panel.locator('.px-seen').count()
            assert panel.locator('img, script, iframe, a, svg').count() == 0
    m.root.locator('.px-namer').click()
    assert count and TEXTS['img'] in panel.inner_text()
    assert_clean(m.watched)


def test_page_its_address_leads_back(exported):
    """What is looked at is in the address; another page opens there; a made-up address does no harm."""
    _, m = exported(small_scene())
    m.click(m.alone(range(60)))
    node = m.ask('e.state.picked')
    m.root.locator('.px-colour').select_option('interactions')
    m.root.locator('.px-blend').press('End')
    m.page.wait_for_function('() => location.hash.includes("blend=1") && location.hash.includes("node=")')
    address = m.page.url
    assert f'node={node}' in address and 'colour=interactions' in address
    bad = '#node=1e9&colour=<img src=x onerror=__hit(1)>&map=__proto__&blend=9'
    for given, there in ((address, node), (address.split('#')[0] + bad, -1)):
        m.page.goto('about:blank')
        m.page.goto(given)
        seen = Map(m.watched)
        seen.page.wait_for_function('() => document.querySelector(".px-mount").dataset.ready')
        assert seen.ask('e.state.picked') == there and seen.ask('e.state.blend') == (there >= 0)
    assert_clean(m.watched)


def test_page_a_new_selection_replaces_the_drawn_one(small):
    """A lasso inside an earlier box is a new lasso, and a search after it shows what was found."""
    _, m = small
    m.drag('box', 0.7)
    m.root.locator('.px-selection h3').wait_for()
    wide = m.selected()
    m.drag('lasso', 0.3)
    assert 0 < m.selected() < wide
    found = m.search('harbours')
    assert m.selected() >= len(found) and f'{m.selected()} of 120' in m.live.inner_text()
    m.search('')
    m.root.locator('.px-clear').click()
    assert_clean(m.watched)


def test_page_arrow_keys_walk(small):
    _, m = small
    m.plot.focus()
    m.page.keyboard.press('ArrowRight')
    first = m.card.locator('h3').inner_text()
    m.page.keyboard.press('ArrowLeft')
    assert m.card.locator('h3').inner_text() != first
    assert_clean(m.watched)


def test_page_sends_nothing_away(small):
    assert not small[1].root.locator('a[href], form, .modebar').count()


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
    m.drag('lasso', 0.99)
    m.root.locator('.px-selection h3').wait_for()
    opened = m.root.evaluate(CARDS)
    assert len(opened) == 50
    for node in range(0, 120, 7):
        m.to(node)
        m.page.wait_for_timeout(40)
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


@pytest.mark.parametrize('mode', ['lasso', 'box'])
def test_lab_lasso_and_box_give_a_frame(book, lab_map, mode):
    m = lab_map
    m.drag(mode, 0.45 if mode == 'lasso' else 0.6)
    head = m.root.locator('.px-selection h3')
    head.wait_for()
    users, items = map(int, re.findall(r'\d+', head.inner_text()))
    frame = book.until('explorer.selected', lambda f: len(f) == users + items)
    assert 0 < len(frame) < 120 and [sum(r['kind'] == k for r in frame) for k in ('user', 'item')] == [users, items]
    assert {'node', 'kind', 'row', 'id', 'name', 'profile'} <= set(frame[0])
    screenshot(m.root, f'map-lab-{mode}')
    m.root.locator('.px-keepB').click()
    assert book.until('len(explorer.cohorts.get("B", []))', lambda n: n == users + items)
    book.run('explorer.keep("B", [])')
    m.root.locator('.px-clear').click()
    assert book.until('explorer.selected', lambda f: f == []) == []
    assert_clean(book)


def test_lab_search_colour_and_slider(book, lab_map):
    m = lab_map
    assert m.search('u007') == [book.value("scene.name('user', 7)")]
    m.root.locator('.px-results:not(.px-alike) .px-link').first.press('Enter')
    assert book.until('explorer.picked', lambda p: p == ['user', 7])
    m.search('')
    m.root.locator('.px-colour').select_option('interactions')
    m.root.locator('.px-ramp').wait_for()
    before = m.spots([3])[0]
    m.root.locator('.px-blend').press('End')
    m.root.locator('.px-caption', has_text='after reshaping').wait_for()
    assert m.spots([3])[0] != before
    assert_clean(book)


def test_lab_python_moves_the_browser(book, lab_map):
    m = lab_map
    book.run("explorer.picked = ('item', 5)\nexplorer.select([0, 1, 70])\nexplorer.colour_by('kind').move(.5)")
    m.card.get_by_role('heading', name=book.value("scene.name('item', 5)")).wait_for()
    m.root.locator('.px-selection h3', has_text='2 users, 1 item').wait_for()
    m.root.locator('.px-caption', has_text='at 50 %').wait_for()
    assert m.root.locator('.px-colour').input_value() == 'kind' and len(book.value('explorer.selected')) == 3
    assert_clean(book)


def test_lab_sends_nothing_away(lab_map):
    assert not lab_map.root.locator('a[href], form, .modebar').count()


def test_lab_a_broken_callback_shows_its_error(book, lab_map):
    m, widget = lab_map, book.page.locator('.t-map')
    book.run(
        "def broken(*a, **k): raise RuntimeError('planted <img src=x onerror=__hit(7)> fault')\n"
        'explorer.canvas.selected = broken'
    )
    m.drag('lasso', 0.4)
    alert = widget.get_by_role('alert').filter(has_text='planted <img src=x onerror=__hit(7)> fault')
    alert.wait_for()
    screenshot(m.root, 'map-lab-error')
    book.run('explorer.canvas.selected = explorer.hear_selection')
    m.drag('lasso', 0.5)
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


def test_lab_a_name_by_a_model_tells_what_it_saw(book):
    m = Map(book, '.t-named')
    m.root.scroll_into_view_if_needed()
    read_a_name(m, named_maps(small_scene()), 'map-lab-named')
    assert_clean(book)


def test_lab_the_workbench_follows(book):
    """Picked in the list, shown on the map; clicked on the map, shown in the middle and behind the tabs."""
    desk = book.page.locator('.t-desk')
    book.page.set_viewport_size({'width': 1720, 'height': 1000})
    desk.scroll_into_view_if_needed()
    m = Map(book, '.t-desk')
    assert not m.card.is_visible(), 'the person stands beside the map, once'
    desk.get_by_role('listbox', name='Results').select_option(index=4)
    assert book.until('desk.map.picked', lambda p: p == ['user', 4])
    m.page.wait_for_function('e => e.explorer.state.picked === 4', arg=m.root.element_handle())
    node = m.alone(range(60))
    m.page.mouse.click(*m.spots([node])[0])
    kind, row = ('user', node) if node < 60 else ('item', node - 60)
    assert book.until('desk.picked', lambda p: p == [kind, row])
    desk.get_by_role('tab', name='distribution').click()
    assert book.until('[desk.tab, desk.distribution.user]', lambda seen: seen == ['distribution', row])
    desk.get_by_role('tab', name='person').click()
    screenshot(desk, 'workbench')
    assert_clean(book)


def test_lab_the_way_back_stays_in_the_notebook(book, lab_map):
    """An item of somebody's list is looked at for them; Alt and the left arrow lead back, and never out of the page."""
    m, address = lab_map, book.page.url
    book.run("explorer.picked = ('user', 7)")
    m.card.locator('.px-person').wait_for()
    item = m.card.locator('.pm-list .pm-item').nth(11)
    node = 60 + int(item.get_attribute('data-item'))
    item.press('Enter')
    m.card.locator('.px-whom', has_text=book.value("scene.name('user', 7)")).wait_for()
    assert book.until('explorer.picked', lambda p: p == ['item', node - 60])
    m.page.keyboard.press('Alt+ArrowLeft')
    assert book.until('explorer.picked', lambda p: p == ['user', 7])
    m.page.keyboard.press('Alt+ArrowRight')
    m.card.locator('.px-whom').wait_for()
    m.root.locator('.px-back').click()
    assert book.until('explorer.picked', lambda p: p == ['user', 7])
    for _ in range(m.ask('e.step') + 2):
        m.page.keyboard.press('Alt+ArrowLeft')
    assert book.page.url == address
    assert_clean(book)


def test_lab_nothing_moves_the_desk(book):
    """What the list says lies in a place of its own; the map of the desk leads back to who was picked before."""
    desk = book.page.locator('.t-desk')
    book.page.set_viewport_size({'width': 1720, 'height': 1000})
    desk.scroll_into_view_if_needed()
    m, search = Map(book, '.t-desk'), desk.get_by_role('textbox', name='Search')
    at = '() => { const a = document.querySelector(".t-desk"), b = a.querySelector(".px-plot").getBoundingClientRect();'
    at += ' return [b.top - a.getBoundingClientRect().top, b.width, b.height]; }'
    book.run("desk.picked = ('user', 3)")
    boxes = [m.page.evaluate(at)]
    for text in ('u0', 'mountain huts', 'zzz', ''):
        search.fill(text)
        search.press('Enter')
        m.page.wait_for_timeout(700)
        boxes.append(m.page.evaluate(at))
    book.run("desk.browser.notice.fail(ValueError('planted'))")
    desk.get_by_role('alert').filter(has_text='planted').first.wait_for()
    boxes.append(m.page.evaluate(at))
    m.root.locator('.px-search').fill('is:nonsense')
    m.page.wait_for_timeout(200)
    boxes.append(m.page.evaluate(at))
    m.root.locator('.px-search').press('Escape')
    book.run("desk.picked = ('user', 4)\ndesk.picked = ('item', 2)")
    assert book.until('desk.map.canvas.picked', lambda p: p == 62)
    m.page.wait_for_function('e => e.explorer.state.picked === 62', arg=m.root.element_handle())
    boxes.append(m.page.evaluate(at))
    m.root.locator('.px-back').click()
    assert book.until('desk.picked', lambda p: p == ['user', 4])
    assert book.value('desk.state')['picked'] == ['user', 'u004']
    assert [box for box in boxes if box != boxes[0]] == []
    assert_clean(book)
