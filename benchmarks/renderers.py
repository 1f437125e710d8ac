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
WAYS = ('own layer', 'regl-scatterplot', 'deck.gl')
FILES = {
    'own layer': [],
    'regl-scatterplot': [
        'pub-sub-es/dist/index.js',
        'regl/dist/regl.min.js',
        'regl-scatterplot/dist/regl-scatterplot.min.js',
    ],
    'deck.gl': ['deck.gl/dist.min.js'],
}


def page_of(packages: Path, name: str, places) -> tuple:
    """A page with the points and one renderer, and the megabytes of the renderer."""
    own = (ROOT / 'promax_nb' / 'views' / 'points.js').read_text(encoding='utf-8') if not FILES[name] else ''
    files = [packages / 'node_modules' / file for file in FILES[name]]
    texts = [file.read_text(encoding='utf-8').replace('</script', '<\\/script') for file in files]
    texts = [re.sub(r'(?m)^export default (\w+);$', r'globalThis.\1 = \1;', text) for text in texts]
    library = '\n'.join(re.sub(r'(?m)^export \{.*$', '', text) for text in texts)
    page = (ROOT / 'benchmarks' / 'renderers.html').read_text(encoding='utf-8')
    parts = dict(zip(('first', 'last'), (packed(xy, '<f4') for xy in places), strict=True))
    for part, text in (parts | {'who': name, 'own': own, 'library': library}).items():
        page = page.replace(f'/*{part}*/', text)
    return page, len((own + library).encode()) / 1e6


def version_of(packages: Path, name: str) -> str:
    return json.loads((packages / 'node_modules' / name / 'package.json').read_text(encoding='utf-8'))['version']


def measured(browser, page_file: Path, times: int) -> dict:
    """Milliseconds of the first picture, of steps and of recolouring."""
    context = browser.new_context(viewport={'width': 1000, 'height': 700})
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
        for name, call in (('slider step', 'drawing.step(k % 21 / 20)'), ('recolour', 'drawing.recolour(k)')):
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
            for name in WAYS:
                page, size = page_of(a.packages, name, (first, last))
                file = a.work / f'{n}-{name.replace(" ", "-")}.html'
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
