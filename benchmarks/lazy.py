"""Adam on all rows against Adam on the rows of a batch (`optimizer='lazy'`): quality and seconds of MF.

    python benchmarks/lazy.py DATA [--seeds 0,1,2] [--out FILE]      quality: DATA holds ml-100k and amazon-industrial
    python benchmarks/lazy.py --sizes 10000,100000,1000000 [--out FILE]      seconds of a step

Learning rate and batch are the same on both sides; early stopping is on validation data, test is looked at once.
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
from promax_nb.models.evaluate import evaluate
from promax_nb.models.objectives import BPR
from promax_nb.models.optimisers import ByRows, optimizer_of, squares
from promax_nb.models.train import fit

NAMES = ('adam', 'lazy')


def worlds(folder: Path) -> dict:
    """Two real data sets, read as in the other benchmarks."""
    shop = pd.read_csv(folder / 'amazon-industrial' / 'industrial-events.csv')
    industrial = from_frame(shop, split='split', time=None, kcore=0, allow_cold=True)
    return {'ml-100k': from_atomic(folder / 'ml-100k', split='random'), 'amazon-industrial': industrial}


def quality(data, seeds) -> dict:
    """Test metrics of each optimiser, over the seeds."""
    found = {}
    for name in NAMES:
        rows = []
        for seed in seeds:
            settings = dict(batch=1024, lr=2e-3, epochs=400, patience=10, min_steps=300, progress=False)
            fitted = fit(MF(data, seed=seed), BPR(), data, optimizer=name, **settings)
            scores = evaluate((fitted.users, fitted.items), data.test, data.train + data.valid, (20,))
            rows.append(scores | {'epoch': fitted.best_epoch, 'epoch seconds': fitted.history.seconds.median()})
        table = pd.DataFrame(rows)
        found[name] = {'mean': table.mean().to_dict(), 'sd': table.std().to_dict()}
        print(name, {key: round(value, 4) for key, value in found[name]['mean'].items()}, flush=True)
    return found


def step_seconds(size: int, batch: int = 4096, repeats: int = 7) -> dict:
    """Seconds of a step of MF with `size` users and as many items, for each optimiser in turn."""
    rng, few = np.random.default_rng(0), np.arange(1000)
    train = sp.csr_matrix((np.ones(1000, np.float32), (few, few)), (size, size))
    model, taken = MF(train), {name: [] for name in NAMES}
    seen_by = {'adam': model, 'lazy': ByRows(model)}
    sides = {name: (optimizer_of(model, name, 1e-3, 1e-6), seen) for name, seen in seen_by.items()}
    for turn in range(repeats + 1):
        triples = [torch.from_numpy(rng.integers(size, size=batch)) for _ in range(3)]
        for name, (optimizer, seen) in sides.items():
            began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            loss = sum(BPR()(seen, *triples).values())
            (loss if name == 'lazy' else loss + 1e-6 * squares(model)).backward()
            optimizer.step()
            taken[name] += [time.perf_counter() - began] if turn else []
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, nargs='?')
    parser.add_argument('--seeds', default='0,1,2')
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
