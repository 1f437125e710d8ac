"""All contenders on the same base, width, patience and number of trials: one JSON a training, nothing twice.

    python benchmarks/fair.py WORK [--parts A B ...] [--data NAME] [--only NAME ...] [--jobs N] [--cards N]
    python benchmarks/fair.py WORK --prepare            # vectors and added interactions of every set, kept in WORK
    python benchmarks/fair.py WORK --collect FILE       # the table, from what is there and what FILE knows besides
    python benchmarks/fair.py WORK --known FILE ...     # trials of another folder, known from its table, count as made

WORK holds a folder a cell (data set, split, base, width) with a JSON and the metrics of every user a training; what
is there is not made again, on whichever machine it was made. First every method's trials on validation data (the
base's choose lr and reg, which all take over), then the seeds with what was chosen; each test row says when test was
first read. `--only` keeps these methods; `--jobs` trainings run side by side on one thread each, `--cards` of them on
a graphics card. Data sets are looked for in PROMAX_DATA.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import threading
import time
import traceback
import warnings
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from controls import METRICS, WORLDS, imdb, mean_texts, texts_of, vectors_of

from promax_nb.data.bookshop import toy_data
from promax_nb.data.published import from_rlmrec
from promax_nb.data.storage import write_json
from promax_nb.models.bases import GCCF, MF, SGL, LightGCN, SimGCL
from promax_nb.models.contenders import CONTENDERS, contender
from promax_nb.models.evaluate import per_user
from promax_nb.models.train import fit
from promax_nb.models.variants import history_vectors
from promax_nb.profiles.clauses import wishes

BATCH, RIVALS, AMAZON = 4096, 2, 3000  # triples a step; rivals that go on to other bases; least steps on Amazon-book


def bookshop(root, split):
    """A generated shop, for the machinery alone."""
    return toy_data(80, 50)


def imdb_template(root, split):
    """IMDb reviews, profiles by the template in the place of those that came with them."""
    data = imdb(root, split)
    for name in ('user_profiles', 'item_profiles'):
        data.extras.pop(name)
    return data


def amazon_book(root, split):
    """The published split and added interactions; there are no texts."""
    return from_rlmrec(root / 'amazon-book')


DATA = {**WORLDS, 'imdb-template': imdb_template, 'amazon-book': amazon_book, 'bookshop': bookshop}
BASES = {
    'LightGCN': partial(LightGCN, n_layers=3, sum_layers=(1, 2, 3)),
    'MF': MF,
    'GCCF': GCCF,
    'SimGCL': SimGCL,
    'SGL': SGL,
}


@dataclass(frozen=True)
class Cell:
    """What is held still: a data set, its split, the base and its width."""

    data: str
    split: str = '0'  # 'given' (by calendar where it is), or the seed of a random split
    base: str = 'LightGCN'
    dim: int = 64
    settings_of: 'Cell | None' = None  # another cell whose choices are taken over; None: own trials
    methods: tuple | None = None  # None: all; 'rivals' stands for the best of `settings_of`
    seeds: int = 3

    @property
    def name(self) -> str:
        return f'{self.data}-{self.split}-{self.base}-{self.dim}'


INDUSTRIAL, FILMS, MOVIES = Cell('amazon-industrial'), Cell('imdb-exp3rt'), Cell('ml-100k')
FEW = ('base', 'ProMax', 'rivals')
PARTS = {
    'bookshop': [Cell('bookshop', dim=8)],
    'A': [FILMS, INDUSTRIAL, MOVIES, Cell('imdb-template')],
    'calendar': [Cell('amazon-industrial', 'given', settings_of=INDUSTRIAL)],
    'B': [
        Cell(own.data, base=base, settings_of=own, methods=FEW)
        for own in (INDUSTRIAL, FILMS)
        for base in ('MF', 'GCCF', 'SimGCL', 'SGL')
    ],
    'C': [Cell('amazon-industrial', dim=32, settings_of=INDUSTRIAL, methods=FEW)],
    'D': [Cell('steam-sub', settings_of=INDUSTRIAL, methods=(*FEW, 'ProMax of SVD vectors'))],
    'E': [
        Cell('amazon-book', 'given', dim=64, methods=('base',), seeds=1),
        Cell('amazon-book', 'given', 'SGL', methods=('base',), seeds=1),
        Cell('amazon-book', 'given', 'SimGCL', methods=('base',), seeds=1),
        Cell('amazon-book', 'given', dim=32, methods=('base', 'retrieved edges', 'random edges'), seeds=1),
    ],
}


# ---- data


def kept_arrays(path: Path, make) -> dict:
    """Arrays from a file, made where it is not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix('.part.npz')
        np.savez_compressed(part, **make())
        os.replace(part, path)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@lru_cache(maxsize=6)
def prepared(data_name: str, split: str, dim: int, root: Path, work: Path) -> tuple:
    """Data, vectors of both sides (whitened as a run makes them; None: no texts) and the added interactions."""
    data = DATA[data_name](root, split if split == 'given' else int(split))
    if 'augmented' in data.extras:  # published
        added = data.extras['augmented'] - data.extras['augmented'].multiply(data.train)
        added.eliminate_zeros()
        return data, None, None, added

    def make():
        from promax_nb.retrieval.augment import augment
        from promax_nb.retrieval.embed import whiten

        users, items, _ = vectors_of(data, work / f'{data_name}.db')
        users = mean_texts(data, items) if users is None else users
        su, si = whiten(users, items, dim=min(dim, items.shape[1], sum(data.shape) - 1))
        added = augment(data, su, si)[0].tocoo()
        return {'su': su, 'si': si, 'row': added.row, 'col': added.col}

    found = kept_arrays(work / 'prepared' / f'{data_name}-{split}-{dim}.npz', make)
    ones = np.ones(len(found['row']), np.float32)
    added = sp.csr_matrix((ones, (found['row'], found['col'])), data.shape)
    return data, found['su'], found['si'], added


def second_profiles(cell: 'Cell', options) -> list:
    """Another profile of everybody, for methods that take several: the template's, or what the history says."""
    data, _, si, _ = prepared(cell.data, cell.split, cell.dim, options.root, options.work)
    if cell.data == 'imdb-exp3rt':
        return [prepared('imdb-template', cell.split, cell.dim, options.root, options.work)[1:3]]
    return [(history_vectors(data.train, si), si)]


def claimed_words(cell: 'Cell', options) -> tuple:
    """Who is said to like which words (M, A), and which items are said to have them (N, A): those of some items."""
    data, *_ = prepared(cell.data, cell.split, cell.dim, options.root, options.work)

    def make():
        from sklearn.feature_extraction.text import CountVectorizer

        users, items, _ = texts_of(data)
        liked = [[wishes(text)[0] for text in side] for side in (items, users)]
        words = CountVectorizer(
            stop_words='english', token_pattern=r'[^\W\d_]{3,}', min_df=5, max_df=0.1, max_features=2000, binary=True
        )
        of_items, of_users = words.fit_transform(liked[0]).tocoo(), words.transform(liked[1]).tocoo()
        told = {'words': np.array([of_items.shape[1]])}
        for name, side in (('users', of_users), ('items', of_items)):
            told |= {f'{name} row': side.row, f'{name} col': side.col}
        return told

    found = kept_arrays(options.work / 'prepared' / f'words-{cell.data}-{cell.split}.npz', make)
    sides = []
    for name, size in zip(('users', 'items'), data.train.shape, strict=True):
        row, col = found[f'{name} row'], found[f'{name} col']
        sides.append(sp.csr_matrix((np.ones(len(row), np.float32), (row, col)), (size, int(found['words'][0]))))
    return tuple(sides)


GIVEN = {'more': second_profiles, 'attributes': claimed_words}  # what some methods need beside the vectors


# ---- one training


@dataclass(frozen=True)
class Job:
    """One training."""

    cell: Cell
    method: str
    settings: str  # JSON
    seed: int
    test: bool

    def path(self, work: Path) -> Path:
        return work / self.cell.name / f'{self.file}.json'

    @property
    def file(self) -> str:
        """Its name, without ending: the same settings have the same."""
        digest = hashlib.sha256(self.settings.encode()).hexdigest()[:8]
        return f"{short(self.method)}-{digest}-{f'seed-{self.seed}' if self.test else 'trial'}"


DEVICE = 'cpu'


def _follow():
    """End where the script that began this process is gone, killed or not."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _worker(cards):
    """The first workers take the graphics card."""
    global DEVICE
    threading.Thread(target=_follow, daemon=True).start()
    torch.set_num_threads(1)
    with cards.get_lock():
        if cards.value > 0:
            cards.value -= 1
            DEVICE = 'cuda'


def trained(job: Job, options) -> dict:
    """Make one training and write it down."""
    cell, choice = job.cell, json.loads(job.settings)
    data, su, si, added = prepared(cell.data, cell.split, cell.dim, options.root, options.work)
    given = dict(choice)
    if any(word in job.method for word in ('ProMax', 'edges', 'added')) and 'SVD' not in job.method:
        given['added'] = added
    given |= {need: GIVEN[need](cell, options) for need in CONTENDERS[job.method].needs}
    if cell.base != 'LightGCN':
        given['base'] = lambda data, seed: BASES[cell.base](data, cell.dim, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        model, objective = contender(job.method, data, su, si, job.seed, dim=cell.dim, **given)
    shared = {key: choice[key] for key in ('lr', 'reg') if key in choice}
    least = AMAZON if cell.data == 'amazon-book' else options.min_steps
    began, wall = time.process_time(), time.monotonic()
    limits = {'epochs': options.epochs, 'min_steps': least, 'batch': BATCH, 'device': DEVICE}
    result = fit(model, objective, data, progress=False, **limits, **shared)
    facts = {
        'method': job.method,
        'seed': job.seed,
        'settings': choice,
        'valid recall@20': result.best_score,
        'best_epoch': result.best_epoch,
        'epochs': len(result.history),
        'cpu_seconds': round(time.process_time() - began, 1),
        'seconds': round(time.monotonic() - wall, 1),
        'device': torch.cuda.get_device_name() if DEVICE == 'cuda' else 'cpu',
        'torch': torch.__version__,
        'machine': platform.machine(),
        'identity': result.card['identity'],
    }
    path = job.path(options.work)
    path.parent.mkdir(parents=True, exist_ok=True)
    if job.test:
        facts['test_first_read'] = datetime.now(UTC).isoformat(timespec='seconds')
        tested = {}
        for mask, known in (('train+valid', data.train + data.valid), ('train', data.train)):
            table = per_user(result, data.test, known, (20,))[list(METRICS)]
            tested[mask] = {metric: float(table[metric].mean()) for metric in METRICS}
            if mask == 'train+valid':
                kept = {'users': table.index.to_numpy(np.int32)}
                kept |= {metric: table[metric].to_numpy(np.float32) for metric in METRICS}
        facts |= {'test': tested['train+valid'], 'test, train masked': tested['train']}
        if job.method in ('base', 'ProMax', 'added as data'):
            kept |= {'u': result.users.astype(np.float32), 'i': result.items.astype(np.float32)}
        path.with_suffix('.npz').unlink(missing_ok=True)
        kept_arrays(path.with_suffix('.npz'), lambda: kept)
    write_json(path, facts)
    return facts


# ---- what is to be done


def short(method: str) -> str:
    return method.replace(', ', '-').replace(' ', '-')


@cache
def read(path: Path):
    return json.loads(path.read_text(encoding='utf-8'))


def cells_of(options) -> list:
    """What was asked for."""
    cells = [cell for part in options.parts for cell in PARTS[part]]
    return [cell for cell in cells if options.data in (None, cell.data)]


def trials_of(cell: Cell, method: str, inherited: dict, options) -> list:
    """The trainings on validation data that choose a method's settings."""
    tries = CONTENDERS[method].trials[: options.trials]
    return [Job(cell, method, json.dumps(inherited | trial, sort_keys=True), 0, False) for trial in tries]


def chosen(cell: Cell, method: str, options) -> dict | None:
    """What validation chose for a method; None: its trials are not all there."""
    if cell.data == 'amazon-book':  # published settings, of our kept runs
        return {'reg': 1e-5 if cell.base in ('SimGCL', 'SGL') else 1e-6} | ({'s2dr': 0.05} if method != 'base' else {})
    own = cell.settings_of or cell
    inherited = {} if method == 'base' else chosen(own, 'base', options)
    if inherited is None:
        return None
    trials = trials_of(own, method, inherited, options)
    if not all(trial.path(options.work).is_file() for trial in trials):
        return None
    found = [read(trial.path(options.work)) for trial in trials]
    return max(found, key=lambda facts: facts['valid recall@20'])['settings']


def seeds_of(cell: Cell, method: str, settings: dict, options) -> list:
    """The trainings that are tested."""
    told = json.dumps(settings, sort_keys=True)
    return [Job(cell, method, told, seed, True) for seed in range(1, min(cell.seeds, options.seeds) + 1)]


def usable(cell: Cell) -> list:
    """Methods that can be made of what a data set has: there is a text of everybody but on Steam."""
    return [name for name, entry in CONTENDERS.items() if not entry.needs or cell.data != 'steam-sub']


def best_rivals(cell: Cell, options) -> list:
    """The rivals that validation likes best in a cell, once all their trials are there."""
    values = {}
    for method in usable(cell):
        if method == 'base' or any(word in method for word in ('ProMax', 'edges', 'AlphaRec')):
            continue  # controls, variants, and what brings its own base
        if CONTENDERS[method].needs:
            continue  # knows more than the others
        if chosen(cell, method, options) is None:
            return []
        inherited = chosen(cell, 'base', options)
        trials = [read(trial.path(options.work)) for trial in trials_of(cell, method, inherited, options)]
        values[method] = max(trial['valid recall@20'] for trial in trials)
    return sorted(values, key=lambda name: -values[name])[:RIVALS]


def methods_of(cell: Cell, options) -> list:
    """The methods of a cell, as far as they are known by now."""
    found = []
    for name in cell.methods or usable(cell):
        found += best_rivals(cell.settings_of, options) if name == 'rivals' else [name]
    return found


def pending(options) -> list:
    """Every training that can be made now and is not there, the first the most urgent."""
    jobs = []
    for cell in cells_of(options):
        for method in methods_of(cell, options):
            if options.only and method not in ('base', *options.only):
                continue
            settings = chosen(cell, method, options)
            if settings is not None:
                made = seeds_of(cell, method, settings, options)
            else:
                inherited = {} if method == 'base' else chosen(cell.settings_of or cell, 'base', options)
                if inherited is None or cell.settings_of is not None:
                    continue
                made = trials_of(cell, method, inherited, options)
            jobs += [job for job in made if not job.path(options.work).is_file()]
    order = ('base', 'ProMax')
    return sorted(jobs, key=lambda job: order.index(job.method) if job.method in order else len(order))


def take_over(options):
    """Write down the trials that a kept table knows, for cells whose choices others take over."""
    cells = json.loads(options.known.read_text(encoding='utf-8'))
    for cell in (FILMS, INDUSTRIAL, MOVIES):
        for method, entry in cells.get(cell.name, {'methods': {}})['methods'].items():
            for trial in entry.get('tried', []):
                job = Job(cell, method, json.dumps(trial['settings'], sort_keys=True), 0, False)
                if not job.path(options.work).is_file():
                    job.path(options.work).parent.mkdir(parents=True, exist_ok=True)
                    write_json(job.path(options.work), trial)


def work_through(options):
    """All trainings, side by side, until nothing is left or the time is up."""
    context, began, failed = multiprocessing.get_context('spawn'), time.monotonic(), set()
    cards = context.Value('i', options.cards)
    pool = ProcessPoolExecutor(options.jobs, context, _worker, (cards,))
    running = {}
    while True:
        late = options.seconds and time.monotonic() - began > options.seconds
        for job in [] if late else pending(options):
            if len(running) < options.jobs and job not in running.values() and job not in failed:
                running[pool.submit(trained, job, options)] = job
        if late or not running:
            break
        left = options.seconds - (time.monotonic() - began) if options.seconds else None
        done, _ = wait(running, left, FIRST_COMPLETED)
        for future in done:
            job = running.pop(future)
            try:
                facts = future.result()
            except Exception:
                failed.add(job)
                print(f'{job.cell.name} {job.file}: failed\n{traceback.format_exc()}', flush=True)
                continue
            told = facts.get('test') or f"valid {facts['valid recall@20']:.4f}"
            where, took = facts['device'], facts['seconds']
            print(f'{time.monotonic() - began:.0f} s {job.cell.name} {job.file}: {told}, {took} s, {where}', flush=True)
    for process in list((pool._processes or {}).values()) if running else []:
        process.kill()  # what they were at is made another time
    pool.shutdown(wait=False, cancel_futures=True)
    print(f'{len(failed)} failed, {len(running)} cut off, {len(pending(options))} to do', flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=Path)
    parser.add_argument('--parts', nargs='+', choices=list(PARTS), default=['A'])
    parser.add_argument('--data', choices=list(DATA), help='one data set of these parts')
    parser.add_argument('--only', nargs='+', choices=list(CONTENDERS), help='these methods, and the base')
    parser.add_argument('--prepare', action='store_true', help='vectors and added interactions only')
    parser.add_argument('--known', type=Path, help='a table whose trials need not be made again')
    parser.add_argument('--collect', type=Path, help='write the table to this file; nothing is trained')
    parser.add_argument('--cards', type=int, default=0, help='how many of the jobs use the graphics card')
    parser.add_argument('--seconds', type=float, default=0, help='stop after this long; 0: when all is done')
    for name, default in (('jobs', 1), ('seeds', 3), ('trials', 6), ('epochs', 1000), ('min-steps', 1000)):
        parser.add_argument(f'--{name}', type=int, default=default)
    options = parser.parse_args(arguments)
    options.root = Path(os.environ.get('PROMAX_DATA', '../shared/data'))
    if options.known is not None:
        take_over(options)
    if options.prepare:
        for cell in {(cell.data, cell.split, cell.dim): cell for cell in cells_of(options)}.values():
            data, *_, added = prepared(cell.data, cell.split, cell.dim, options.root, options.work)
            print(f'{cell.name}: {data!r}, {added.nnz} added', flush=True)
        return
    if options.collect is None:
        work_through(options)
        return
    from fair_table import collected  # reads what is there

    before = json.loads(options.collect.read_text(encoding='utf-8')) if options.collect.exists() else {}
    write_json(options.collect, before | collected(options, before))  # what was trained in another folder stays


if __name__ == '__main__':
    main()
