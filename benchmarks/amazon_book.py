"""Published baselines and S2DR on Amazon-book, several seeds, resumable.

    python benchmarks/amazon_book.py DATA_FOLDER --out runs/amazon [--only lightgcn lightgcn13 gccf simgcl s2dr]
    [--seeds 1 2 3]

Every (configuration, seed) is one training with its own checkpoint in --out and one JSON of numbers in
benchmarks/results/amazon_book. What has its JSON is not
run again. Choices use validation only: the test split is read once, by the model that validation chose.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from promax_nb.data.published import from_rlmrec
from promax_nb.models.bases import GCCF, LightGCN, SimGCL
from promax_nb.models.evaluate import evaluate, held_out
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.results import versions
from promax_nb.models.train import fit

PUBLISHED = {  # Recall@20, NDCG@20, and where the number is from
    'lightgcn': (0.1411, 0.0856, 'published baseline'),
    'lightgcn13': (0.147, None, 'our earlier measurement'),
    'gccf': (0.1343, 0.0807, 'published baseline'),
    'simgcl': (0.1512, 0.0919, 'published baseline'),
    's2dr': (0.160, 0.098, 'our earlier measurement'),
}

TITLES = {
    'lightgcn': 'LightGCN, layers 0..3, 80 % of edges',
    'lightgcn13': 'LightGCN, layers 1..3',
    'gccf': 'GCCF',
    'simgcl': 'SimGCL',
    's2dr': 'LightGCN, layers 1..3, + S2DR 0.05 over the published augmented matrix',
}


def build(name, data, seed):
    """Model, objective and training settings of one configuration."""
    common = {'seed': seed, 'patience': 20, 'min_steps': 3000}
    if name == 'lightgcn':
        return LightGCN(data, edge_drop=0.2, seed=seed), BPR(), common
    if name == 'lightgcn13':
        return LightGCN(data, sum_layers=(1, 2, 3), seed=seed), BPR(), common
    if name == 'gccf':
        return GCCF(data, seed=seed), BPR(), common
    if name == 'simgcl':
        return SimGCL(data, seed=seed), BPR(), common | {'reg': 1e-5, 'min_steps': 0}
    if name == 's2dr':
        added = data.extras['augmented'] - data.extras['augmented'].multiply(data.train)
        added.eliminate_zeros()
        promax = ProMax(added=added, sdr=0, s2dr=0.05, terms='exact')
        return LightGCN(data, sum_layers=(1, 2, 3), seed=seed), promax, common
    raise ValueError(f'unknown configuration {name!r}: choose from {", ".join(TITLES)}.')


def one(name, seed, data, out, results):
    """Train and measure one configuration with one seed, unless that is done."""
    target = results / f'{name}-{seed}.json'
    if target.exists():
        return
    model, objective, settings = build(name, data, seed)
    began = time.time()
    result = fit(model, objective, data, folder=out / f'{name}-{seed}', **settings)
    scores = {
        mask: evaluate(result.users, result.items, *held_out(data, 'test', mask)) for mask in ('train', 'train+valid')
    }
    result.save(out / f'{name}-{seed}')
    target.write_text(
        json.dumps(
            {
                'name': name,
                'seed': seed,
                'title': TITLES[name],
                'reference': PUBLISHED[name],
                'test': scores,
                'valid recall@20': result.best_score,
                'best_epoch': result.best_epoch,
                'epochs': len(result.history),
                'seconds per epoch (median)': float(np.median(result.history.seconds)),
                'wall seconds': time.time() - began,
                'threads': torch.get_num_threads(),
                'versions': versions(),
            },
            indent=1,
        )
    )
    print(
        target.name,
        {k: round(v, 4) for k, v in scores['train'].items() if k in ('recall@20', 'ndcg@20')},
        'best epoch',
        result.best_epoch,
        flush=True,
    )


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', type=Path, help='folder with trn_mat.pkl, val_mat.pkl, tst_mat.pkl, new_trn_rag_mat.pkl')
    p.add_argument('--out', type=Path, default=Path('runs/amazon'), help='folder for checkpoints and results')
    p.add_argument('--only', nargs='+', default=list(TITLES), choices=list(TITLES), help='configurations')
    p.add_argument('--seeds', nargs='+', type=int, default=[1, 2, 3])
    p.add_argument('--threads', type=int, default=None, help='torch threads')
    p.add_argument(
        '--results', type=Path, default=Path(__file__).parent / 'results' / 'amazon_book', help='folder for the numbers'
    )
    a = p.parse_args()
    a.results.mkdir(parents=True, exist_ok=True)
    if a.threads:
        torch.set_num_threads(a.threads)
    data = from_rlmrec(a.data)
    for seed in a.seeds:
        for name in a.only:
            one(name, seed, data, a.out, a.results)


if __name__ == '__main__':
    main()
