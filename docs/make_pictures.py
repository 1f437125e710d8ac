"""What the front page shows of the bookshop: python docs/make_pictures.py [--run FOLDER] [--out docs/pictures]

The demo is run (or the folder of a run is taken), its map photographed in a headless Chromium, light and dark, with a
reader picked whom reshaping helped, and the three questions are asked at the command line. Pictures and answers go to
docs/pictures, and the answers into nbs/index.ipynb, which tests/test_docs.py holds to them.
"""

import argparse
import contextlib
import io
import json
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / 'docs' / 'pictures'
SIZE = {'width': 1280, 'height': 1040}  # of the window, in CSS pixels
COLOURS = 128  # of a palette: a third of the bytes, and nobody sees it
ARGS = '--no-sandbox --disable-gpu --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader'.split()
SENTENCE = 'slow crime stories by the sea, no romance'
READY = "() => document.querySelector('.px-mount')?.explorer"


def answered(words: list) -> str:
    """What a command prints."""
    from promax_nb.cli import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(words)
    if code:
        sys.exit(f'promax {shlex.join(words)} ended with {code}.')
    return '\n'.join(line.rstrip() for line in said.getvalue().rstrip().splitlines())


def questions(user: str, item: str) -> dict:
    """The three questions as commands about the run in demo-run -> their answers."""
    asked = {
        'user': ['recommend', 'demo-run', '--user', user, '--n', '3'],
        'item': ['similar', 'demo-run', '--item', item, '--n', '3'],
        'sentence': ['recommend', 'demo-run', '--profile', SENTENCE, '--n', '3'],
    }
    commands = {name: f'promax {shlex.join(words)}' for name, words in asked.items()}
    return {name: {'command': commands[name], 'answer': answered(words)} for name, words in asked.items()}


ASKED = {
    'user': 'What do I show a user?',
    'item': 'What is like an item?',
    'sentence': 'What do I show somebody who wrote one sentence?',
}
HEADING, SERVE = '## Three questions', 'https://promax-nb.github.io/promax_nb/howto/serve.html'


def questions_cell(answers: dict) -> str:
    """The section of the front page that shows them."""
    parts = [HEADING]
    for name, question in ASKED.items():
        command, answer = answers[name]['command'], answers[name]['answer']
        parts.append(f'**{question}**\n\n```\n$ {command}\n{answer}\n```')
    parts.append(
        '`promax explain` says why, `promax serve` answers over HTTP, and in Python it is `load_recommender(...)` with '
        f'`recommend`, `similar_items`, `guest` and `explain` ([Serve it]({SERVE})). With your own files the '
        'folder comes from `promax run --events events.csv --items items.csv --out RUN`.'
    )
    return '\n\n'.join(parts)


def told_on_the_front_page(answers: dict, index: Path = ROOT / 'nbs' / 'index.ipynb'):
    """Put the section into the front page's notebook."""
    import nbformat

    book = nbformat.read(index, 4)
    (cell,) = [c for c in book.cells if c.source.startswith(HEADING)]
    cell.source = questions_cell(answers)
    nbformat.write(book, index)


def photographed(page: Path, picked: int, out: Path):
    """The map's page, light and dark, with a node picked."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if chromium is None:
        sys.exit('no Chromium was found to photograph the map with: install chromium, then try again.')
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGS)
        for scheme in ('light', 'dark'):
            context = browser.new_context(viewport=SIZE, color_scheme=scheme)
            tab = context.new_page()
            tab.goto(page.resolve().as_uri())
            tab.wait_for_function(READY)
            tab.evaluate("k => document.querySelector('.px-mount').explorer.pick(k, true)", picked)
            tab.wait_for_timeout(2000)  # the map settles and its labels are placed
            top = tab.locator('.px-root').bounding_box()['y'] - 8
            drawn = tab.locator('.px-root canvas').first.bounding_box()
            clip = {'x': 0, 'y': top, 'width': SIZE['width'], 'height': drawn['y'] + drawn['height'] + 2 - top}
            shot = Image.open(io.BytesIO(tab.screenshot(clip=clip, full_page=True)))
            shot.convert('RGB').quantize(COLOURS).save(out / f'map-{scheme}.png', optimize=True)
        browser.close()


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--run', type=Path, help='folder of a run of `promax demo`; without it the demo is run')
    p.add_argument('--out', type=Path, default=OUT)
    args = p.parse_args(argv)
    out, given = args.out.resolve(), args.run and args.run.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the commands name demo-run, as a reader's would
        if given:
            shutil.copytree(given, 'demo-run')
        else:
            answered(['demo'])
        answered(['map', 'demo-run'])
        from promax_nb.data.storage import write_json
        from promax_nb.views.person import six_people
        from promax_nb.views.scene import open_run

        scene = open_run('demo-run')
        somebody = six_people(scene)[0][0]
        user = str(scene.data.users.user[somebody])
        first = json.loads(answered(['recommend', 'demo-run', '--user', user, '--n', '1', '--json']))['rows'][0]
        answers = questions(user, str(first['item']))
        write_json(out / 'answers.json', answers)
        photographed(Path('demo-run') / 'map.html', somebody, out)
        os.chdir(ROOT)
    if out == OUT:
        told_on_the_front_page(answers)
    print(f'map-light.png, map-dark.png, answers.json: {out}')


if __name__ == '__main__':
    main()
