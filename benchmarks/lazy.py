"""Adam on all rows against Adam on the rows of a batch (`optimizer='lazy'`): quality and seconds of MF.

    python benchmarks/lazy.py DATA [--seeds 0,1,2,3,4,5] [--out FILE]      quality, on ml-100k and amazon-industrial
    python benchmarks/lazy.py --sizes 10000,100000,1000000 [--out FILE]      seconds of a step, one thread, BPR

Learning rate, batch, start values and triples are the same on both sides; early stopping is on validation data, test is
looked at once. `apart` is how far both sides' vectors are from each other after 5 epochs, relative to their way.
Seconds of a step are of the processor, after all rows have been touched once.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from promax_nb.data.frames import from_frame
from promax_nb.data.loaders import from_atomic
from promax_nb.models.bases import MF
from promax_nb.models.inference import compare
from promax_nb.models.objectives import BPR
from promax_nb.models.optimisers import ByRows, optimizer_of, squares
from promax_nb.models.train import fit

NAMES = ('adam', 'lazy')


def worlds(folder: Path) -> dict:
    """Two real data sets, read as in the other benchmarks."""
    shop = pd.read_csv(folder / 'amazon-industrial' / 'industrial-events.csv')
    industrial = from_frame(shop, split='split', time=None, kcore=0, allow_cold=True)
    return {'ml-100k': from_atomic(folder / 'ml-100k', split='random'), 'amazon-industrial': industrial}


SETTINGS = dict(batch=1024, lr=2e-3, epochs=400, patience=10, min_steps=300, progress=False)
KEPT = ('base', 'ours', 'difference', 'low', 'high', 'method_low', 'method_high')


def apart(data, seed) -> float:
    """How far both trainings are from each other after five epochs, relative to the way they have come."""
    how = SETTINGS | {'epochs': 5, 'eval_every': 5}
    adam, lazy = (fit(MF(data, seed=seed), BPR(), data, optimizer=name, **how) for name in NAMES)
    begin = MF(data, seed=seed)
    steps = np.concatenate([adam.users - begin.user.detach().numpy(), adam.items - begin.item.detach().numpy()])
    between = np.concatenate([adam.users - lazy.users, adam.items - lazy.items])
    return float(np.linalg.norm(between) / np.linalg.norm(steps))


def quality(data, seeds) -> dict:
    """Both optimisers side by side on test, over users and seeds."""
    fits = {
        name: [fit(MF(data, seed=seed), BPR(), data, optimizer=name, **SETTINGS) for seed in seeds] for name in NAMES
    }
    table = compare(*fits.values(), data=data, metrics=['recall@20', 'ndcg@20'])
    found = {metric: {key: float(table.loc[metric, key]) for key in KEPT} for metric in table.index}
    for name, runs in fits.items():
        found[name] = {
            'kept epoch': float(np.mean([run.best_epoch for run in runs])),
            'epoch seconds': float(np.median(np.concatenate([run.history.seconds for run in runs]))),
        }
    print(table[list(KEPT)].round(4), flush=True)
    return found | {'seeds': seeds, 'apart': float(np.mean([apart(data, seed) for seed in seeds[:3]]))}


def step_seconds(size: int, batch: int = 4096, repeats: int = 15) -> dict:
    """Seconds of a step of MF with `size` users and as many items, for each optimiser in turn."""
    rng, few = np.random.default_rng(0), np.arange(1000)
    train = sp.csr_matrix((np.ones(1000, np.float32), (few, few)), (size, size))
    taken = {name: [] for name in NAMES}
    sides = {}
    for name in NAMES:
        model = MF(train)
        optimizer = optimizer_of(model, name, 1e-3, 1e-6)
        sides[name] = model, optimizer, ByRows(model, optimizer) if name == 'lazy' else model
    warm = max(4, 2 * size // batch // 8)  # most pages are touched by then
    for turn in range(warm + repeats):
        triples = [torch.from_numpy(rng.integers(size, size=batch)) for _ in range(3)]
        for name, (model, optimizer, seen) in sides.items():
            if name == 'adam' and 4 < turn < warm:
                continue
            began = time.process_time()
            optimizer.zero_grad(set_to_none=True)
            loss = sum(BPR()(seen, *triples).values())
            (loss if name == 'lazy' else loss + 1e-6 * squares(model)).backward()
            optimizer.step()
            taken[name] += [time.process_time() - began] if turn >= warm else []
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, nargs='?')
    parser.add_argument('--seeds', default='0,1,2,3,4,5')
    parser.add_argument('--sizes', default='')
    parser.add_argument('--out', type=Path, help='JSON; what it holds already is kept')
    options = parser.parse_args()
    kept = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    for size in filter(None, options.sizes.split(',')):
        kept.setdefault('seconds of a step', {})[size] = step_seconds(int(size))
        print(size, kept['seconds of a step'][size], flush=True)
    if options.data:
        for name, data in worlds(options.data).items():
            kept[name] = quality(data, [int(seed) for seed in options.seeds.split(',')])
    if options.out:
        options.out.write_text(json.dumps(kept, indent=1) + '\n')


if __name__ == '__main__':
    main()
