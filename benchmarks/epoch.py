"""Epochs at Amazon-book size of this house and of an earlier one, in turn, in one process.

    python benchmarks/epoch.py --against FOLDER [--threads 2] [--rounds 3] [--out FILE]

FOLDER is another checkout (`git worktree add FOLDER COMMIT`). Both houses train MF, LightGCN, and LightGCN with both
losses of ProMax through `fit`, on the generated interactions of `benchmarks/step.py`; an epoch's seconds are those of
the history, the median over the rounds. One step with both losses is also compared, in its loss and its gradients.
"""

import argparse
import importlib
import importlib.util
import json
import platform
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import scipy.sparse as sp
import torch
from step import world

HERE = Path(__file__).resolve().parent.parent
ROOMS = ('models.bases', 'models.objectives', 'models.train')


def house(folder: Path, name: str) -> SimpleNamespace:
    """The classes of a checkout, imported under a name of its own."""
    package = folder / 'promax_nb'
    spec = importlib.util.spec_from_file_location(
        name, package / '__init__.py', submodule_search_locations=[str(package)]
    )
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {}
    for room in ROOMS:
        found |= vars(importlib.import_module(f'{name}.{room}'))
    return SimpleNamespace(**found)


def pair(of, train, added, su, si, kind: str):
    """A base and an objective."""
    base = of.MF(train) if kind == 'MF' else of.LightGCN(train, sum_layers=(1, 2, 3))
    objective = of.ProMax(su, si, added, sdr=1.5, s2dr=0.05) if kind == 'ProMax' else of.BPR()
    return base, objective


def one_step(of, made, triples) -> tuple:
    """Loss and gradient of one batch."""
    model, objective = made
    loss = sum(objective(model, *triples).values())
    loss.backward()
    return float(loss.detach()), torch.cat([model.user.grad, model.item.grad])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--against', type=Path, required=True)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--kinds', default='MF,LightGCN,ProMax')
    parser.add_argument('--out', type=Path)
    options = parser.parse_args()
    warnings.simplefilter('ignore')
    houses = {'before': house(options.against.resolve(), 'promax_before'), 'now': house(HERE, 'promax_now')}
    torch.set_num_threads(options.threads)
    train, added = world(None)
    rng = np.random.default_rng(1)
    su, si = (rng.normal(size=(count, 32)).astype(np.float32) for count in train.shape)
    data = SimpleNamespace(train=train, valid=sp.csr_matrix(train.shape, dtype=np.float32), name='drawn', meta={})
    result = {'threads': options.threads, 'torch': torch.__version__, 'machine': platform.machine()}
    for kind in options.kinds.split(','):
        made = {side: pair(of, train, added, su, si, kind) for side, of in houses.items()}
        epochs = 1 if kind == 'ProMax' else 4
        seconds = {side: [] for side in houses}
        for turn in range(options.rounds + 1):
            for side, of in houses.items():
                fitted = of.fit(*made[side], data, epochs=epochs, validate=False, progress=False)
                seconds[side] += fitted.history.seconds.tolist() if turn else []
        middle = {side: float(np.median(taken)) for side, taken in seconds.items()}
        least = {side: min(taken) for side, taken in seconds.items()}
        ratios = {'ratio': middle['now'] / middle['before'], 'ratio of the least': least['now'] / least['before']}
        result[kind] = {'epoch, seconds': middle, 'least': least} | ratios
        print(kind, result[kind], flush=True)
    triples = [torch.from_numpy(x[:4096].astype(np.int64)) for x in houses['now'].PairSampler(train).epoch(rng)]
    steps = {side: one_step(of, pair(of, train, added, su, si, 'ProMax'), triples) for side, of in houses.items()}
    (loss, gradient), (our_loss, our_gradient) = steps.values()
    result['one step with both losses'] = {
        'loss difference (relative)': abs(our_loss - loss) / abs(loss),
        'gradient difference (relative)': float((our_gradient - gradient).norm() / gradient.norm()),
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
