"""All contenders on the same base, width, patience and number of trials: one JSON a training, nothing twice.

    python benchmarks/fair.py WORK [--only TEXT] [--data NAME] [--split S] [--collect] [--epochs N] [--seeds N]

WORK holds a folder a data set with a JSON a training; what is there is not made again. First every method's trials
on validation data (the base's choose lr and reg, which all take over), then the seeds with what was chosen; each
test row says when test was first read. `--only` keeps methods with this text in their name, `--collect` prints the
table. Data sets are looked for in PROMAX_DATA; a method that needs what a data set lacks is left out.
"""

import argparse
import json
import os
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from controls import WORLDS, vectors_of

from promax_nb.data.bookshop import toy_data
from promax_nb.data.storage import write_json
from promax_nb.models.contenders import CONTENDERS, contender
from promax_nb.models.evaluate import evaluate
from promax_nb.models.train import fit
from promax_nb.retrieval.augment import augment
from promax_nb.retrieval.embed import whiten


def means_of(train, items):
    """(M, k) the mean of the vectors of what each user has."""
    counts = np.maximum(np.diff(train.indptr), 1)[:, None]
    return np.asarray(train @ items / counts, np.float32)


def bookshop(root, split):
    """A generated shop, for the machinery alone."""
    return toy_data(80, 50)


DATA = {**WORLDS, 'bookshop': bookshop}


def prepared(name: str, options) -> tuple:
    """Data, whitened vectors of both sides as a run makes them, and the added interactions."""
    data = DATA[name](options.root, options.split)
    options.work.mkdir(parents=True, exist_ok=True)
    users, items, _ = vectors_of(data, options.work / f'{name}.db')
    users = means_of(data.train, items) if users is None else users
    su, si = whiten(users, items, dim=min(options.dim, items.shape[1]))
    return data, su, si, augment(data, su, si)[0]


def settings_for(name: str, choice: dict, added) -> dict:
    """What a contender is made with."""
    uses = any(word in name for word in ('ProMax', 'edges', 'added')) and 'SVD' not in name
    return choice | ({'added': added} if uses else {})


def training(path: Path, world: tuple, name: str, choice: dict, seed: int, options, test: bool) -> dict:
    """One training, or what is kept of it."""
    if path.is_file():
        return json.loads(path.read_text(encoding='utf-8'))
    data, su, si, added = world
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        model, objective = contender(name, data, su, si, seed, dim=options.dim, **settings_for(name, choice, added))
    shared = {key: choice[key] for key in ('lr', 'reg') if key in choice}
    began = time.process_time()
    limits = {'epochs': options.epochs, 'min_steps': options.min_steps, 'batch': options.batch}
    result = fit(model, objective, data, progress=False, **limits, **shared)
    facts = {
        'method': name,
        'seed': seed,
        'settings': choice,
        'valid recall@20': result.best_score,
        'best_epoch': result.best_epoch,
        'cpu_seconds': round(time.process_time() - began, 1),
        'identity': result.card['identity'],
    }
    if test:
        facts['test_first_read'] = datetime.now(UTC).isoformat(timespec='seconds')
        metrics = evaluate(result, data.test, data.train + data.valid)
        facts['test'] = {key: float(metrics[key]) for key in ('recall@20', 'ndcg@20')}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, facts)
    return facts


def run(name: str, options) -> list:
    """All methods of a data set: trials, then seeds."""
    folder, rows = options.work / f'{name}-{options.split}', []
    world = prepared(name, options)
    inherited = {}
    for method, entry in CONTENDERS.items():
        wanted = method == 'base' or not options.only or options.only in method
        if entry.needs or not wanted:
            continue
        short = method.replace(', ', '-').replace(' ', '-')
        tried = []
        for number, trial in enumerate(entry.trials[: options.trials]):
            choice = inherited | trial
            path = folder / f'{short}-trial-{number}.json'
            tried.append(training(path, world, method, choice, 0, options, test=False))
        best = max(tried, key=lambda facts: facts['valid recall@20'])['settings']
        if method == 'base':
            inherited = best
        for seed in range(1, options.seeds + 1):
            facts = training(folder / f'{short}-{seed}.json', world, method, best, seed, options, test=True)
            rows.append(facts)
            print(f"{name} {method} {seed}: {facts['test']} {facts['cpu_seconds']} s", flush=True)
    return rows


def table(work: Path) -> pd.DataFrame:
    """One row a data set and method: means over seeds, and the CPU seconds of one training."""
    rows = []
    for path in sorted(work.glob('*/*.json')):
        facts = json.loads(path.read_text(encoding='utf-8'))
        if 'test' in facts:
            rows.append({'data': path.parent.name, 'method': facts['method'], 'cpu_seconds': facts['cpu_seconds']})
            rows[-1] |= facts['test']
    found = pd.DataFrame(rows).groupby(['data', 'method']).agg(['mean', 'std', 'count'])
    return found.drop(columns=[('cpu_seconds', 'std'), ('cpu_seconds', 'count')])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=Path)
    parser.add_argument('--data', choices=list(DATA), help='one data set; else the real ones, the cheapest first')
    parser.add_argument('--split', default='0', help="'given' (by calendar where it is), or the seed of a random split")
    parser.add_argument('--only', help='methods with this text in their name, and the base')
    parser.add_argument('--collect', action='store_true')
    for name, default in (('seeds', 3), ('trials', 6), ('epochs', 1000), ('dim', 64), ('min-steps', 1000)):
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--batch', type=int, default=4096)
    options = parser.parse_args(arguments)
    options.split = options.split if options.split == 'given' else int(options.split)
    options.root = Path(os.environ.get('PROMAX_DATA', '../shared/data'))
    if not options.collect:
        for name in [options.data] if options.data else list(WORLDS):
            run(name, options)
    print(table(options.work).round(4).to_string())


if __name__ == '__main__':
    main()
