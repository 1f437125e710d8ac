"""Chromium, JupyterLab and pages for the tests here.

Everything is closed when the last test of this folder is over: an open browser would leave a running event loop
to other tests of the process.
"""

import pytest

from .lab import ARGS, DETECTOR, LabServer, Notebook, Watched, find_chromium


@pytest.fixture(scope='session')
def chromium(needed):
    """The browser's path."""
    return needed(
        find_chromium(),
        'PROMAX_REQUIRE_BROWSER',
        'no Chromium found; install chromium, or set PROMAX_CHROMIUM to it, to run the browser tests.',
    )


@pytest.fixture(scope='package')
def playwright(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        yield p


@pytest.fixture(scope='package')
def launch(playwright, chromium):
    """Start a browser, with further arguments (`--disable-3d-apis` for one without WebGL)."""
    started = []

    def start(*more):
        started.append(playwright.chromium.launch(executable_path=chromium, args=[*ARGS, *more]))
        return started[-1]

    yield start
    for b in started:
        b.close()


@pytest.fixture(scope='package')
def browser(launch):
    return launch()


@pytest.fixture(scope='package')
def lab(chromium, tmp_path_factory):
    server = LabServer(tmp_path_factory.mktemp('lab'))
    try:
        yield server.start()
    finally:
        server.stop()


def _context(browser, **kw):
    context = browser.new_context(**({'viewport': {'width': 1280, 'height': 1000}} | kw))
    context.add_init_script(DETECTOR)
    return context


@pytest.fixture(scope='module')
def open_notebook(browser, lab, request):
    """open_notebook(cells) -> a Notebook whose cells have run; closed, kernel and all, after the module."""
    context, opened = _context(browser), []

    def open_one(cells, name=None):
        nb = Notebook(context)
        opened.append(nb)
        return nb.open(lab, cells, name or f"{request.module.__name__.rpartition('.')[2]}-{len(opened)}.ipynb")

    yield open_one
    for nb in opened:
        nb.close()
    context.close()


@pytest.fixture(scope='module')
def open_file(browser):
    """open_file(path) -> a Watched page of a file on disk, with the network off.

    browser= and options of a context (color_scheme='dark') open it elsewhere.
    """
    contexts, pages = {}, []

    def open_one(path, browser=browser, **kw):
        key = (id(browser), *sorted(kw.items()))
        if key not in contexts:
            contexts[key] = _context(browser, **kw)
            contexts[key].set_offline(True)
        pages.append(Watched(contexts[key]))
        pages[-1].page.goto(path.resolve().as_uri(), wait_until='load')
        return pages[-1]

    yield open_one
    for p in pages:
        if not p.page.is_closed():
            p.close()
    for c in contexts.values():
        c.close()
