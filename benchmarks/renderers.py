"""What could draw a map: our own layer, regl-scatterplot and deck.gl, on the same points, in turn, in one run.

    npm install --prefix FOLDER --legacy-peer-deps deck.gl regl-scatterplot regl pub-sub-es
    python benchmarks/renderers.py FOLDER [--sizes 20000,200000] [--times 20] [--out benchmarks/results/renderers.json]

Each page holds points with two places and ten colours and nothing else, opened in a headless Chromium with the network
off and software WebGL. A step of the slider shows the points on their way from the first place to the second. Ours
keeps both in the graphics memory and is told how far; the others are given places anew, as their documentation has it
(regl-scatterplot moves points by itself, but from and to places that it is given; deck.gl takes new attributes).
Milliseconds are from the call until the second frame after it with the graphics' work finished; medians. Size is that
of the scripts in a page. An index to find points is built by ours when the mouse needs it, by regl-scatterplot in a
worker after each drawing, and by deck.gl never (it draws the points once more and reads a pixel).
"""

import argparse
import json
import platform
import re
import shutil
from pathlib import Path

import numpy as np
from map import ARGS, summary
from playwright.sync_api import sync_playwright

from promax_nb.data.storage import write_json
from promax_nb.views.packing import packed

ROOT = Path(__file__).parent.parent
WIDE, HIGH = 1000, 700
PAGE = """<!doctype html><meta charset=utf-8><style>body{margin:0}#box{position:relative;width:%(wide)spx;height:%(high)spx}
#box canvas{position:absolute;left:0;top:0;width:100%%;height:100%%}</style><div id=box></div><script>%(library)s</script>
<script type=module>%(own)s
const numbers = text => new Float32Array(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
const n = %(n)s, first = numbers('%(first)s'), last = numbers('%(last)s'), box = document.getElementById('box');
const hues = [[59,143,196],[217,94,14],[10,145,101],[194,80,143],[230,159,0],[86,180,233],[120,120,120],[0,114,178],[213,94,0],[90,160,90]];
const group = turn => Uint8Array.from({ length: n }, (_, i) => (i + turn) %% 10);
const between = t => { const x = new Float32Array(2 * n); for (let i = 0; i < 2 * n; i++) x[i] = first[i] + (last[i] - first[i]) * t; return x; };
window.done = async () => {
  for (const c of document.querySelectorAll('canvas')) {
    const gl = c.getContext('webgl2') ?? c.getContext('webgl');
    gl?.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  }
  await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)));
};
window.timed = async f => { await new Promise(r => setTimeout(r, 150)); const t = performance.now(); await f(); await window.done(); return performance.now() - t; };
const began = performance.now();
%(draw)s
await window.done();
window.first = performance.now() - began;
window.ready = true;
</script>"""
DRAW = {
    'own layer': """
const paint = turn => { const c = group(turn), rgba = new Uint8Array(4 * n); for (let i = 0; i < n; i++) { rgba.set(hues[c[i]], 4 * i); rgba[4 * i + 3] = 220; } return rgba; };
const map = new PointMap(box, { first, last }, n, { hover() {}, pick() {}, select() {}, drawn() {}, error(e) { throw e; } });
map.resize(); map.fit(); map.recolour(paint(0)); map.show('first', 'last', 0);
window.step = t => map.show('first', 'last', t);
window.recolour = turn => map.recolour(paint(turn));""",
    'regl-scatterplot': """
const canvas = box.appendChild(document.createElement('canvas'));
const hex = hues.map(h => '#' + h.map(v => v.toString(16).padStart(2, '0')).join(''));
const plot = createScatterplot.default({ canvas, width: WIDE, height: HIGH, pointSize: 4, colorBy: 'valueA', pointColor: hex });
let turned = 0, at = first;
const columns = () => { const x = new Float32Array(n), y = new Float32Array(n); for (let i = 0; i < n; i++) { x[i] = at[2 * i] / 20; y[i] = at[2 * i + 1] / 20; } return { x, y, z: Float32Array.from(group(turned)) }; };
await plot.draw(columns(), { zDataType: 'categorical' });
window.step = async t => { at = between(t); await plot.draw(columns(), { zDataType: 'categorical' }); };
window.recolour = async turn => { turned = turn; await plot.draw(columns(), { zDataType: 'categorical' }); };""",
    'deck.gl': """
const colours = turn => { const c = group(turn), rgb = new Uint8Array(3 * n); for (let i = 0; i < n; i++) rgb.set(hues[c[i]], 3 * i); return rgb; };
let places = { value: first, size: 2 }, painted = { value: colours(0), size: 3 };
const layer = () => new deck.ScatterplotLayer({ id: 'points', data: { length: n, attributes: { getPosition: places, getFillColor: painted } }, getRadius: 2, radiusUnits: 'pixels', pickable: true, coordinateSystem: deck.COORDINATE_SYSTEM.CARTESIAN });
let shown;
const drawn = () => new Promise(r => { shown = r; });
const view = new deck.Deck({ parent: box, width: WIDE, height: HIGH, views: new deck.OrthographicView(), controller: true, initialViewState: { target: [0, 0, 0], zoom: 4.2 }, layers: [layer()], onAfterRender: () => shown?.() });
await drawn();
window.step = t => { places = { value: between(t), size: 2 }; const ended = drawn(); view.setProps({ layers: [layer()] }); return ended; };
window.recolour = turn => { painted = { value: colours(turn), size: 3 }; const ended = drawn(); view.setProps({ layers: [layer()] }); return ended; };""",
}
FILES = {
    'regl-scatterplot': ('pub-sub-es/dist/index.js', 'regl/dist/regl.min.js', 'regl-scatterplot/dist/regl-scatterplot.min.js'),
    'deck.gl': ('deck.gl/dist.min.js',),
}


def scripts(packages: Path, name: str) -> tuple:
    """The library of a renderer, what stands in the module itself, and the megabytes of both."""
    if name == 'own layer':
        own = (ROOT / 'promax_nb' / 'views' / 'points.js').read_text(encoding='utf-8')
        return '', own, len(own.encode()) / 1e6
    files = [packages / 'node_modules' / file for file in FILES[name]]
    texts = [file.read_text(encoding='utf-8').replace('</script', '<\\/script') for file in files]
    texts = [re.sub(r'(?m)^export default (\w+);$', r'globalThis.\1 = \1;', text) for text in texts]
    library = '\n'.join(re.sub(r'(?m)^export \{.*$', '', text) for text in texts)
    return library, '', len(library.encode()) / 1e6


def version_of(packages: Path, name: str) -> str:
    return json.loads((packages / 'node_modules' / name / 'package.json').read_text(encoding='utf-8'))['version']


def measured(browser, page_file: Path, times: int) -> dict:
    """Milliseconds of the first picture, of steps and of recolouring."""
    context = browser.new_context(viewport={'width': WIDE, 'height': HIGH})
    context.set_offline(True)
    page = context.new_page()
    page.set_default_timeout(300_000)
    wrong = []
    page.on('pageerror', lambda error: wrong.append(str(error)))
    page.goto(page_file.resolve().as_uri())
    try:
        page.wait_for_function('() => window.ready', timeout=120_000)
    except Exception:
        return {'not run': wrong[:1]}
    found = {'first picture': [page.evaluate('() => window.first')]}
    for k in range(1, times + 1):
        for name, call in (('slider step', 'window.step(k % 21 / 20)'), ('recolour', 'window.recolour(k)')):
            found.setdefault(name, []).append(page.evaluate(f'async k => window.timed(() => {call})', k))
    page.screenshot(path=page_file.with_suffix('.png'))
    context.close()
    return {name: summary(values) for name, values in found.items()} | ({'errors': wrong} if wrong else {})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('packages', type=Path)
    p.add_argument('--sizes', default='20000,200000')
    p.add_argument('--times', type=int, default=20)
    p.add_argument('--work', type=Path, default=Path('runs/renderers'))
    p.add_argument('--out', type=Path)
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    exe = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))))
    rows = {}
    with sync_playwright() as play:
        for n in map(int, a.sizes.split(',')):
            rng = np.random.default_rng(0)
            first = rng.normal(size=(40, 2))[rng.integers(0, 40, n)] * 5 + rng.normal(size=(n, 2))
            last = first + rng.normal(size=(n, 2))
            for name, draw in DRAW.items():
                library, own, size = scripts(a.packages, name)
                fill = dict(wide=WIDE, high=HIGH, n=n, first=packed(first, '<f4'), last=packed(last, '<f4'))
                file = a.work / f'{n}-{name.replace(" ", "-")}.html'
                page = PAGE % (fill | dict(library=library, own=own, draw=draw.replace('WIDE', str(WIDE)).replace('HIGH', str(HIGH))))
                file.write_text(page, encoding='utf-8')
                browser = play.chromium.launch(executable_path=exe, args=ARGS)
                row = {'scripts, MB': round(size, 3)} | measured(browser, file, a.times)
                browser.close()
                rows[f'{n:,} points, {name}'] = row
                print(f'{n:,} {name}', json.dumps(row), flush=True)
    versions = {name: version_of(a.packages, name) for name in ('regl-scatterplot', 'regl', 'deck.gl')}
    if a.out:
        told = {'command': 'python benchmarks/renderers.py FOLDER', 'machine': platform.machine(), 'pages': rows}
        write_json(a.out, told | {'versions': versions})


if __name__ == '__main__':
    main()
