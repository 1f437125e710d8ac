"""Positive controls: each check that the other tests here rely on is tripped on purpose, once."""

import pytest

from .lab import assert_clean

PAGE = '<!doctype html><html><head><meta charset="utf-8"><title>t</title></head><body>{}</body></html>'
RUN = {
    'script': '<script>__hit("script")</script>',
    'onerror': '<img src=x onerror=__hit("onerror")>',
    'onload': '<svg onload=__hit("svg")>',
    'alert': '<script>alert(1)</script>',
    'frame': '<iframe srcdoc="<script>__hit(1)</script>"></iframe>',
    'inner': '<div id=a></div><script>document.getElementById("a").innerHTML = "<img src=x onerror=__hit(2)>"</script>',
}

OUT = '<img src="http://192.0.2.1/x.png">'


@pytest.fixture
def see(open_file, tmp_path):
    def write(body):
        (tmp_path / 'page.html').write_text(PAGE.format(body), encoding='utf-8')
        return open_file(tmp_path / 'page.html')

    return write


def test_a_quiet_page_is_clean(see):
    assert_clean(
        see(
            '&lt;script&gt;__hit()&lt;/script&gt; &lt;img src=x onerror=__hit()&gt; javascript:__hit() http://evil.example/'
        )
    )


@pytest.mark.parametrize('how', RUN)
def test_scripts_trip_the_detector(see, how):
    page = see(RUN[how])
    assert 'script hits' in page.problems()
    with pytest.raises(AssertionError, match='script hits'):
        assert_clean(page)


def test_live_markup_trips_even_where_nothing_ran(see):
    body = (
        '<a href="java\nscript:__hit()">x</a><button onclick="__hit()">y</button><p style="background:url(http://evil.example/)">z</p>'
        '<style>p{color:red;content:url("data:,__hit")}</style>'
    )
    assert len(see(body).problems()['live markup']) == 4


@pytest.mark.parametrize(
    'body',
    [
        OUT,
        '<script>fetch("https://evil.example/x").catch(() => 0)</script>',
        '<link rel="stylesheet" href="https://cdn.example/x.css">',
        '<script>new WebSocket("ws://evil.example/")</script>',
    ],
)
def test_outside_requests_are_seen_without_a_network(see, body):
    page = see(body)
    assert len(page.problems()['outside requests']) == 1
    with pytest.raises(AssertionError, match='outside requests'):
        assert_clean(page)


def test_errors_trip(see):
    page = see('<script>console.error("planted")</script><script>throw new Error("thrown")</script>')
    found = page.problems()
    assert 'planted' in found['console errors'][0] and 'thrown' in found['page errors'][0]
    page.forget()
    assert_clean(page)


CELLS = [
    "print('hello')",
    """import ipywidgets as w
from IPython.display import display, HTML
menu = w.Dropdown(options=['a', 'b'], description='letter')
shown = w.Label('none')
menu.observe(lambda c: setattr(shown, 'value', 'picked ' + c.new), 'value')
slot = w.HTML()
display(menu, shown, slot)""",
]


@pytest.fixture(scope='module')
def small(open_notebook):
    return open_notebook(CELLS)


def test_a_notebook_runs_and_a_dropdown_changes(small):
    assert small.outputs()[0][0]['text'] == 'hello\n' and small.failures() == []
    small.page.get_by_label('letter').select_option('b')
    small.page.get_by_text('picked b').wait_for()
    assert small.until('menu.value', lambda v: v == 'b') and small.run('1 + 1') == '2'
    with pytest.raises(AssertionError, match='ZeroDivisionError'):
        small.run('1 / 0')
    assert_clean(small)


def test_unescaped_text_in_jupyterlab_trips(small):
    small.run(f'slot.value = {RUN["onerror"] + OUT!r}')
    small.page.wait_for_function('() => window.__pwned.hit > 0')
    found = small.problems()
    assert found['script hits'] and found['live markup'] and found['outside requests'] == ['http://192.0.2.1/x.png']
