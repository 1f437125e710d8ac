"""Base against SDR, S2DR and ProMax on ML-100K with real item text: both bases, three seeds, controls. Resumable.

    python benchmarks/ml100k.py DATA_FOLDER --out runs/ml100k [--collect FILE]

Weights are chosen first, on validation data of seed 0 (`tune`, whose data has no test split); seeds 1 to 3 are then
trained with the chosen weights and
compared on test. Every finished training is kept and not run again. `--world toy` does the same on the generated
bookshop, without a data folder. Both are split at random within each user; `--split temporal` holds out the last
events of each user (into an --out of its own).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from promax_nb.data.bookshop import toy_data
from promax_nb.data.loaders import from_atomic
from promax_nb.models.bases import MF, LightGCN
from promax_nb.models.inference import compare
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.results import load_fit, versions
from promax_nb.models.train import TrainConfig, fit, tune
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.template import template
from promax_nb.profiles.write import write
from promax_nb.retrieval.augment import augment
from promax_nb.retrieval.embed import encode, whiten

BASES = {'LightGCN': LightGCN, 'MF': MF}
WIDTH = 64
GRID = {'sdr': [0.1, 0.5, 1.5, 5.0], 's2dr': [0.002, 0.01, 0.05, 0.2]}


class World:
    """Data, profile vectors in both bases, and added interactions from each."""

    def __init__(self, data, out):
        self.data = data
        items = write(template(), item_prompts(data), store=out / 'profiles.db')
        users = write(template(), user_prompts(data, items), store=out / 'profiles.db')
        raw = [encode(t.profile.tolist(), cache=out / 'vectors.db') for t in (users, items)]
        self.vectors = {b: whiten(*raw, dim=WIDTH, shared=b == 'shared') for b in ('shared', 'separate')}
        self.added = {b: augment(data, *v)[0] for b, v in self.vectors.items()}
        self.shuffled = np.random.default_rng(0).permutation(data.n_users)

    def objective(self, basis='shared', confidence='published', sdr=0.0, s2dr=0.0, shuffle=False, teacher_tau=None):
        su, si = self.vectors[basis]
        return ProMax(
            su[self.shuffled] if shuffle else su,
            si,
            self.added[basis],
            sdr,
            s2dr,
            confidence=confidence,
            teacher_tau=teacher_tau,
        )


def cases(sdr, s2dr):
    """Name -> arguments of World.objective; None is the base."""
    out = {'base': None}
    for basis in ('shared', 'separate'):
        for form in ('published', 'relative'):
            out[f'SDR, {basis} basis, {form} weights'] = dict(basis=basis, confidence=form, sdr=sdr)
    for basis in ('shared', 'separate'):
        out[f'S2DR, {basis} basis'] = dict(basis=basis, s2dr=s2dr)
    for basis in ('shared', 'separate'):
        for form in ('published', 'relative'):
            out[f'ProMax, {basis} basis, {form} weights'] = dict(basis=basis, confidence=form, sdr=sdr, s2dr=s2dr)
    out['SDR, profiles shuffled over users'] = dict(sdr=sdr, shuffle=True)
    return out


def choose(world, base, config, out):
    """Weights with the best validation Recall@20, each loss alone, seed 0."""
    file = out / f'chosen-{base}.json'
    if not file.exists():
        found = {}
        for name, values in GRID.items():
            t = tune(
                lambda: BASES[base](world.data, seed=0),
                lambda **c: world.objective(**c),
                {name: values},
                world.data,
                config,
                out / f'tune-{base}-{name}',
            )
            found[name] = {'chosen': float(t[name][0]), 'tried': t.to_dict('records')}
        file.write_text(json.dumps(found, indent=1))
    return json.loads(file.read_text())


KEPT = ('base', 'ours', 'difference', 'low', 'high', 'p', 'ours_sd', 'method_low', 'method_high', 'method_p')


def collect(world, out, file, seeds, config):
    """Compare every case with its own base; numbers only."""
    settings = {k: getattr(config, k) for k in ('batch', 'lr', 'reg', 'patience', 'min_steps')}
    result = {
        'data': repr(world.data),
        'seeds': seeds,
        'versions': versions(),
        'settings': settings,
        'width': WIDTH,
        'bases': {},
    }
    for base in BASES:
        chosen, rows = choose(world, base, config, out), []
        runs = {name: [load_fit(out / f'{base}-{k}-{s}') for s in seeds] for k, name in enumerate(cases(0, 0))}
        for name, fits in runs.items():
            t = compare(runs['base'], fits, world.data)
            teacher = fits[0].card['objective'].get('teacher', {})
            row = {
                'case': name,
                'epochs': float(np.mean([f.best_epoch for f in fits])),
                'at floor': teacher.get('share_at_floor'),
                'seconds per epoch': float(np.median(np.concatenate([f.history.seconds for f in fits]))),
            }
            for m in ('recall@20', 'ndcg@20'):
                row[m] = {k: float(t.loc[m, k]) for k in KEPT}
            rows.append(row)
            r = row['recall@20']
            print(
                f"{base:9} {name:42} R@20 {r['ours']:.4f}  {r['difference']:+.4f} [{r['low']:+.4f}, "
                    f"{r['high']:+.4f}]  N@20 {row['ndcg@20']['ours']:.4f}"
            )
        result['bases'][base] = {'chosen': chosen, 'rows': rows}
    Path(file).write_text(json.dumps(result, indent=1, default=float))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', type=Path, nargs='?', help='folder with ml-100k.inter, ml-100k.item and items_info.json')
    p.add_argument('--world', choices=('ml100k', 'toy'), default='ml100k')
    p.add_argument('--split', choices=('random', 'temporal'), default='random', help='within each user')
    p.add_argument('--out', type=Path, default=Path('runs/ml100k'), help='folder for trainings')
    p.add_argument('--seeds', nargs='+', type=int, default=[1, 2, 3])
    p.add_argument('--only', nargs='+', default=list(BASES), choices=list(BASES), help='bases')
    p.add_argument('--threads', type=int)
    p.add_argument('--collect', type=Path, help='write the numbers here and stop')
    a = p.parse_args()
    if a.world == 'ml100k' and not a.data:
        p.error('the ML-100K folder is needed (or --world toy).')
    if a.threads:
        torch.set_num_threads(a.threads)
    a.out.mkdir(parents=True, exist_ok=True)
    config = (
        TrainConfig(batch=2048, min_steps=500, patience=10)
        if a.world == 'ml100k'
        else TrainConfig(batch=512, lr=3e-3, min_steps=300, patience=10)
    )
    world = World(from_atomic(a.data, split=a.split) if a.world == 'ml100k' else toy_data(1000, 500), a.out)
    if a.collect:
        return collect(world, a.out, a.collect, a.seeds, config)
    for base in a.only:
        chosen = {k: v['chosen'] for k, v in choose(world, base, config, a.out).items()}
        print(base, 'chosen on validation:', chosen, flush=True)
        for seed in a.seeds:
            for k, (name, how) in enumerate(cases(**chosen).items()):
                folder = a.out / f'{base}-{k}-{seed}'
                if (folder / 'card.json').exists():
                    continue
                began = time.time()
                objective = BPR() if how is None else world.objective(**how)
                result = fit(BASES[base](world.data, seed=seed), objective, world.data, config, folder, seed=seed)
                result.save(folder)
                print(
                    (f'{base} seed {seed} {name}: valid {result.best_score:.4f}, epoch '
                        f'{result.best_epoch}, {time.time() - began:.0f} s'),
                    flush=True,
                )


if __name__ == '__main__':
    main()
