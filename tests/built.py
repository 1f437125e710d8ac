"""The site, built once for all tests that look at it, and what is wrong with its links."""

import hashlib
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
PARTS = ('nbs', 'promax_nb', 'docs', 'benchmarks', '_quarto.yml', 'settings.ini', 'setup.py', 'README.md')


def copy_tree(where: Path) -> Path:
    """What the site is made from, in another folder: a build leaves nothing behind in this one."""
    unwanted = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', 'nbdev.yml', 'sidebar.yml')
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, where / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, where)
    return where


STAND_IN = """#!{python}
import json, sys
from pathlib import Path
here = Path('.')
books = {{p.as_posix(): json.loads(p.read_text()) for p in here.rglob('*.ipynb')}}
files = [p.name for p in here.iterdir()]
settings = Path('_quarto.yml').read_text()
seen = {{'arguments': sys.argv[1:], 'notebooks': books, 'settings': settings, 'files': files}}
with open({log!r}, 'a') as f: f.write(json.dumps(seen) + chr(10))
Path('_docs').mkdir()
(Path('_docs') / 'index.html').write_text('<p>by the stand-in</p>')
"""
BOTH = """
import os, shutil, sys
from pathlib import Path
sys.path.insert(0, 'docs')
import make_site
proc = make_site.process()  # once for both
shutil.copytree(proc, 'processed')
make_site.process = lambda: Path(shutil.copytree('processed', proc, dirs_exist_ok=True))
Path('live.html').write_text('<!DOCTYPE html><title>live</title><p id=map>a map</p>')  # the demo's takes half a minute
make_site.main(['--out', 'offline', '--offline', '--map', 'live.html'])
os.environ['PATH'] = str(Path('bin').resolve()) + os.pathsep + os.environ['PATH']
make_site.main(['--out', 'quarto', '--map', 'live.html'])
"""


def build(tree: Path) -> str:
    """What `make docs` runs: the site in offline/, what a stand-in for quarto made in quarto/; returns its words."""
    command = tree / 'bin' / 'quarto'
    command.parent.mkdir()
    command.write_text(STAND_IN.format(python=sys.executable, log=str(tree / 'quarto.jsonl')))
    command.chmod(0o755)
    done = subprocess.run(
        [sys.executable, '-c', BOTH],
        cwd=tree,
        env=os.environ | {'PYTHONPATH': str(tree)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def fingerprint() -> str:
    """Changes with everything that the site is made from."""
    h = hashlib.sha256(Path(__file__).read_bytes())
    for name in PARTS:
        for p in sorted((ROOT / name).rglob('*')) if (ROOT / name).is_dir() else [ROOT / name]:
            if p.is_file() and '__pycache__' not in p.parts:
                h.update(p.relative_to(ROOT).as_posix().encode() + p.read_bytes())
    return h.hexdigest()[:16]


def sites(make_folder) -> Path:
    """Folder with offline/ and quarto/ (sites), quarto.jsonl (its call) and said.log; make_folder() gives an empty one.

    Built anew when anything it is made from has changed, and once for test processes that want it at the same time."""
    kept = ROOT / '.cache' / 'tested-site' / fingerprint()
    kept.parent.parent.mkdir(exist_ok=True)
    with FileLock(kept.parent.with_suffix('.lock')):
        if not kept.exists():
            tree = copy_tree(make_folder())
            said = build(tree)
            shutil.rmtree(kept.parent, ignore_errors=True)
            kept.parent.mkdir(parents=True)
            (tree / 'kept').mkdir()
            (tree / 'kept' / 'said.log').write_text(said, encoding='utf-8')
            for name in ('quarto', 'quarto.jsonl', 'offline'):
                shutil.move(tree / name, tree / 'kept')
            shutil.move(tree / 'kept', kept)
    return kept


def hostile_books(proc: Path):
    """Two processed pages whose outputs try to become part of the page."""
    import nbformat
    from browser.hostile import TEXTS

    new, out = nbformat.v4, nbformat.v4.new_output
    bad = (
        '\n'.join(TEXTS.values())
        + '\n```{raw} html\n<script>__hit(1)</script>\n```\n$\\href{javascript:__hit(1)}{x}$ \\(\\alpha\\)'
    )
    figure = {
        'data': [{'type': 'scatter', 'y': [1, 2], 'name': '</script><script>__hit(2)</script>'}],
        'layout': {'title': {'text': '"><img src=x onerror=__hit(3)>'}},
    }
    outputs = [
        out('stream', text=bad),
        out('display_data', {'text/markdown': bad, 'text/plain': bad}),
        out('execute_result', {'text/plain': bad}),
        out('display_data', {'application/javascript': '__hit(4)'}),
        out('display_data', {'application/vnd.plotly.v1+json': figure}),
    ]
    cells = [
        new.new_raw_cell('---\ntitle: Start\ndescription: One line\n---'),
        new.new_markdown_cell('![remote](https://evil.example/badge.svg) [next](sub/01_b.ipynb#a_b)'),
        new.new_code_cell('print(text)', outputs=outputs),
    ]
    (proc / 'sub').mkdir(parents=True)
    nbformat.write(new.new_notebook(cells=cells), proc / 'index.ipynb')
    cells = [
        new.new_raw_cell('---\ntitle: B\noutput-file: b.html\n---'),
        new.new_markdown_cell('# a_b\n\n[back](https://site.example/x/index.html), $x^2$'),
    ]
    nbformat.write(new.new_notebook(cells=cells), proc / 'sub' / '01_b.ipynb')


def hostile_site(folder: Path) -> Path:
    """A site of two pages with hostile outputs, built."""
    sys.path.insert(0, str(ROOT / 'docs'))
    import make_site

    (folder / 'docs').symlink_to(ROOT / 'docs')
    (folder / '_quarto.yml').write_text(
        'website: {title: t, description: d, site-url: "https://site.example/x",\n'
        '          sidebar: {contents: [index.ipynb, sub/01_b.ipynb]}}'
    )
    hostile_books(folder / 'proc')
    make_site.enliven(folder / 'proc', folder)
    make_site.with_sphinx(folder / 'proc', folder / 'out', folder)
    make_site.llms(folder / 'proc', folder / 'out', folder)
    return folder / 'out'


class Page(HTMLParser):
    """Names, links, sources, scripts and event handlers of one page."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links, self.sources, self.scripts, self.handlers, self.in_script = set(), [], [], [], [], False
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.in_script = tag == 'script' and a.get('type') != 'application/json'
        self.handlers += [f'{tag} {k}={v}' for k, v in attrs if k.startswith('on') or 'javascript:' in (v or '')]
        self.ids |= {a[k] for k in ('id', 'name') if a.get(k)}
        if tag in ('a', 'link') and a.get('href'):
            (self.links if tag == 'a' else self.sources).append(a['href'])
        if tag in ('img', 'script', 'iframe', 'source', 'video', 'audio', 'embed') and a.get('src'):
            self.sources.append(a['src'])

    def handle_data(self, data):
        if self.in_script:
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self.in_script = False


def broken(folder: Path) -> list:
    """What does not resolve inside the site, and what a page would fetch from outside of it."""
    pages, wrong = {p.resolve(): Page(p) for p in sorted(folder.rglob('*.html'))}, []
    for path, page in pages.items():
        name = path.relative_to(folder.resolve()).as_posix()
        for target in page.links + page.sources:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.sources and parts.scheme != 'data':
                    wrong.append(f'{name} fetches {target}')
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not to.is_file():
                wrong.append(f'{name} leads to {target}, and there is no such file')
            elif parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].ids:
                wrong.append(f'{name} leads to {target}, and that page has no such place')
    return wrong
