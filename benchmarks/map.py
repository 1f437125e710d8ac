"""Maps of 20,000 users and items: time of the projection in a cold process, size of the file, and how quickly the
page answers in Chromium.

    python benchmarks/map.py --out runs/map [--users 17000 --items 3000]

Makes a run on generated data (short trainings: the vectors only have to be real, not good), then runs `promax map`
in a process of its own, then opens the
page in a headless Chromium with the network off and software WebGL. Numbers go to benchmarks/results/map.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ARGS = ['--no-sandbox', '--disable-gpu', '--enable-unsafe-swiftshader', '--disable-background-networking']
PROJECT = """import json, sys, time
from promax_nb.views.scene import open_run; from promax_nb.views.maps import project
scene = open_run(sys.argv[1]); spaces = {k: v for k, v in scene.spaces().items() if k != 'profiles'}
began = time.time()
p = project(spaces)
print(json.dumps({'seconds': time.time() - began, 'record': p.record}, default=str))"""
SPOTS = """() => {
  const gd = document.querySelector('.px-plot'), t = gd._fullData[0];
  const l = gd._fullLayout, b = gd.getBoundingClientRect();
  const at = i => [b.left + l.xaxis._offset + l.xaxis.d2p(t.x[i]), b.top + l.yaxis._offset + l.yaxis.d2p(t.y[i])];
  return Array.from({length: 12}, (_, k) => at(400 * k));
}"""
PAGE = """async () => {
  const e = document.querySelector('.px-mount').explorer, n = e.s.n, out = {};
  // a person looks before the next click; without it a frame waits for the one before
  const idle = () => new Promise(r => setTimeout(r, 1500));
  const timed = async (name, f) => {
    await idle();
    const t = performance.now();
    await f();
    await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)));
    (out[name] ??= []).push(performance.now() - t);
  };
  for (let k = 0; k < 5; k++) {
    await idle();
    const t = performance.now(), all = e.pick(37 * k, true);
    await new Promise(r => requestAnimationFrame(() => {  // painted
      const c = new MessageChannel();
      c.port1.onmessage = r;
      c.port2.postMessage(0);
    }));
    (out.card ??= []).push(performance.now() - t);
    await all;
    (out['card, lines and distribution'] ??= []).push(performance.now() - t);
    for (const c of ['interactions', 'kind']) await timed('recolour', () => e.setColour(c));
    await timed('lasso of 5,000', () => e.setSelected(Int32Array.from(Array(5000).keys(), i => i * 2 % n)));
    await timed('clear', () => e.setSelected(null));
    await timed('slider step', () => e.setBlend((k + 1) / 5));
  }
  return out;
}"""


def lasso(page, share):
    """Milliseconds from letting go of the mouse to the list of what was selected."""
    import math

    page.evaluate("""() => {
      const e = document.querySelector('.px-mount').explorer;
      e.setSelected(null);
      return e.Plotly.relayout(e.plot, {dragmode: 'lasso'});
    }""")
    page.wait_for_timeout(2000)
    box = page.locator('.px-plot').first.bounding_box()
    turn = [(0.5 + 0.5 * share * math.cos(k / 4), 0.5 + share * math.sin(k / 4)) for k in range(25)]
    at = [(box['x'] + box['width'] * x, box['y'] + box['height'] * y) for x, y in turn]
    page.mouse.move(*at[0])
    page.mouse.down()
    for x, y in at[1:]:
        page.mouse.move(x, y)
    page.wait_for_timeout(500)
    page.mouse.up()
    began = time.time()
    page.wait_for_selector('.px-selection h3')
    return 1000 * (time.time() - began)


def browse(page_file):
    """Milliseconds (median, most) of what a person does on the page; hover is measured with the mouse."""
    import numpy as np
    from playwright.sync_api import sync_playwright

    exe = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))))
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=exe, args=ARGS)
        context = browser.new_context(viewport={'width': 1500, 'height': 1100})
        context.set_offline(True)
        page, began = context.new_page(), time.time()
        page.set_default_timeout(120_000)
        page.goto(page_file.resolve().as_uri())
        page.wait_for_selector('.px-mount[data-ready=yes]')
        opened = time.time() - began
        spots = page.evaluate(SPOTS)
        page.evaluate("""() => { window.__t = []; const tip = document.querySelector('.px-tip');
          addEventListener('mousemove', () => { window.__m = performance.now(); }, true);
          const seen = () => { if (!tip.hidden) window.__t.push(performance.now() - window.__m); };
          new MutationObserver(seen).observe(tip, {childList: true, attributes: true}); }""")
        for x, y in spots:
            page.mouse.move(5, 5)
            page.wait_for_timeout(150)
            page.mouse.move(x, y)
            page.wait_for_timeout(400)
        hover = page.evaluate('() => window.__t')
        times = page.evaluate(PAGE) | {'hover': hover, 'lasso by mouse': [lasso(page, r) for r in (0.3, 0.35, 0.3)]}
        print('by mouse:', page.locator('.px-selection h3').inner_text())
        browser.close()
    return {
        'open, seconds': opened,
        **{k: {'median ms': float(np.median(v)), 'most ms': float(np.max(v)), 'n': len(v)} for k, v in times.items()},
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, default=Path('runs/map'))
    p.add_argument('--users', type=int, default=17000)
    p.add_argument('--items', type=int, default=3000)
    p.add_argument('--only-page', action='store_true', help='open the page again, keep the other numbers')
    p.add_argument('--only-make', action='store_true', help='make the run, measure nothing yet')
    a = p.parse_args()
    from promax_nb.data.bookshop import toy_data
    from promax_nb.experiment import experiment
    from promax_nb.models.train import versions

    target = Path(__file__).parent / 'results' / 'map.json'
    if a.only_page:
        target.write_text(json.dumps(json.loads(target.read_text()) | {'page': browse(a.out / 'map.html')}, indent=1))
        return print(target.read_text())
    if not (a.out / 'metrics.json').exists():
        experiment(toy_data(a.users, a.items, seed=0), a.out, epochs=6, sdr=1.0, s2dr=0.01, memory=2.0)
    if a.only_make:
        return
    cold = json.loads(
        subprocess.run(
            [sys.executable, '-c', PROJECT, str(a.out)], check=True, capture_output=True, text=True
        ).stdout.splitlines()[-1]
    )
    shutil.rmtree(a.out / 'maps', ignore_errors=True)
    began = time.time()
    subprocess.run(
        [sys.executable, '-c', 'import sys; from promax_nb.cli import main; sys.exit(main())', 'map', str(a.out)],
        check=True,
    )
    whole = time.time() - began
    page = a.out / 'map.html'
    result = {
        'users': a.users,
        'items': a.items,
        'projection of base and reshaped, cold process, seconds': cold['seconds'],
        'promax map, whole command, seconds': whole,
        'file, MB': page.stat().st_size / 1e6,
        'page': browse(page),
        'cores': os.cpu_count(),
        'record': cold['record'],
        'versions': versions(),
    }
    target.write_text(json.dumps(result, indent=1))
    print(json.dumps({k: v for k, v in result.items() if k != 'record'}, indent=1))


if __name__ == '__main__':
    main()
