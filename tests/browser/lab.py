"""A real Chromium and a real JupyterLab: start them, watch what pages do, run notebooks in them."""

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import nbformat

ARTIFACTS = Path(__file__).resolve().parent.parent / 'artifacts'
WAIT = int(
    os.environ.get('PROMAX_BROWSER_WAIT', 90)
)  # seconds before a wait gives up: far more than a quiet machine needs; no test asserts on it
# The last rule leads every name and address but this machine's nowhere: the browser has no network, so a planted
# outside request fails at once.
ARGS = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-proxy-server',
    '--enable-unsafe-swiftshader',
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost',
]
# Patterns of console errors that JupyterLab or Chromium write by themselves, without any of our code: none was seen
# (warnings are not judged).
NOISE: tuple = ()
DETECTOR = """
(() => {
  if (window.__hits) return;
  window.__hits = [];
  window.__pwned = {alert: 0, confirm: 0, prompt: 0, print: 0, hit: 0};
  const trip = (how, why) => {
    const text = how + ' ' + (why ?? '');
    window.__pwned[how]++;
    window.__hits.push(text);
    console.error('SCRIPT-HIT ' + text);
  };
  for (const how of ['alert', 'confirm', 'prompt', 'print']) window[how] = why => { trip(how, why); return null; };
  window.__hit = why => trip('hit', why);
})();
"""
# Markup that came alive without running (yet): anything that carries the hostile strings' own words, or javascript:,
# in an attribute that acts.
ALIVE = """
() => {
  const found = [], roots = [document];
  for (let r = 0; r < roots.length; r++) for (const e of roots[r].querySelectorAll('*')) {
    if (e.shadowRoot) roots.push(e.shadowRoot);
    for (const a of e.attributes) {
      const name = a.name.toLowerCase(), value = a.value.replace(/[\\s\\x00-\\x1f]/g, '').toLowerCase();
      const loads = /^(href|xlink:href|src|srcset|srcdoc|data|content|poster|background)$/.test(name);
      const acts = loads || /^(on.*|action|formaction|style)$/.test(name);
      const bad = /__hit|evil\\.example/.test(value) || /^(javascript|vbscript):/.test(value);
      if (acts && bad) found.push(e.tagName.toLowerCase() + '[' + name + '=' + a.value.slice(0, 80) + ']');
    }
    const styled = e.tagName === 'STYLE' && /__hit|evil\\.example/.test(e.textContent);
    if (styled) found.push('style ' + e.textContent.slice(0, 80));
  }
  return found;
}
"""


def find_chromium() -> str | None:
    """PROMAX_CHROMIUM, else the first Chromium on PATH; a path that is named and not there is an error."""
    named = os.environ.get('PROMAX_CHROMIUM')
    if named:
        if not Path(named).exists():
            raise FileNotFoundError(
                f'PROMAX_CHROMIUM names {named}, and there is no such file: correct it, or unset it.'
            )
        return named
    return next(
        filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'))), None
    )


def outside(url: str) -> bool:
    """Does this address leave the machine?"""
    parts = urlsplit(url)
    return parts.scheme not in ('data', 'blob', 'file', 'about', 'chrome', 'devtools') and parts.hostname not in (
        '127.0.0.1',
        'localhost',
        '::1',
    )


class Watched:
    """A page whose console, errors, requests and script hits are recorded from its first moment on."""

    def __init__(self, context):
        self.context = context
        self.console, self.page_errors, self.failed, self.outside, self.hits, self.popups = [], [], [], [], [], []
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT * 1000)
        self._watch(self.page)
        self.page.on('popup', self._popup)

    def _watch(self, page):
        page.on('console', self._heard)
        page.on('pageerror', lambda e: self.page_errors.append(f'{e.name}: {e.message}\n{e.stack or ""}'))
        page.on('request', lambda r: self.outside.append(r.url) if outside(r.url) else None)
        page.on('websocket', lambda w: self.outside.append(w.url) if outside(w.url) else None)
        page.on('requestfailed', lambda r: self.failed.append(f'{r.url[:200]}: {r.failure}'))
        page.on('dialog', lambda d: (self.hits.append(f'dialog {d.message}'), d.dismiss()))

    def _popup(self, page):
        self.popups.append(page.url[:200])
        self._watch(page)

    def _heard(self, message):
        if message.text.startswith('SCRIPT-HIT'):
            self.hits.append(message.text)
        elif message.type == 'error':
            place = message.location or {}
            text = f'{message.text} ({place.get("url", "")[:200]}:{place.get("lineNumber", "")})'
            if not any(re.search(n, text) for n in NOISE):
                self.console.append(text)

    def problems(self) -> dict:
        """All that was seen, by kind; empty when the page is clean."""
        self.page.evaluate('() => new Promise(r => setTimeout(r, 50))')  # let what was queued run
        hits = list(self.hits)
        for frame in self.page.frames:
            with contextlib.suppress(Exception):
                hits += [h for h in frame.evaluate('() => window.__hits || []') if not any(h in x for x in hits)]
        alive = []
        for frame in self.page.frames:
            with contextlib.suppress(Exception):
                alive += frame.evaluate(ALIVE)
        seen = {
            'script hits': hits,
            'live markup': alive,
            'page errors': self.page_errors,
            'console errors': self.console,
            'outside requests': self.outside,
            'popups': self.popups,
        }
        return {k: v for k, v in seen.items() if v}

    def forget(self):
        """Start the record anew, after something that was meant to trip it."""
        for seen in (self.console, self.page_errors, self.failed, self.outside, self.hits, self.popups):
            seen.clear()
        for frame in self.page.frames:
            with contextlib.suppress(Exception):
                frame.evaluate('() => { if (window.__hits) window.__hits.length = 0; }')

    def close(self):
        self.page.close()


def assert_clean(watched: Watched):
    """No script ran, no markup came alive, no error in page or console, nothing asked for from outside."""
    found = watched.problems()
    assert not found, 'the page is not clean:\n' + '\n'.join(
        f'{kind}:\n  ' + '\n  '.join(map(str, what[:8])) for kind, what in found.items()
    )


def assert_keeps_data(watched: Watched):
    """No button of a figure sends its data away or leads to another site (plotly has both unless told otherwise)."""
    bars = watched.page.locator('.modebar-btn')
    assert bars.count(), 'there is no figure with a bar of buttons on this page'
    away = watched.page.locator(
        '.modebar-btn[data-title^="Share"], .modebar-btn[data-title*="Chart Studio"], .modebar a[href]'
    )
    assert not away.count(), (
        f'{away.count()} buttons send data or people away: set showSendToCloud and displaylogo to false'
    )


def screenshot(where, name: str, full: bool = False) -> Path:
    """A picture of a page or of one element, kept in tests/artifacts/ (git-ignored)."""
    ARTIFACTS.mkdir(exist_ok=True)
    path = ARTIFACTS / f'{name}.png'
    if isinstance(where, Watched):
        where.page.screenshot(path=path, full_page=full)
    else:  # an element: JupyterLab scrolls inside of its own panel, so the window is made tall enough for all of it
        page, size = where.page, where.page.viewport_size
        page.set_viewport_size(size | {'height': max(size['height'], int(where.bounding_box()['height']) + 300)})
        where.scroll_into_view_if_needed()
        page.wait_for_timeout(150)
        where.screenshot(path=path)
        page.set_viewport_size(size)
    return path


class LabServer:
    """JupyterLab on a free port of this machine, with folders, settings and token of its own."""

    def __init__(self, folder: Path):
        self.folder, self.token, self.process = folder, secrets.token_hex(16), None
        self.root, self.log = folder / 'notebooks', folder / 'jupyterlab.log'
        self.root.mkdir(parents=True)

    def _settings(self):
        """No news pop-up, no question before leaving a page, nothing saved behind our back."""
        files = {
            '@jupyterlab/apputils-extension/notification': {
                'fetchNews': 'false',
                'checkForUpdates': False,
                'doNotDisturbMode': True,
            },
            '@jupyterlab/docmanager-extension/plugin': {'autosave': False},
            '@jupyterlab/notebook-extension/tracker': {'kernelShutdown': True},
        }
        for name, what in files.items():
            path = self.folder / 'settings' / f'{name}.jupyterlab-settings'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(what), encoding='utf-8')

    def _environment(self) -> dict:
        """The person's own Jupyter, IPython and matplotlib settings stay out."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(('JUPYTER', 'IPYTHON', 'PYTEST', 'JPY_'))}
        folders = {
            'JUPYTER_CONFIG_DIR': 'config',
            'JUPYTER_DATA_DIR': 'data',
            'JUPYTER_RUNTIME_DIR': 'runtime',
            'JUPYTERLAB_SETTINGS_DIR': 'settings',
            'JUPYTERLAB_WORKSPACES_DIR': 'workspaces',
            'IPYTHONDIR': 'ipython',
            'MPLCONFIGDIR': 'matplotlib',
        }
        tests = str(Path(__file__).resolve().parent.parent)
        paths = os.pathsep.join(filter(None, [os.environ.get('PYTHONPATH'), tests, str(Path(tests).parent)]))
        quiet = {
            'OMP_NUM_THREADS': '1',
            'HF_HUB_OFFLINE': '1',
            'TOKENIZERS_PARALLELISM': 'false',
            'PYDEVD_DISABLE_FILE_VALIDATION': '1',
        }
        return (
            own
            | {k: str(self.folder / v) for k, v in folders.items()}
            | quiet
            | {'PYTHONPATH': paths, 'JUPYTER_PREFER_ENV_PATH': '1'}
        )

    def start(self):
        self._settings()
        for attempt in range(3):
            with socket.socket() as s:
                s.bind(('127.0.0.1', 0))
                self.port = s.getsockname()[1]
            command = [
                sys.executable,
                '-m',
                'jupyterlab',
                '--no-browser',
                '--allow-root',
                '--expose-app-in-browser',
                '--ServerApp.ip=127.0.0.1',
                f'--ServerApp.port={self.port}',
                '--ServerApp.port_retries=0',
                f'--IdentityProvider.token={self.token}',
                f'--ServerApp.root_dir={self.root}',
                '--ServerApp.terminals_enabled=False',
                '--LabApp.extension_manager=readonly',
                '--ServerApp.shutdown_no_activity_timeout=1800',
            ]
            with open(self.log, 'ab') as log:
                self.process = subprocess.Popen(
                    command,
                    cwd=self.root,
                    env=self._environment(),
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            if self._ready():
                return self
            if attempt == 2 or 'already in use' not in self.tail():
                break
        raise RuntimeError(
            f'JupyterLab did not start (exit code {self.process.poll()}); the end of its log:\n{self.tail()}'
        )

    def _ready(self) -> bool:
        end = time.monotonic() + WAIT
        while time.monotonic() < end and self.process.poll() is None:
            try:
                ask = http.client.HTTPConnection('127.0.0.1', self.port, timeout=5)
                ask.request('GET', '/api/status', headers={'Authorization': f'token {self.token}'})
                if ask.getresponse().status == 200:
                    return True
            except OSError:
                pass
            time.sleep(0.1)
        return False

    def tail(self, lines: int = 60) -> str:
        text = self.log.read_text(encoding='utf-8', errors='replace') if self.log.exists() else '(no log)'
        return '\n'.join(text.replace(self.token, '<token>').splitlines()[-lines:])

    def stop(self):
        """End the server and its kernels (SIGTERM lets it end the kernels; then the whole group goes)."""
        if self.process is None:
            return
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def address(self, name: str) -> str:
        return f'http://127.0.0.1:{self.port}/lab/tree/{quote(name)}?reset&token={self.token}'


PANEL = "(window.jupyterapp?.shell?.currentWidget)"
READY = f"""() => {{ const p = {PANEL};
  if (!p?.sessionContext?.isReady || !p.context?.isReady) return false;
  return p.sessionContext.session?.kernel?.status === 'idle'; }}"""
DONE = f"""() => {{ const p = {PANEL}; if (p.sessionContext.session?.kernel?.status !== 'idle') return false;
  const empty = c => c.model.type !== 'code' || !c.model.sharedModel.getSource().trim();
  return p.content.widgets.every(c => empty(c) || Number.isInteger(c.model.executionCount)); }}"""
EXECUTE = f"""async code => {{
  const future = {PANEL}.sessionContext.session.kernel.requestExecute({{code, store_history: false}});
  const said = {{text: '', error: ''}};
  future.onIOPub = m => {{
    if (m.header.msg_type === 'stream') said.text += m.content.text;
    if (m.header.msg_type === 'execute_result') said.text += m.content.data['text/plain'];
    if (m.header.msg_type !== 'error') return;
    said.error = m.content.ename + ': ' + m.content.evalue + '\\n' + m.content.traceback.join('\\n');
  }};
  await future.done;
  return said;
}}"""


def _colourless(text: str) -> str:
    return re.sub('\x1b\\[[0-9;]*m', '', text)


class Notebook(Watched):
    """A notebook open in JupyterLab, its cells run."""

    def open(self, server: LabServer, cells: list, name: str):
        self.server, self.name = server, name
        book = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(c) for c in cells],
            metadata={'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}},
        )
        nbformat.write(book, server.root / name)
        self.page.goto(server.address(name), wait_until='domcontentloaded')
        self._until(READY, 'the kernel to be ready')
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self._until(DONE, 'all cells to finish')
        return self

    def _until(self, condition: str, what: str):
        try:
            self.page.wait_for_function(condition, timeout=WAIT * 1000, polling=50)
        except Exception as e:
            with contextlib.suppress(Exception):
                screenshot(self, f'stuck-{Path(self.name).stem}')
            why = f'waited {WAIT} s in vain for {what} (screenshot kept); {e}'
            seen = f'errors: {self.problems()}\n{self.server.tail(20)}'
            raise AssertionError(f'{self.name}: {why}\n{seen}') from None

    def outputs(self) -> list:
        """Outputs of each cell, as the notebook document has them."""
        return self.page.evaluate(f"() => {PANEL}.content.model.sharedModel.toJSON().cells.map(c => c.outputs || [])")

    def failures(self) -> list:
        """Error outputs of cells: what a person would see in red."""
        errors = [o for cell in self.outputs() for o in cell if o['output_type'] == 'error']
        return [_colourless('\n'.join(o.get('traceback', [o.get('evalue', '')]))) for o in errors]

    def run(self, code: str) -> str:
        """Run code in the notebook's kernel, beside the cells, and give back what it printed."""
        said = self.page.evaluate(EXECUTE, code)
        if said['error']:
            raise AssertionError('the kernel said: ' + _colourless(said['error']))
        return said['text'].strip()

    def value(self, expression: str):
        """A Python expression's value in the kernel, through JSON (a DataFrame comes as a list of rows)."""
        return json.loads(
            self.run(
                'import json as _json, numpy as _np, pandas as _pd\n'
                'def _plain(x):\n'
                '    if isinstance(x, _pd.DataFrame): return _json.loads(x.to_json(orient="records"))\n'
                '    return x.tolist() if isinstance(x, (_np.ndarray, _np.generic)) else str(x)\n'
                f'print(_json.dumps({expression}, default=_plain))'
            )
        )

    def until(self, expression: str, test=bool):
        """Ask the kernel for a value until it passes the test: widget messages may run beside the cells."""
        end = time.monotonic() + WAIT
        while True:
            got = self.value(expression)
            if test(got):
                return got
            if time.monotonic() > end:
                raise AssertionError(f'{expression} stayed {str(got)[:500]} for {WAIT} s')
            self.page.wait_for_timeout(50)

    def close(self):
        with contextlib.suppress(Exception):
            self.page.evaluate(f"() => {PANEL}.sessionContext.shutdown()")
        super().close()


SPOTS = """(gd, points) => points.map(([curve, point]) => {
  const t = gd._fullData[curve], layout = gd._fullLayout, box = gd.getBoundingClientRect();
  const [xa, ya] = [t.xaxis, t.yaxis].map(a => layout[a[0] + 'axis' + a.slice(1)]);
  return [box.left + xa._offset + xa.d2p(t.x[point]), box.top + ya._offset + ya.d2p(t.y[point])];
})"""


class Plot:
    """A plotly figure on a page, used as a person uses it: with the mouse."""

    def __init__(self, watched: Watched, locator):
        self.page, self.at = watched.page, locator
        self.at.wait_for()
        self.page.wait_for_function('gd => gd._fullData?.length && gd._fullLayout', arg=self.at.element_handle())

    def spots(self, points: list) -> list:
        """Where on the screen points (curve, point) are drawn."""
        self.at.scroll_into_view_if_needed()
        return self.at.evaluate(SPOTS, points)

    def spot(self, curve: int, point: int) -> list:
        return self.spots([[curve, point]])[0]

    def _to(self, x, y):
        """Move there in two steps: plotly compares places."""
        self.page.mouse.move(x - 2, y - 2)
        self.page.wait_for_timeout(60)
        self.page.mouse.move(x, y)

    def hover(self, curve: int, point: int) -> str:
        """Rest the mouse on a point; the text of plotly's own label."""
        self._to(*self.spot(curve, point))
        label = self.at.locator('.hoverlayer .hovertext').first
        label.wait_for()
        return label.text_content()

    def click(self, curve: int, point: int):
        x, y = self.spot(curve, point)
        self._to(x, y)
        self.page.wait_for_timeout(60)
        self.page.mouse.click(x, y)

    def drag(self, mode: str, share: float):
        """Press a button of the plot's bar ('lasso' or 'select') and draw around the middle of the plotting area."""
        self.at.scroll_into_view_if_needed()
        self.at.hover()
        self.at.locator(f'.modebar-btn[data-val="{mode}"]').click()
        box = self.at.locator('.nsewdrag').first.bounding_box()
        dx, dy = box['width'] * share / 2, box['height'] * share / 2
        x, y = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
        self.page.mouse.move(x - dx, y - dy)
        self.page.mouse.down()
        for corner in ([x + dx, y - dy], [x + dx, y + dy], [x - dx, y + dy], [x - dx, y - dy])[
            : 4 if mode == 'lasso' else 2
        ]:
            self.page.mouse.move(*corner, steps=4)
        self.page.mouse.up()

    def labels(self, most: int = 80) -> list:
        """The texts of the labels of all points, one after the other (asked of plotly, not of the mouse)."""
        ask = """async (gd, most) => {
          // plotly answers each figure once in 50 ms: a new name for each question goes around that
          const seen = [], own = gd._fullLayout._uid;
          for (let c = 0; c < gd._fullData.length; c++) {
            const t = gd._fullData[c];
            if (!t.x || t.hoverinfo === 'skip' || t.visible !== true) continue;
            for (let p = 0; p < Math.min(t.x.length, most); p++) {
              gd._fullLayout._uid = `${own}-${c}-${p}`;
              Plotly.Fx.hover(gd, [{curveNumber: c, pointNumber: p}], [t.xaxis + t.yaxis]);
              seen.push(...[...gd.querySelectorAll('.hoverlayer .hovertext')].map(e => e.textContent));
            }
          }
          gd._fullLayout._uid = own;
          Plotly.Fx.unhover(gd, {});
          return seen;
        }"""
        return self.at.evaluate(ask, most)


def squeezed(text: str) -> str:
    """Text without any white space: line breaks of a label do not count."""
    return re.sub(r'\s', '', text)


def unread(texts, page_text: str, most: int = 40) -> list:
    """Those texts whose beginning cannot be read in a page's visible text."""
    from promax_nb.views.texts import harmless

    seen = squeezed(page_text)
    return [t[:60] for t in texts if squeezed(harmless(t))[:most] not in seen]
