"""Does the gate predict? What it promises on validation data beside what texts then add on test, space by space.

    python benchmarks/gate.py DATA --work FOLDER [--only NAME ...] [--seeds 0 1 2] [--out FILE]

DATA holds ml-100k, amazon-industrial, imdb-exp3rt and steam-sub; the bookshops are generated, small, and differ in how
much of taste their blurbs explain (0, .35, .7). FOLDER keeps vectors and one JSON a data set and split. The line is the
closed form that validation likes best; of each space alone the gate chooses text, scale and weight. `shuffled` rows
have the texts of the wrong people and items: they are there to be seen, and counted nowhere. Test is read once, last.
"""

import argparse
import json
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from controls import METRICS, WORLDS, mean_texts, vectors_of
from fair import imdb_template

from promax_nb.data.bookshop import toy_data
from promax_nb.data.storage import write_json
from promax_nb.methods import cheap_lines
from promax_nb.models.evaluate import per_user
from promax_nb.models.gate import gate, guides_of, spaces_of
from promax_nb.models.inference import interval, resampled
from promax_nb.models.reshape import with_guide
from promax_nb.retrieval.embed import whiten


def bookshop(folder, split, reveal):
    """280 readers, 200 books."""
    return toy_data(280, 200, seed=split, reveal=reveal)


SETS = {
    **WORLDS,
    'imdb-template': imdb_template,
    **{f'bookshop, {reveal:.0%}': partial(bookshop, reveal=reveal) for reveal in (0.0, 0.35, 0.7)},
}


def gain(after, before, metric) -> list:
    """Difference as a share of the line's mean, and its interval over users."""
    difference = (after[metric] - before[metric]).to_numpy()
    size = before[metric].mean()
    return [float(value / size) for value in (difference.mean(), *interval(resampled(difference)))]


def one_split(name: str, seed: int, root: Path, work: Path) -> dict:
    """A row a space, with the right texts and with shuffled ones."""
    data = SETS[name](root, seed)
    users, items, writer = vectors_of(data, work / f'{name}.db')
    users = mean_texts(data, items) if users is None else users
    lines = [line for line in cheap_lines(data)[0] if line.name in ('EASE', 'ItemKNN')]
    best = max(lines, key=lambda line: line.valid.mean())
    width = min(64, items.shape[1], sum(data.shape) - 1)
    spaces = spaces_of((users, items), whiten(users, items, dim=width))
    draws = np.random.default_rng(seed)
    wrong = tuple(draws.permutation(side) for side in spaces['centred'])
    known, rows = data.train + data.valid, []
    found = {space: gate(data, {space: vectors}, best.runs[0], best.name) for space, vectors in spaces.items()}
    found['shuffled'] = gate(data, {'shuffled': wrong}, best.runs[0], best.name)
    before = per_user(best.runs[0], data.test, known, (20,))
    for space, promise in found.items():
        how = promise.chosen
        guide = guides_of(known, (spaces | {'shuffled': wrong})[space])[how['guide']]
        scorer = with_guide(best.runs[0], how['guide'], guide, how['alpha'], known, how['form'])
        after = per_user(scorer, data.test, known, (20,))
        rows.append(
            {
                'space': space,
                'promised': [promise.adds, promise.low, promise.high],
                'alone': promise.alone,
                'chosen': how,
                **{metric: gain(after, before, metric) for metric in METRICS},
            }
        )
    facts = {'data': name, 'seed': seed, 'line': best.name, 'writer': writer, 'users': data.n_users}
    return facts | {'test_read': time.strftime('%Y-%m-%dT%H:%M:%S'), 'rows': rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--work', type=Path, required=True)
    parser.add_argument('--only', nargs='*', choices=list(SETS), default=list(SETS))
    parser.add_argument('--seeds', nargs='*', type=int, default=[0, 1, 2])
    parser.add_argument('--out', type=Path, help='JSON of all that is in the work folder')
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter('ignore')
    for name in options.only:
        for seed in options.seeds:
            file = options.work / f'{name}-{seed}.json'
            if file.exists():
                continue
            found = one_split(name, seed, options.data, options.work)
            write_json(file, json.loads(json.dumps(found, default=float)))
            for row in found['rows']:
                told = f"{row['space']:<12} {row['promised'][0]:+.3f} {row['ndcg@20'][0]:+.3f}"
                print(name, seed, told, flush=True)
    if options.out:
        kept = [json.loads(file.read_text(encoding='utf-8')) for file in sorted(options.work.glob('*.json'))]
        options.out.write_text(json.dumps(kept, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
