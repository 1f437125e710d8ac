"""The site as a reader has it: from disk, with the network off, in light and dark, on a wide screen and on a phone."""

import os

import pytest
from built import hostile_site, sites

from .lab import Plot, assert_clean, assert_keeps_data, screenshot

WINGS = ('data', 'profiles', 'retrieval', 'models', 'recommend', 'lettingo', 'views')
PHONE = {'width': 390, 'height': 844}
# What stands out of the window at its right, and is not inside of a box that scrolls
STANDS_OUT = """() => [...document.querySelectorAll('article *, .mobile-header *, footer *')].filter(e => {
  if (e.closest('svg, mjx-container, .js-plotly-plot')) return false;
  if (e.getBoundingClientRect().right <= innerWidth + 1 || !e.getClientRects().length) return false;
  for (let p = e.parentElement; p && p.tagName !== 'ARTICLE'; p = p.parentElement) {
    const within = p.getBoundingClientRect().right <= innerWidth + 1;
    if (within && ['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(p).overflowX)) return false;
  }
  return true;
}).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 60)).slice(0, 5)"""
EMPTY = "() => [...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src.slice(0, 100))"


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return sites(lambda: tmp_path_factory.mktemp('tree')) / 'offline'


@pytest.fixture(scope='module')
def reader(open_file, folder):
    return open_file(folder / 'index.html')


def asked_pages(folder) -> list:
    """Every page; of the chapters of a wing the first and the last, unless PROMAX_FULL is set."""
    pages = sorted(folder.rglob('*.html'))
    assert len(pages) > 100
    if os.environ.get('PROMAX_FULL'):
        return pages
    chapters = {name: sorted((folder / name).glob('*.html')) for name in WINGS}
    ends = [path for pages_of_wing in chapters.values() for path in (pages_of_wing[0], pages_of_wing[-1])]
    return [path for path in pages if path.parent.name not in WINGS or path in ends]


def test_every_page(reader, folder):
    """No error, no request to elsewhere, every picture there, and nothing wider than a phone."""
    page, pages, wrong = reader.page, asked_pages(folder), []
    assert len(pages) > 30
    page.emulate_media(reduced_motion='reduce')
    for path in pages:
        name = path.relative_to(folder).as_posix()
        page.set_viewport_size({'width': 1280, 'height': 900})
        page.goto(path.as_uri(), wait_until='load')
        page.wait_for_function(
            "() => [...document.querySelectorAll('.promax-figure')].every(e => e.classList.contains('js-plotly-plot'))"
        )
        wrong += [f'{name}: empty picture {x}' for x in page.evaluate(EMPTY)]
        for size in ({'width': 1280, 'height': 900}, PHONE):
            page.set_viewport_size(size)
            if page.evaluate('() => document.documentElement.scrollWidth > innerWidth'):
                wrong.append(f'{name} scrolls sideways at {size["width"]}')
            wrong += [f'{name} at {size["width"]}: {x}' for x in page.evaluate(STANDS_OUT)]
        wrong += [f'{name}: {kind} {x}' for kind, what in reader.problems().items() for x in what] + [
            f'{name}: {x}' for x in reader.failed
        ]
        reader.forget()
    assert not wrong, '\n'.join(wrong[:40])


def test_search_finds_a_word(open_file, folder):
    watched = open_file(folder / 'index.html')
    watched.page.get_by_placeholder('Search').fill('whitening')
    watched.page.get_by_placeholder('Search').press('Enter')
    found = watched.page.locator('#search-results li a')
    found.first.wait_for()
    assert any('embed.html' in found.nth(k).get_attribute('href') for k in range(found.count()))
    screenshot(watched, 'site-search')
    found.first.click()
    watched.page.locator('.highlighted').first.wait_for()  # until then the word waits to be marked, on whatever page
    assert 'whiten' in watched.page.locator('article').inner_text().lower()
    seen = watched.problems()  # Sphinx's link that takes the marks of the word away, and no more
    assert seen == {'live markup': ['a[href=javascript:SphinxHighlight.hideSearchWords()]']}


def test_a_figure_answers(open_file, folder):
    watched = open_file(folder / 'story.html')
    plot = Plot(watched, watched.page.locator('.promax-figure').nth(1))
    curve, point = plot.at.evaluate("gd => { const c = gd._fullData.findIndex(t => t.x?.length > 3); return [c, 2]; }")
    assert plot.hover(curve, point)
    screenshot(watched, 'site-figure')
    assert_keeps_data(watched)
    assert_clean(watched)


def test_formulas_are_drawn(open_file, folder):
    watched = open_file(folder / 'models' / 'losses.html')
    watched.page.locator('mjx-container svg').first.wait_for()
    formulas = watched.page.locator('article .math')
    assert formulas.count() > 10 and watched.page.locator('article .math mjx-container').count() == formulas.count()
    assert not watched.page.locator('mjx-merror').count()
    assert_clean(watched)


def test_light_dark_and_phone(open_file, folder):
    colour = 'getComputedStyle(document.body).backgroundColor'
    shade = f"() => {colour}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3"
    light, dark = open_file(folder / 'index.html'), open_file(folder / 'index.html', color_scheme='dark')
    assert light.page.evaluate(shade) > 230 and dark.page.evaluate(shade) < 60
    for name, page, watched in (
        ('front', 'index', light),
        ('lesson', 'lessons/profiles', light),
        ('reference', 'models/bases', dark),
    ):
        watched.page.goto((folder / f'{page}.html').as_uri())
        screenshot(watched, f'site-{name}')
    light.page.goto((folder / 'index.html').as_uri())
    framed = light.page.frame_locator('iframe.live-map')
    seen = "img => img.complete && img.naturalWidth > 500"
    framed.locator('img').wait_for()
    assert framed.locator('img').evaluate(seen), 'the still picture'
    framed.get_by_role('link').click()
    framed.locator('#map').wait_for()
    light.page.locator('.theme-toggle:visible').first.click()  # auto -> the other one
    light.page.locator('.theme-toggle:visible').first.click()
    assert light.page.evaluate('() => document.body.dataset.theme') in ('light', 'dark')
    phone = open_file(folder / 'index.html', color_scheme='light')
    phone.page.set_viewport_size(PHONE)
    screenshot(phone, 'site-phone')
    phone.page.locator('label.nav-overlay-icon, .mobile-header .nav-icon').first.click()
    phone.page.get_by_role('link', name='Use your own data').first.click()
    phone.page.wait_for_url('**/own_data.html')
    screenshot(phone, 'site-phone-howto')
    for watched in (light, dark, phone):
        assert_clean(watched)


def test_hostile_outputs_stay_text(open_file, tmp_path):
    watched = open_file(hostile_site(tmp_path) / 'index.html')
    watched.page.locator('.js-plotly-plot').wait_for()
    assert not watched.page.locator('article mjx-container').count()
    assert_clean(watched)
