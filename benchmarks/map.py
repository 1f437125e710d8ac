"""How quickly does a map answer: 20,000, 200,000 and a million points, and against an earlier version.

    python benchmarks/map.py --out runs/map                             # pages of generated points
    python benchmarks/map.py --out runs/map --against 2fdf191 --only pages
    python benchmarks/map.py --out runs/map --only projection           # time of the projection, cold process
    python benchmarks/map.py --out runs/map --only methods              # ways to draw two spaces, side by side

Writes pages of generated points with texts, lists, ten columns and vectors of three spaces, opens each in a headless
Chromium with the network off and software WebGL, and times what a person does there, twenty times each: from the
call, or the mouse, until the second frame after it with the graphics' work finished. `--against
COMMIT` does the same with the explorer of that version (from git) on the same points, in turn. Numbers go to
benchmarks/results/map.json.

methods: base and reshaped vectors of ml-100k (from PROMAX_DATA) and of a generated shop of 20,000 nodes, drawn in one
frame by what `promax map` does, and space by space by UMAP, PaCMAP and openTSNE (where they are installed), the second
map turned onto the first. Each in a process of its own: seconds of all, imports and compilation included, and what
`frame_quality` says of the maps.
"""

import argparse
import base64
import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
TARGET = ROOT / 'benchmarks' / 'results' / 'map.json'
ARGS = '--no-sandbox --disable-gpu --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader'.split()
ARGS += ['--disable-background-networking']
WORDS = 'slow river old house winter garden letter stranger island music war summer ghost train city child'.split()
PROJECT = """import json, sys, time
from promax_nb.views.scene import open_run
from promax_nb.views.maps import project
scene = open_run(sys.argv[1])
spaces = {k: v for k, v in scene.spaces().items() if k != 'profiles'}
began = time.time()
p = project(spaces)
print(json.dumps({'seconds': time.time() - began, 'record': p.record}, default=str))"""
METHOD = """import json, sys, time
began = time.time()
import numpy as np
from promax_nb.retrieval.vectors import unit_rows
from promax_nb.views.layout import Layout, MapSettings, frame_quality, umap_layout
from promax_nb.views.maps import project
from promax_nb.views.neighbours import nearest, procrustes, turned_onto
file, way = sys.argv[1:]
kept = np.load(file)
pairs = {'base': (kept['bu'], kept['bi']), 'reshaped': (kept['ou'], kept['oi'])}
x, y = (unit_rows(np.vstack(pair)) for pair in pairs.values())
y = procrustes(y, x)
how, quiet = Layout.of(MapSettings(), len(x)), lambda *told: None
def alone(space):
    if way == 'UMAP':
        return umap_layout(space, nearest(space, how.neighbours), how, quiet)
    if way == 'PaCMAP':
        from pacmap import PaCMAP
        return PaCMAP(n_neighbors=how.neighbours, random_state=0).fit_transform(space)
    from openTSNE import TSNE
    return np.asarray(TSNE(random_state=0, n_jobs=2).fit(space))
if way == 'one frame':
    made = project(pairs, progress=False)
    maps = made.coords['base'], made.coords['reshaped']
else:
    maps = alone(x), alone(y)
    maps = maps[0], turned_onto(maps[1], maps[0])
seconds = round(time.time() - began, 1)
near = nearest(x, how.neighbours), nearest(y, how.neighbours)
print(json.dumps({'seconds': seconds, 'nodes': len(x)} | frame_quality(maps, x, y, near, how)))"""
WAYS = ('one frame', 'UMAP', 'PaCMAP', 'openTSNE')
START = """() => {
  const root = document.querySelector('.px-root'), e = document.querySelector('.px-mount').explorer;
  window.__e = e;
  window.__done = async () => {
    for (const c of root.querySelectorAll('canvas')) {
      const gl = c.getContext('webgl2') ?? c.getContext('webgl');
      gl?.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
    }
    await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)));
  };
  window.__timed = async f => {
    await new Promise(r => setTimeout(r, 150));
    const t = performance.now();
    await f();
    await window.__done();
    return performance.now() - t;
  };
  const tip = root.querySelector('.px-tip');
  window.__hover = [];
  addEventListener('mousemove', () => { window.__m = performance.now(); }, true);
  addEventListener('pointermove', () => { window.__m = performance.now(); }, true);
  const seen = () => { if (!tip.hidden) window.__hover.push(performance.now() - window.__m); };
  new MutationObserver(seen).observe(tip, {childList: true, attributes: true, attributeFilter: ['hidden']});
  addEventListener('pointerup', () => { window.__up = performance.now(); }, true);
  const told = async () => { const t = window.__up; await window.__done(); window.__lasso = performance.now() - t; };
  new MutationObserver(told).observe(root.querySelector('.px-selection'), {childList: true});
}"""
SPOTS = """many => {
  const e = window.__e, n = e.s.n;
  const ids = Array.from({length: many}, (_, k) => Math.floor(n * (k + .5) / (many + 1)));
  if (e.points) return ids.map(i => e.points.spot(i));
  const gd = document.querySelector('.px-plot'), l = gd._fullLayout, b = gd.getBoundingClientRect();
  return ids.map(i => {
    const [c, k] = i < e.s.n_users ? [0, i] : [1, i - e.s.n_users], t = gd._fullData[c];
    return [b.left + l.xaxis._offset + l.xaxis.d2p(t.x[k]), b.top + l.yaxis._offset + l.yaxis.d2p(t.y[k])];
  });
}"""
LASSO = """() => {
  const e = window.__e;
  e.setSelected(null);
  window.__lasso = null;
  return e.points ? e.setTool('lasso') : e.Plotly.relayout(e.plot, {dragmode: 'lasso'});
}"""


def world(n: int, seed: int = 0) -> dict:
    """Places, columns, texts, lists and vectors of n nodes, three fifths of them users."""
    import scipy.sparse as sp

    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, 2)) * 6
    group = rng.integers(0, 40, n)
    base = centres[group] + rng.normal(size=(n, 2))
    m = n * 3 // 5
    columns = {f'number {k}': rng.exponential(size=n) for k in range(6)}
    columns['kind'] = np.where(np.arange(n) < m, 'user', 'item')
    columns |= {f'group {k}': np.array([f'value {g}' for g in group % (3 + k)]) for k in range(3)}
    return {
        'users': m,
        'maps': {
            'profiles': base[rng.permutation(n)],
            'base': base,
            'reshaped': base + rng.normal(size=(n, 2)) * 0.7,
        },
        'columns': columns,
        'vectors': {
            'profiles': rng.normal(size=(n, 64)),
            'base': rng.normal(size=(n, 32)),
            'reshaped': rng.normal(size=(n, 32)),
        },
        'names': [f'A name {k} of something' for k in range(n)],
        'texts': [' '.join(rng.choice(WORDS, 45)) for _ in range(n)],
        'train': sp.csr_matrix(
            (np.ones(10 * m), (np.repeat(np.arange(m), 10), rng.integers(0, n - m, 10 * m))), (m, n - m)
        ),
    }


def content(made: dict, old: bool) -> dict:
    """What the explorer is given, in the form of now or of version 0.3."""
    import pandas as pd

    from promax_nb.retrieval.vectors import unit_rows
    from promax_nb.views import packing as p

    n, m = len(made['names']), made['users']
    columns = [p.packed_column(name, pd.Series(values), '') for name, values in made['columns'].items()]
    names = {'names': made['names'], 'ids': [str(k) for k in range(n)]}
    common = {
        'n_users': m,
        'n_items': n - m,
        'title': 'generated',
        'columns': columns,
        'labels': {},
        'settings': {'tau': 0.2, 'teacher_tau': 0.2, 'floor': 0.1},
        'honesty': '',
    }
    lists = {'train': p.packed_lists(made['train'])}
    if old:
        vectors = {}
        for name, x in made['vectors'].items():
            numbers = np.rint(unit_rows(x) * 32767)
            vectors[name] = {'dim': x.shape[1], 'data': p.packed(numbers, '<i2')}
        maps = {name: p.packed(xy, '<f4') for name, xy in made['maps'].items()}
        whole = (
            common | names | {'texts': made['texts'], 'maps': maps, 'vectors': vectors, 'lists': lists, 'reasons': None}
        )
        return {'all': whole}
    maps = {name: p.packed_places(xy) for name, xy in made['maps'].items()}
    parts = {
        'scene': common | {'maps': maps, 'block': p.TEXTS_A_PART, 'colour': 'group 0', 'movers': list(range(30))},
        'names': names,
        'lists': lists,
    }
    for name, x in made['vectors'].items():
        parts[f'vectors-{name}'] = p.packed_vectors(x[:m], x[m:])
    for k in range(0, n, p.TEXTS_A_PART):
        parts[f'texts-{k // p.TEXTS_A_PART}'] = made['texts'][k : k + p.TEXTS_A_PART]
    return parts


def write_page(path: Path, made: dict, against: str | None) -> dict:
    """One page, by the explorer of now or of a commit; its size, and what the first picture needs of it."""
    from promax_nb.views.packing import explorer_source

    packed = {name: gzip.compress(json.dumps(part).encode(), 6) for name, part in content(made, bool(against)).items()}
    library = ''
    if against:
        from plotly.offline import get_plotlyjs

        show = ['git', '-C', str(ROOT), 'show']
        script, look = (
            subprocess.run(
                [*show, f'{against}:promax_nb/views/explorer.{kind}'], check=True, capture_output=True, text=True
            ).stdout
            for kind in ('js', 'css')
        )
        library = f'<script>{get_plotlyjs()}</script>'
    else:
        script, look = explorer_source()
    with open(path, 'w', encoding='utf-8') as file:
        file.write(f'<!doctype html><meta charset=utf-8><style>{look}</style>{library}')
        file.write('<body style="max-width:1500px;margin:1rem auto">')
        file.write(f'<div class=px-mount data-scene={"s" if against else 1}></div>')
        for name, part in packed.items():
            where = 'id=s' if against else f'data-scene=1 data-part={name}'
            file.write(f'<script type=application/gzip {where}>{base64.b64encode(part).decode()}</script>')
        file.write(f'<script type=module>{script}\nmountAll();</script>')
    first = len(packed.get('scene', b'')) * 4 / 3e6
    return {'page, MB': path.stat().st_size / 1e6} | ({} if against else {'of it for the first picture, MB': first})


def open_page(browser, path: Path):
    """A page on which the map is drawn, and after how many milliseconds it was."""
    context = browser.new_context(viewport={'width': 1500, 'height': 1100})
    context.set_offline(True)
    page = context.new_page()
    page.set_default_timeout(300_000)
    page.goto(path.resolve().as_uri(), wait_until='commit')
    page.wait_for_selector('.px-mount[data-ready=yes]', state='attached')
    return page, page.evaluate("() => document.querySelector('.px-mount').explorer.points?.first ?? performance.now()")


def browse(page, times: int) -> dict:
    """Milliseconds of what a person does, `times` times each."""
    page.evaluate(START)
    found: dict = {}
    step = 'async k => __timed(() => __e.setBlend(k % 21 / 20))'
    paint = 'async name => __timed(() => __e.setColour(name))'
    for k in range(1, times + 1):
        found.setdefault('slider step', []).append(page.evaluate(step, k))
    for k in range(times):
        found.setdefault('recolour', []).append(
            page.evaluate(paint, ['number 0', 'group 0', 'number 1', 'kind'][k % 4])
        )
    for x, y in page.evaluate(SPOTS, times):
        page.mouse.move(5, 5)
        page.wait_for_timeout(100)
        before = page.evaluate('() => { window.__hover = []; }')
        page.mouse.move(x, y)
        page.wait_for_timeout(250)
        before = page.evaluate('() => window.__hover[0] ?? null')
        if before is not None:
            found.setdefault('hover', []).append(before)
    for _ in range(times):
        page.evaluate(LASSO)
        page.wait_for_timeout(300)
        spots = np.array(page.evaluate(SPOTS, 1000))
        left, top = spots.min(0) - 4
        right, bottom = np.quantile(spots[:, 0], 0.34), spots[:, 1].max() + 4
        across, down = np.linspace(left, right, 9), np.linspace(top, bottom, 9)
        xs, ys = (
            np.r_[across, down * 0 + right, across[::-1], down * 0 + left],
            np.r_[across * 0 + top, down, across * 0 + bottom, down[::-1]],
        )
        page.mouse.move(xs[0], ys[0])
        page.mouse.down()
        for x, y in zip(xs[1:], ys[1:], strict=True):
            page.mouse.move(x, y)
        page.mouse.up()
        page.wait_for_function('() => window.__lasso')
        found.setdefault('lasso', []).append(page.evaluate('() => window.__lasso'))
    picked = 'async k => __timed(() => __e.pick(k * 37, true))'
    for k in range(min(times, 5)):
        found.setdefault('card, marks and chart', []).append(page.evaluate(picked, k))
    share = page.evaluate('() => __e.state.selected.length / __e.s.n')
    return {'points in the lasso, share': share} | found


def summary(values) -> dict:
    return {'median ms': float(np.median(values)), 'most ms': float(np.max(values)), 'n': len(values)}


def pages(out: Path, sizes, against, times: int) -> dict:
    from playwright.sync_api import sync_playwright

    exe = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))))
    rows = {}
    with sync_playwright() as p:
        for n in sizes:
            made = None
            for version in (None, against) if against else (None,):
                few = min(times, 5) if version or n > 500_000 else times
                path = out / f'{n}-{version or "now"}.html'
                size = out / f'{path.stem}.json'
                if not path.exists():
                    made = made or world(n)
                    size.write_text(json.dumps(write_page(path, made, version)))
                browser = p.chromium.launch(executable_path=exe, args=ARGS)
                opened = []
                for _ in range(few):
                    page, first = open_page(browser, path)
                    opened.append(first)
                    if len(opened) < few:
                        page.context.close()
                row = json.loads(size.read_text()) | {'first picture': summary(opened)}
                for name, values in browse(page, few).items():
                    row[name] = summary(values) if isinstance(values, list) else values
                browser.close()
                rows[f'{n:,} points, {"now" if version is None else "before (" + version + ")"}'] = row
                print(json.dumps({list(rows)[-1]: row}, indent=1), flush=True)
    return rows


def trained_spaces(out: Path, name: str) -> Path:
    """A file with vectors of a base and of ProMax, trained briefly."""
    from encoders import worlds

    from promax_nb.all import BPR, LightGCN, ProMax, encode, fit, toy_data, whiten

    if (file := out / f'{name}.npz').exists():
        return file
    folder, quick = Path(os.environ.get('PROMAX_DATA', '../shared/data')), name == 'ml-100k'
    data = worlds(folder)[name] if quick else toy_data(17_000, 3_000)
    su, si = whiten(*(encode(list(texts), 'static') for texts in written(data)), dim=64)
    how = dict(epochs=60 if quick else 6, batch=2048 if quick else 8192, lr=5e-3, min_steps=10**6, progress=False)
    base, ours = (fit(LightGCN(data), goal, data, **how) for goal in (BPR(), ProMax(su, si, sdr=1.0, s2dr=0.0)))
    np.savez(file, bu=base.users, bi=base.items, ou=ours.users, oi=ours.items)
    return file


def written(data):
    """Template profiles of users and of items."""
    from promax_nb.all import item_prompts, user_prompts, write

    items = write(None, item_prompts(data), progress=False)
    return write(None, user_prompts(data, items), progress=False).profile, items.profile


def methods(out: Path) -> dict:
    """World -> way to draw -> seconds and figures."""
    found = {}
    for name in ('ml-100k', 'generated'):
        file = trained_spaces(out, name)
        for way in WAYS:
            done = subprocess.run([sys.executable, '-c', METHOD, str(file), way], capture_output=True, text=True)
            row = json.loads(done.stdout.splitlines()[-1]) if not done.returncode else {'not run': done.stderr[-90:]}
            found.setdefault(name, {})[way] = row
            print(name, way, row, flush=True)
    return found


def projection(out: Path, users: int, items: int) -> dict:
    from promax_nb.data.bookshop import toy_data
    from promax_nb.experiment import experiment

    if not (out / 'run' / 'metrics.json').exists():
        experiment(toy_data(users, items, seed=0), out / 'run', epochs=6, sdr=1.0, s2dr=0.01, memory=2.0)
    call = [sys.executable, '-c', PROJECT, str(out / 'run')]
    cold = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    shutil.rmtree(out / 'run' / 'maps', ignore_errors=True)
    began = time.time()
    main = 'import sys; from promax_nb.cli import main; sys.exit(main())'
    subprocess.run([sys.executable, '-c', main, 'map', str(out / 'run')], check=True)
    whole = time.time() - began
    return {
        'users': users,
        'items': items,
        'projection of base and reshaped, cold process, seconds': cold['seconds'],
        'promax map, whole command, seconds': whole,
        'file, MB': (out / 'run' / 'map.html').stat().st_size / 1e6,
        'record': cold['record'],
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, default=Path('runs/map'))
    p.add_argument('--sizes', default='20000,200000,1000000')
    p.add_argument('--against', help='a commit, such as 2fdf191')
    p.add_argument('--times', type=int, default=20)
    p.add_argument('--users', type=int, default=17000)
    p.add_argument('--items', type=int, default=3000)
    p.add_argument('--only', choices=('pages', 'projection', 'methods'))
    a = p.parse_args()
    from promax_nb.models.train import versions

    a.out.mkdir(parents=True, exist_ok=True)
    found = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    if a.only in (None, 'pages'):
        sizes = [int(n) for n in a.sizes.split(',')]
        found['pages'] = found.get('pages', {}) | pages(a.out, sizes, a.against, a.times)
    if a.only in (None, 'methods'):
        found['methods'] = methods(a.out)
    if a.only in (None, 'projection'):
        found |= projection(a.out, a.users, a.items)
    found |= {'cores': os.cpu_count(), 'versions': versions()}
    TARGET.write_text(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
