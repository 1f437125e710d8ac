"""The map's page to a reader who goes from place to place: nothing jumps, steps have a way back, figures lead in."""

import re

import pytest

from promax_nb.views.gains import degree_gain_plot
from promax_nb.views.person import lists_of, person_scores, places_of

from .hostile import flat_maps, hostile_scene, small_scene
from .lab import Plot, assert_clean, screenshot
from .test_map import Map

SCREENS = {'desktop': (1500, 1150), 'phone': (400, 860)}
WATCH = """() => {
  window.__shifts = [];
  const plot = document.querySelector('.px-plot');
  const meets = node => node && (node.contains(plot) || plot.contains(node));
  new PerformanceObserver(list => {
    for (const entry of list.getEntries())
      for (const source of entry.sources) if (meets(source.node)) window.__shifts.push(entry.value);
  }).observe({type: 'layout-shift'});
}"""
BOX = """() => {
  const box = document.querySelector('.px-plot').getBoundingClientRect();
  return [box.left + scrollX, box.top + scrollY, box.width, box.height];
}"""
OLD = """.px-found { height: auto !important; } .px-panel { position: static !important; max-height: 46px !important; }
.px-legend { height: auto !important; max-height: none !important; }"""


@pytest.fixture(scope='module')
def page_of(tmp_path_factory, open_file):
    """page_of(parts) -> the map of a page on disk"""
    from promax_nb.views.page import save_html

    def open_page(parts):
        return Map(open_file(save_html(parts, tmp_path_factory.mktemp('steps') / 'page.html')))

    return open_page


@pytest.fixture(scope='module')
def world():
    scene = small_scene()
    return scene, flat_maps(scene)


@pytest.fixture(scope='module')
def small(world, page_of):
    scene, maps = world
    return scene, page_of({'Map': (scene, maps), 'Who gained?': degree_gain_plot(scene)})


def moved(m, do) -> tuple:
    """Which of the things that were done moved the map's box, and the layout shifts seen meanwhile."""
    m.page.evaluate(WATCH)
    boxes = [m.page.evaluate(BOX)]
    for act in do:
        act()
        m.page.wait_for_timeout(200)
        boxes.append(m.page.evaluate(BOX))
    return [k for k, box in enumerate(boxes[1:]) if box != boxes[0]], m.page.evaluate('window.__shifts')


def everything(m) -> list:
    """What a reader does that once moved the map."""
    search, colour = m.root.locator('.px-search'), m.root.locator('.px-colour')
    values = colour.locator('option').evaluate_all('options => options.map(o => o.value)')

    def pick():
        m.root.locator('.px-results .px-link').first.click()

    return [
        lambda: search.press_sequentially('harbours'),
        lambda: search.fill('is:lost'),
        pick,
        lambda: search.fill('is:nonsense'),
        lambda: search.fill('colour:red'),
        lambda: search.press('Escape'),
        *(lambda value=value: colour.select_option(value) for value in values),
        lambda: m.root.locator('.px-map').select_option('profiles'),
        lambda: m.root.locator('.px-map').select_option('recommender'),
        lambda: m.click(m.alone(range(60))),
        lambda: m.drag('lasso', 0.5),
        lambda: m.root.locator('.px-keepA').click(),
        lambda: m.root.locator('.px-groups .px-tool').last.click(),
        lambda: m.ask('e.fail(new Error("planted, and long enough for more than one line of a narrow page"))'),
        lambda: m.root.locator('.px-clear').click(),
        lambda: m.ask('e.groups.keep("A", null)'),
    ]


@pytest.mark.parametrize('screen', SCREENS)
def test_nothing_moves_the_map(small, screen):
    _, m = small
    wide, high = SCREENS[screen]
    m.page.set_viewport_size({'width': wide, 'height': high})
    m.page.wait_for_timeout(300)
    assert moved(m, everything(m)) == ([], [])
    m.search('is:lost')
    screenshot(m.watched, f'map-steps-{screen}')
    results, plot = (m.root.locator(c).first.bounding_box() for c in ('.px-panel', '.px-plot'))
    assert results['y'] < plot['y'] < results['y'] + results['height'], 'they lie over the map'
    assert results['x'] >= 0 and results['x'] + results['width'] <= wide
    m.root.locator('.px-search').press('Escape')
    assert_clean(m.watched)


def test_the_box_is_measured(small):
    """The positive control: with the results in the way the map moves, and the observer sees it."""
    _, m = small
    m.page.set_viewport_size({'width': 1500, 'height': 1150})
    style = m.page.add_style_tag(content=OLD)
    away, shifts = moved(m, everything(m))
    style.evaluate('e => e.remove()')
    assert len(away) > 3 and shifts


def test_results_are_walked_with_arrows_and_close_when_one_leaves_them(small):
    _, m = small
    search, links = m.root.locator('.px-search'), m.root.locator('.px-panel .px-link')
    m.search('is:gained')
    assert links.first.is_visible()
    search.press('ArrowDown')
    m.page.keyboard.press('ArrowDown')
    assert links.nth(1).evaluate('e => e === document.activeElement')
    m.page.keyboard.press('Enter')
    assert m.card.locator('h3').inner_text() in links.nth(1).inner_text() and links.first.is_visible()
    m.page.keyboard.press('ArrowUp')
    m.page.keyboard.press('ArrowUp')
    assert search.evaluate('e => e === document.activeElement')
    m.root.locator('.px-tool.px-lasso').focus()
    assert not links.first.is_visible() and 'match' in m.live.inner_text()
    search.focus()
    assert links.first.is_visible()
    search.press('Escape')
    assert_clean(m.watched)


def to_user(m, user: int):
    m.ask('e.pick(given[0], true, true)', user)
    m.root.locator('.px-person').wait_for()


def test_an_item_says_for_whom_it_is_looked_at(small):
    """Places before and after, held out or not, and why: of every item of the lists and of the held-out ones."""
    scene, m = small
    lists, scores = lists_of(scene, 7), person_scores(scene, 7)
    places = places_of(scene, 7, lists, scores)
    wanted = set(scene.data.test[[7]].indices)
    assert wanted <= set(places) and {slot.item for slots in lists.values() for slot in slots} <= set(places)
    for item, (before, after) in places.items():
        to_user(m, 7)
        m.card.locator(f'[data-item="{item}"], [data-node="{scene.data.n_users + item}"]').first.dispatch_event('click')
        told = m.card.locator('.px-whom').inner_text()
        assert f'Looked at for {scene.name("user", 7)}' in told and f'place {before} before, {after} after' in told
        assert ('★ held out' in told) == (item in wanted) and ('not held out' in told) == (item not in wanted)
        assert ('Why it is on the list after' in told) == (after <= 10)
        fell = item in wanted and before <= 10 < after
        assert (f'fell from {before} to {after}' in told) == fell
    to_user(m, 7)
    known = int(scene.data.train[[7]].indices[0])
    m.card.locator('details', has_text='History').locator(f'[data-node="{scene.data.n_users + known}"]').click()
    assert 'in the training history, so on no list' in m.card.locator('.px-whom').inner_text()
    m.ask('e.pick(given[0], true)', scene.data.n_users + known)
    assert not m.card.locator('.px-whom').count(), 'picked on the map it is looked at for nobody'
    assert_clean(m.watched)


def test_every_step_has_a_way_back(small):
    """By the card's button, by Alt and arrows, by the browser; the card is as it was left, the address leads there."""
    scene, m = small
    m.root.locator('.px-clear').click()
    to_user(m, 7)
    why, heading = m.card.locator('.pm-why'), m.card.locator('h3')
    why.locator('summary').first.click()
    item = m.card.locator('.pm-list .pm-item').nth(12)
    item.focus()
    item.press('Enter')
    m.card.locator('.px-whom').wait_for()
    title = heading.inner_text()
    assert m.card.locator('.px-backto').evaluate('e => e === document.activeElement'), 'the focus is not lost'
    assert m.card.locator('.px-backto').inner_text() == f'← back to {scene.name("user", 7)}'
    address = m.page.url
    assert re.search(r'node=\d+&for=7$', address)
    m.root.locator('.px-distbox li[aria-current]').or_(m.root.locator('.px-dist h3', has_text=' of ')).first.wait_for()
    screenshot(m.root, 'map-steps-item')
    m.page.keyboard.press('Enter')
    heading.filter(has_text=scene.name('user', 7)).wait_for()
    assert why.evaluate('e => e.open') and item.evaluate('e => e === document.activeElement')
    m.page.keyboard.press('Alt+ArrowRight')
    heading.filter(has_text=title).wait_for()
    assert m.card.locator('.px-whom').count()
    m.page.keyboard.press('Alt+ArrowLeft')
    heading.filter(has_text=scene.name('user', 7)).wait_for()
    m.page.go_forward()
    heading.filter(has_text=title).wait_for()
    m.root.locator('.px-back').click()
    heading.filter(has_text=scene.name('user', 7)).wait_for()
    assert 'for=' not in m.page.url
    m.page.keyboard.press('Escape')
    heading.wait_for(state='detached')
    m.page.go_back()
    heading.filter(has_text=scene.name('user', 7)).wait_for()
    m.plot.focus()
    for key in ('ArrowRight', 'ArrowUp', 'ArrowLeft'):
        m.page.keyboard.press(key)
    m.root.locator('.px-back').click()
    heading.filter(has_text=scene.name('user', 7)).wait_for()
    assert_clean(m.watched)
    start = address.split('#')[0]
    for given, whom in (
        (address, 7),
        (f'{start}#node=70&for=999', -1),
        (f'{start}#node=3&for=7', -1),
        (start + '#for=2', -1),
    ):
        m.page.goto('about:blank')
        m.page.goto(given)
        there = Map(m.watched)
        there.page.wait_for_function('() => document.querySelector(".px-mount").dataset.ready')
        assert there.ask('e.state.whom') == whom and there.card.locator('.px-whom').count() == (whom >= 0)
    assert_clean(m.watched)


def test_a_dot_of_a_figure_opens_who_it_is(world, page_of):
    import plotly.graph_objects as go

    scene, maps = world
    own = go.Figure()
    own.add_scatter(
        x=[1, 2, 3],
        y=[1, 2, 3],
        mode='markers',
        marker_size=20,
        name='pairs',
        customdata=[['user', 5], ['item', str(scene.data.items['item'][4])], ['user', 'nobody <b>']],
    )
    own.add_scatter(
        x=[1, 2], y=[2, 1], mode='markers', marker_size=20, name='numbers of something else', customdata=[8, 9]
    )
    plain = go.Figure(go.Scatter(x=[1, 2], y=[1, 2], mode='markers', customdata=[1, 2]))
    m = page_of({'Map': (scene, maps), 'Who gained?': degree_gain_plot(scene), 'Mine': own, 'Other': plain})
    m.page.wait_for_function('() => document.querySelector(".px-mount").dataset.ready')
    figures = [Plot(m.watched, m.page.locator('.js-plotly-plot').nth(k)) for k in range(3)]
    assert m.page.locator('.px-lead').count() == 2, 'a figure without people says nothing'
    users = figures[0].at.evaluate('g => g.data.findIndex(t => t.meta === "nodes")')
    dots = figures[0].spots([[users, k] for k in range(scene.data.n_users)])
    alone = max(
        range(len(dots)),
        key=lambda k: min(abs(dots[k][0] - x) + abs(dots[k][1] - y) for j, (x, y) in enumerate(dots) if j != k),
    )
    node = figures[0].at.evaluate('(g, [t, k]) => g.data[t].customdata[k]', [users, alone])
    assert scene.data.users['user'][node] in figures[0].hover(users, alone)
    away = m.page.evaluate('scrollY')
    figures[0].click(users, alone)
    m.card.locator('h3', has_text=scene.name('user', node)).wait_for()
    assert m.ask('e.state.picked') == node and m.page.evaluate('scrollY') < away
    box = m.card.bounding_box()
    assert 0 <= box['y'] < 1000 and m.card.locator('h3').evaluate('e => e === document.activeElement')
    m.page.go_back()
    m.page.wait_for_function('y => Math.abs(scrollY - y) < 5', arg=away)
    for trace, k, there in ((0, 0, 5), (0, 1, scene.data.n_users + 4), (0, 2, None), (1, 1, None)):
        m.ask('e.pick(-1, true)')
        figures[1].click(trace, k)
        m.page.wait_for_timeout(200)
        assert m.ask('e.state.picked') == (-1 if there is None else there)
    assert_clean(m.watched)


def test_hostile_texts_stay_texts_on_the_way(page_of):
    """Of a person, and of what is said for whom."""
    scene = hostile_scene()
    m = page_of({'Map': (scene, flat_maps(scene, True)), 'Who gained?': degree_gain_plot(scene)})
    for user in range(0, 60, 3):
        m.ask('e.pick(given[0], true)', user)
        for item in m.card.locator('.pm-list .pm-item').all()[::9]:
            item.dispatch_event('click')
            m.card.locator('.px-backto').dispatch_event('click')
        m.card.locator('.pm-list .pm-item').last.dispatch_event('click')
        assert m.card.locator('.px-whom').count() == 1 and m.root.locator('.px-back').get_attribute('title')
    assert_clean(m.watched)
