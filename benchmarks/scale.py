"""Every step of the work at three sizes: seconds and peak memory, each step in a process of its own.

    python benchmarks/scale.py --work FOLDER [--sizes 10k 100k 1m] [--only load evaluate] [--threads 2]
    python benchmarks/scale.py --work FOLDER --collect

The data are generated: as many items as users, 20 interactions a user, taste groups that events and vectors share,
vectors of 384 numbers that no text model has made. A step reads what the steps before it left in the folder and leaves
one JSON behind; a step whose JSON is there is not run again, so a run that was stopped goes on. Seconds are of the step
alone, imports apart (with --threads 1 those of the processor, so that other work beside it does not count); peak memory
is that of its process (getrusage), and what the imports of it take stands beside it.
`events20m` is `from_frame` alone, on 20 million rows: its peak stands beside the memory after the table was read. An
epoch is measured by --steps of its steps, after as many that warm up; the table says of how many. `slope` is
the exponent between two sizes: 1 means ten times the time for ten times the users.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

SIZES = {'1k': 1_000, '10k': 10_000, '100k': 100_000, '1m': 1_000_000}
PER_USER, WIDE, GROUPS = 20, 384, 200
HERE = Path(__file__).resolve().parent


def peak():
    """GiB: the most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def resident():
    """GiB: what this process holds now."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**30


def cpu_seconds():
    """Seconds that all threads of this process have worked."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Step:
    """Times one block and notes what came of it."""

    clock = time.perf_counter

    def __init__(self):
        self.facts = {}

    def __enter__(self):
        self.facts |= {'imports_gib': peak(), 'before_gib': resident()}
        self.began, self.worked = Step.clock(), cpu_seconds()
        return self

    def __exit__(self, *_):
        self.facts['seconds'] = Step.clock() - self.began
        self.facts['cpu_seconds'] = cpu_seconds() - self.worked
        self.facts['peak_gib'] = peak()


# ---------------------------------------------------------------- the generated world
def make_events(n, rows, rng):
    """Users, items (ids that are no row numbers), times of `rows` different pairs, most inside a taste group."""
    import numpy as np

    group = rng.integers(GROUPS, size=n)  # of users and of items
    by_group = np.argsort(group, kind='stable')
    starts = np.searchsorted(group[by_group], np.arange(GROUPS + 1))
    keys = np.zeros(0, np.int64)
    while len(keys) < rows:
        users = np.repeat(np.arange(n), -(-rows // n))
        taste = group[users]
        place = (rng.random(len(users)) ** 2 * np.diff(starts)[taste]).astype(np.int64)
        items = np.where(
            rng.random(len(users)) < 0.7, by_group[starts[taste] + place], rng.integers(n, size=len(users))
        )
        keys = np.unique(np.append(keys, users * n + items))
    keys = rng.permutation(keys)[:rows]
    return keys // n, keys % n, rng.integers(1_600_000_000, 1_700_000_000, len(keys)), group


def make(folder, n):
    """Events as parquet, vectors as npy."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    user, item, when, group = make_events(n, PER_USER * n, rng)
    with Step() as step:
        pd.DataFrame({'user': user * 7 + 1_000, 'item': item * 3 + 5, 'time': when}).to_parquet(
            folder / 'events.parquet'
        )
    centres, basis = rng.normal(size=(GROUPS, 48)).astype('f4'), rng.normal(size=(48, WIDE)).astype('f4')
    for side in ('users', 'items'):
        out = np.lib.format.open_memmap(folder / f'{side}-wide.npy', 'w+', np.float32, (n, WIDE))
        for start in range(0, n, 50_000):
            of = group[start : start + 50_000]
            out[start : start + len(of)] = (centres[of] + rng.normal(size=(len(of), 48)).astype('f4')) @ basis
        out.flush()
    return step.facts | {'rows': len(user)}


def read(folder):
    from promax_nb.data.saved import load

    return load(folder / 'data')


def vectors(folder):
    import numpy as np

    return [np.load(folder / f'{side}.npy') for side in ('users', 'items')]


# ---------------------------------------------------------------- the steps
def step_load(folder, options):
    """Parquet to RecData: ids, k-core, split, checks; and kept."""
    import pandas as pd
    import pyarrow.parquet  # noqa: F401

    from promax_nb.data.frames import from_frame
    from promax_nb.data.saved import save

    with Step() as step:
        data = from_frame(pd.read_parquet(folder / 'events.parquet'), threshold=None, kcore=0, split='random')
    began = time.perf_counter()
    save(data, folder / 'data')
    return step.facts | {'save_seconds': time.perf_counter() - began, 'data': repr(data)}


def step_open(folder, options):
    """A saved RecData, opened."""
    from promax_nb.data import saved  # noqa: F401

    with Step() as step:
        data = read(folder)
    return step.facts | {'data': repr(data)}


def step_split(folder, options):
    """Train, valid and test for every event, in time within each user."""
    import numpy as np

    from promax_nb.data.splits import split_events

    events = read(folder).events
    user, when = events['user'].to_numpy(), events['time'].to_numpy()
    with Step() as step:
        split_events(user, np.ones(len(user), bool), when, 'temporal')
    return step.facts


def step_whiten(folder, options):
    """384 numbers to 32."""
    import numpy as np

    from promax_nb.retrieval.embed import whiten

    wide = [np.load(folder / f'{side}-wide.npy', mmap_mode='r') for side in ('users', 'items')]
    with Step() as step:
        narrow = whiten(*wide, dim=32)
    for side, table in zip(('users', 'items'), narrow, strict=True):
        np.save(folder / f'{side}.npy', table)
    return step.facts


def step_retrieve(folder, options):
    """20 similar users of everybody: the index, and everybody's question to it."""
    import faiss  # noqa: F401

    from promax_nb.retrieval.index import Index
    from promax_nb.retrieval.search import index_recall, similar_users
    from promax_nb.retrieval.vectors import unit_rows

    users, _ = vectors(folder)
    with Step() as step:
        index = Index(unit_rows(users))
        similar_users(users, 20, index)
    return step.facts | index_recall(index)


def step_augment(folder, options):
    """Candidates of sparse users, and the interactions that are added."""
    import faiss  # noqa: F401
    from scipy import sparse

    from promax_nb.retrieval.augment import augment

    data, (users, items) = read(folder), vectors(folder)
    with Step() as step:
        added, why = augment(data, users, items)
    sparse.save_npz(folder / 'added.npz', added)
    return step.facts | {'added': int(added.nnz), 'candidates': len(why)} | {
        name: why.attrs['summary'][name] for name in ('index', 'index_recall')
    }


def timed_steps(take, every, most):
    """Seconds of the steps with the terms of ProMax and of those without, at least two of each where there are both."""
    seconds = {True: [], False: []}
    kinds = (True, False) if every > 1 else (True,)
    began = Step.clock()
    for number in range(6 * most):
        before = Step.clock()
        with_terms = take(number)
        if number >= most or number and before - began > 30:  # until then large tables are touched for the first time
            seconds[with_terms].append(Step.clock() - before)
        if sum(map(len, seconds.values())) >= most and all(len(seconds[kind]) > 1 for kind in kinds):
            break
    return {kind: sum(times) / len(times) for kind, times in seconds.items() if times}, number + 1


def one_epoch(folder, options, base, batch=4096, name='auto', **settings):
    """One epoch with both losses, worked out from its first steps."""
    import numpy as np
    import torch
    from scipy import sparse

    from promax_nb.models import bases
    from promax_nb.models.objectives import ProMax
    from promax_nb.models.optimisers import ByRows, LazyAdam, optimizer_of, squares
    from promax_nb.models.train import PairSampler

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports what optimisers import
    train, (users, items) = read(folder).train, vectors(folder)
    facts = Step()
    with facts:
        model = getattr(bases, base)(train)
        objective = ProMax(users, items, sparse.load_npz(folder / 'added.npz'), **settings)
        sampler, rng = PairSampler(train), np.random.default_rng(0)
        optimizer = optimizer_of(model, name, 1e-3, 1e-6)
        by_rows = isinstance(optimizer, LazyAdam)
        seen = ByRows(model, optimizer) if by_rows else model
        triples = [torch.from_numpy(part) for part in sampler.epoch(rng)]
        prepared = Step.clock() - facts.began
        count = -(-len(triples[0]) // batch)

        def take(number):
            start = number % count * batch
            terms = objective(seen, *(part[start : start + batch].long() for part in triples))
            if not by_rows:
                terms['reg'] = 1e-6 * squares(model)
            optimizer.zero_grad(set_to_none=True)
            sum(terms.values()).backward()
            optimizer.step()
            return any(float(terms[term].detach()) for term in ('sdr', 's2dr') if term in terms)

        every = getattr(objective, 'every', 1) if objective.sampled else 1
        seconds, steps = timed_steps(take, every, options.steps)
    each = seconds[True] / every + seconds.get(False, 0) * (1 - 1 / every)
    return facts.facts | {
        'optimizer': 'lazy' if by_rows else 'adam',
        'terms': 'sampled' if objective.sampled else 'exact',
        'prepare_seconds': prepared,
        'step_seconds': each,
        'steps': steps,
        'steps_of_an_epoch': count,
        'measured_seconds': facts.facts['seconds'],
        'seconds': prepared + each * count,
    }


def step_mf(folder, options):
    """One epoch of MF with ProMax."""
    return one_epoch(folder, options, 'MF')


def step_mf_sampled(folder, options):
    """One epoch of MF with ProMax, its terms estimated at every size; Adam moves all rows."""
    return one_epoch(folder, options, 'MF', name='adam', terms='sampled')


def step_mf_lazy(folder, options):
    """One epoch of MF with ProMax, its terms estimated at every size; the rows of a batch are moved."""
    return one_epoch(folder, options, 'MF', name='lazy', terms='sampled')


def step_lightgcn(folder, options):
    """One epoch of LightGCN with ProMax: the whole graph in every step."""
    return one_epoch(folder, options, 'LightGCN')


def step_lightgcn_large(folder, options):
    """One epoch of LightGCN with ProMax, terms estimated, in batches of 65,536: a sixteenth of the propagations."""
    return one_epoch(folder, options, 'LightGCN', batch=65_536, terms='sampled')


def step_evaluate(folder, options):
    """Metrics of 10,000 users over all items."""
    import numpy as np
    import scipy.sparse as sp
    import torch

    from promax_nb.models.evaluate import evaluate

    torch.set_num_threads(options.threads)
    data, tables = read(folder), vectors(folder)
    some = np.random.default_rng(0).permutation(data.n_users)[:10_000]
    keep = sp.diags(np.isin(np.arange(data.n_users), some).astype(np.float32))
    truth, seen = sp.csr_matrix(keep @ data.test), data.train + data.valid
    with Step() as step:
        metrics = evaluate(tuple(tables), truth, seen)
    return step.facts | {'metrics': metrics, 'users': int((np.diff(truth.indptr) > 0).sum())}


def step_events20m(folder, options):
    """`from_frame` on 20 million rows that are in memory already."""
    import pandas as pd

    from promax_nb.data.frames import from_frame

    events = pd.read_parquet(folder / 'events.parquet')
    with Step() as step:
        data = from_frame(events, threshold=None, kcore=5)
    above = step.facts['peak_gib'] - step.facts['before_gib']
    return step.facts | {'above_the_frame_gib': above, 'rows': len(events), 'data': repr(data)}


STEPS = {name.removeprefix('step_'): run for name, run in list(globals().items()) if name.startswith('step_')}


# ---------------------------------------------------------------- the rest
def in_a_process(options, size, step):
    """One step, its own process; its JSON."""
    out = options.work / size / f'{step}.json'
    if out.exists() and not options.again:
        return json.loads(out.read_text())
    threads = str(options.threads)
    env = os.environ | {'OMP_NUM_THREADS': threads, 'OMP_WAIT_POLICY': 'passive'}
    command = [
        sys.executable,
        __file__,
        '--work',
        str(options.work),
        '--threads',
        threads,
        '--steps',
        str(options.steps),
    ]
    done = subprocess.run([*command, '--one', size, step], env=env, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f'{size} {step}: ended with {done.returncode}', file=sys.stderr)
        return None
    return json.loads(out.read_text())


def one(options, size, step):
    """What the process of a step does."""
    folder = options.work / size
    folder.mkdir(parents=True, exist_ok=True)
    if options.threads == 1:
        Step.clock = time.process_time
    facts = make(folder, SIZES[size]) if step == 'make' else STEPS[step](folder, options)
    facts |= {'threads': options.threads, 'size': SIZES[size]}
    part = folder / f'{step}.part'
    part.write_text(json.dumps(facts, indent=1))
    part.replace(folder / f'{step}.json')


def slope(small, large, measure):
    """The exponent between two sizes."""
    import math

    if not small or not large or min(small[measure], large[measure]) <= 0:
        return None
    return round(math.log(large[measure] / small[measure]) / math.log(large['size'] / small['size']), 2)


def collect(options):
    """All JSON files of the folder as one, with slopes; and the table."""
    found = {}
    for step in STEPS:
        files = {size: options.work / size / f'{step}.json' for size in SIZES}
        found[step] = {size: json.loads(file.read_text()) for size, file in files.items() if file.exists()}
    rows = []
    for step, sizes in found.items():
        names = [size for size in SIZES if size in sizes]
        slopes = [slope(sizes[a], sizes[b], 'seconds') for a, b in zip(names, names[1:], strict=False)]
        rows.append({'step': step, 'slopes': slopes} | sizes)
        cells = [f'{sizes[size]["seconds"]:9.1f} s {sizes[size]["peak_gib"]:6.2f} GiB' for size in names]
        print(f'{step:12}', *cells, slopes)
    machine = {'processor': platform.processor() or platform.machine(), 'cores': os.cpu_count()}
    kept = {'command': 'python benchmarks/scale.py --work FOLDER', 'machine': machine, 'steps': rows}
    out = HERE / 'results' / 'scale.json'
    out.write_text(json.dumps(kept, indent=1) + '\n')


README_SIZES = ('1k', '10k', '100k')
README_ROWS = {
    'table of events to interactions and splits': ('load',),
    'vectors to added interactions': ('whiten', 'augment'),
    'an epoch of LightGCN with both losses': ('lightgcn',),
    'ranking 10,000 users (or all) over all items': ('evaluate',),
}


def for_readme(rows):
    """The lines of the README's table, from the steps of benchmarks/results/scale.json."""
    steps = {row['step']: row for row in rows}
    lines = []
    for title, names in README_ROWS.items():
        times = [sum(steps[name][size]['seconds'] for name in names) for size in README_SIZES]
        lines.append(f'| {title} | ' + ' | '.join(f'{seconds:.2f} s' for seconds in times) + ' |')
    used = [name for names in README_ROWS.values() for name in names]
    peaks = [max(steps[name][size]['peak_gib'] for name in used) for size in README_SIZES]
    lines.append('| most memory of any of them | ' + ' | '.join(f'{peak:.1f} GiB' for peak in peaks) + ' |')
    return '\n'.join(lines)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--work', type=Path, required=True, help='folder for data and one JSON a step')
    a.add_argument('--sizes', nargs='+', default=['10k', '100k', '1m'], choices=SIZES)
    a.add_argument('--only', nargs='+', choices=['make', *STEPS], help='these steps')
    a.add_argument('--threads', type=int, default=2)
    a.add_argument('--steps', type=int, default=20, help='steps of an epoch that are measured')
    a.add_argument('--again', action='store_true', help='also what is there already')
    a.add_argument('--one', nargs=2, help=argparse.SUPPRESS)
    a.add_argument('--collect', action='store_true', help='write benchmarks/results/scale.json and print the table')
    options = a.parse_args()
    if options.one:
        return one(options, *options.one)
    if options.collect:
        return collect(options)
    wanted = options.only or ['make', *(step for step in STEPS if step != 'events20m')]
    for size in options.sizes:
        for step in wanted:
            facts = in_a_process(options, size, step)
            if facts:
                print(f'{size:5} {step:12} {facts["seconds"]:9.2f} s {facts["peak_gib"]:7.2f} GiB', flush=True)


if __name__ == '__main__':
    main()
