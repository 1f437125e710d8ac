"""How often does a comparison find a difference between equals? Simulated pairs, and real trainings. Resumable.

    python benchmarks/null_pairs.py --simulate benchmarks/results/null_pairs_simulated.json
    python benchmarks/null_pairs.py DATA_FOLDER --out runs/null_pairs --collect benchmarks/results/null_pairs.json

Real: LightGCN as `promax run` trains it, twelve seeds, on amazon-industrial (no k-core, the split that it comes with).
Every two disjoint triples of the twelve are a pair of "methods" that are one. These 9,240 pairs share their trainings,
so the rate's own interval is a jackknife over trainings. Every finished training is kept.
"""

import argparse
import json
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

from promax_nb.data.frames import from_frame
from promax_nb.models.bases import LightGCN
from promax_nb.models.evaluate import user_metrics
from promax_nb.models.inference import paired_p, two_level
from promax_nb.models.objectives import BPR
from promax_nb.models.results import load_fit, versions
from promax_nb.models.train import TrainConfig, fit

CONFIG = TrainConfig(batch=2048)
USERS = (300, 5_000, 20_000)
SPREADS = (0.0, 0.02, 0.05, 0.1, 0.3)
RULES = {
    'users alone': 'paired t over users, as in 0.2.0',
    'trainings alone': "Welch's t over the trainings' means",
    'sum': 'variance over users + variance over trainings, nothing subtracted',
    'degrees after': 'components, degrees of freedom from what is left after subtraction',
    'two levels': 'two_level: components, degrees of freedom from what was measured',
}


def null_pairs(n_users, n_pairs, spread, seed):
    """One method trained 3 + 3 times, n_pairs times: few users with hits, each worth less the more a user holds."""
    draw = np.random.default_rng(seed)
    chance = draw.beta(0.15, 1.5, (n_users, 1))
    worth = 1 / draw.geometric(0.4, (n_users, 1))
    trained = np.exp(spread * draw.normal(size=(6, 1, n_pairs)))
    values = (draw.random((6, n_users, n_pairs), dtype=np.float32) < chance * trained) * worth
    return values[:3], values[3:]


def pieces(base, ours):
    """Difference, variance over users, each side's variance over trainings and the part of it in users."""
    difference = (ours.mean(0) - base.mean(0)).mean(0)
    users = (ours.mean(0) - base.mean(0)).var(0, ddof=1) / base.shape[1]
    sides = []
    for values in (base, ours):
        n, n_users = values.shape[:2]
        rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean((0, 1))
        both = np.square(rest).sum((0, 1)) / (n - 1) / (n_users - 1) / n / n_users
        sides.append((values.mean(1).var(0, ddof=1) / n, both))
    return difference, users, sides


def p_values(base, ours):
    """Rule -> p-value of every pair."""
    difference, users, (one, other) = pieces(base, ours)
    n_users, trainings, both = base.shape[1], one[0] + other[0], one[1] + other[1]
    beyond = np.maximum(trainings - both, 0)
    few = (one[0] ** 2 + other[0] ** 2) / 2
    left = few * np.square(beyond / trainings)

    def p(variance, unsure):
        return 2 * stats.t.sf(np.abs(difference) / np.sqrt(variance), np.square(variance) / unsure)

    return {
        'users alone': paired_p(base.mean(0), ours.mean(0)),
        'trainings alone': p(trainings, few),
        'sum': p(users + trainings, few + users**2 / (n_users - 1)),
        'degrees after': p(users + beyond, left + users**2 / (n_users - 1)),
        'two levels': two_level(base, ours).method_p.to_numpy(),
    }


def simulate(n_pairs, file):
    """Rates of every rule in every setting: of equals, and where ours gains four standard errors."""
    rows = []
    for n_users in USERS:
        chunk = min(n_pairs, 1_000_000 // n_users)
        for spread in SPREADS:
            pairs = [null_pairs(n_users, chunk, spread, seed) for seed in range(-(-n_pairs // chunk))]
            equals = [p_values(*pair) for pair in pairs]
            error = np.concatenate([pieces(*pair)[0] for pair in pairs]).std()
            gains = [p_values(base, ours + 4 * error) for base, ours in pairs]
            for rule in RULES:
                found = [np.concatenate([p[rule] for p in ps]) < 0.05 for ps in (equals, gains)]
                row = {'users': n_users, 'spread': spread, 'rule': rule, 'pairs': len(found[0])}
                rows.append({**row, 'differ': found[0].mean(), 'found': found[1].mean()})
            print(n_users, spread, {row['rule']: round(row['differ'], 3) for row in rows[-len(RULES) :]}, flush=True)
    write({'rules': RULES, 'rows': rows, 'gain': '4 standard errors', 'versions': versions()}, file)


def write(found, file):
    """JSON with short numbers."""
    Path(file).write_text(json.dumps(found, indent=1, default=lambda x: round(float(x), 6)), encoding='utf-8')


def load(folder):
    """amazon-industrial as it is, with the split that it comes with."""
    tables = [pd.read_csv(folder / f'industrial-{name}.csv', dtype=str) for name in ('events', 'items')]
    tables[0]['time'] = tables[0]['time'].astype(int)
    return from_frame(*tables, split='split', kcore=0, name='amazon-industrial')


def train(data, seeds, out):
    """One training per seed, kept."""
    for seed in seeds:
        folder = out / f'LightGCN-{seed}'
        if (folder / 'card.json').exists():
            continue
        began = time.time()
        result = fit(LightGCN(data, seed=seed), BPR(), data, CONFIG, folder, seed=seed)
        result.save(folder)
        found = f'valid {result.best_score:.4f}, epoch {result.best_epoch}, {time.time() - began:.0f} s'
        print(f'seed {seed}: {found}', flush=True)


def triples(n):
    """Every two disjoint triples of n trainings, once."""
    for six in combinations(range(n), 6):
        for rest in combinations(six[1:], 2):
            one = (six[0], *rest)
            yield one, tuple(k for k in six if k not in one)


def jackknife(found, pairs, n):
    """The rate among pairs that share trainings, with a 95 % interval over trainings."""
    uses = np.zeros((len(pairs), n), bool)
    for row, pair in enumerate(pairs):
        uses[row, list(pair[0] + pair[1])] = True
    without = np.array([found[~uses[:, k]].mean() for k in range(n)])
    error = np.sqrt((n - 1) / n * np.square(without - without.mean()).sum())
    half = stats.t.ppf(0.975, n - 1) * error
    rate = found.mean()
    return {'rate': rate, 'low': max(0.0, rate - half), 'high': min(1.0, rate + half)}


def collect(data, seeds, out, file):
    """The rate of every rule among all pairs of disjoint triples."""
    fits = [load_fit(out / f'LightGCN-{seed}') for seed in seeds]
    tables = user_metrics(fits, data, 'test', (20,))
    values = np.stack(tables)
    pairs = list(triples(len(seeds)))
    found = {rule: [] for rule in RULES}
    for one, other in pairs:
        for rule, p in p_values(values[list(one)], values[list(other)]).items():
            found[rule].append(p < 0.05)
    means = pd.DataFrame([table.mean() for table in tables])
    rows = []
    for place, metric in enumerate(tables[0]):
        about = {'metric': metric, 'mean': means[metric].mean(), 'sd over trainings': means[metric].std()}
        for rule, differ in found.items():
            rate = jackknife(np.array(differ)[:, place], pairs, len(seeds))
            rows.append({**about, 'rule': rule, **rate})
            print(f'{metric:14} {rule:16} {rate["rate"]:.3f} [{rate["low"]:.3f}, {rate["high"]:.3f}]')
    settings = {name: getattr(CONFIG, name) for name in ('batch', 'lr', 'reg', 'patience', 'min_steps')}
    epochs = [result.best_epoch for result in fits]
    about = {'data': repr(data), 'users': len(tables[0]), 'seeds': seeds, 'pairs': len(pairs), 'best epochs': epochs}
    write({**about, 'settings': settings, 'rules': RULES, 'rows': rows, 'versions': versions()}, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, nargs='?', help='folder with industrial-events.csv and industrial-items.csv')
    parser.add_argument('--out', type=Path, default=Path('runs/null_pairs'), help='folder for trainings')
    parser.add_argument('--trainings', type=int, default=12)
    parser.add_argument('--threads', type=int)
    parser.add_argument('--collect', type=Path, help='write the rates of the real pairs here')
    parser.add_argument('--simulate', type=Path, help='write the rates of simulated pairs here')
    parser.add_argument('--pairs', type=int, default=2000, help='simulated pairs of each setting')
    options = parser.parse_args()
    if not options.data and not options.simulate:
        parser.error('the data folder is needed (or --simulate FILE).')
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.simulate:
        simulate(options.pairs, options.simulate)
    if options.data:
        options.out.mkdir(parents=True, exist_ok=True)
        data, seeds = load(options.data), list(range(options.trainings))
        train(data, seeds, options.out)
        if options.collect:
            collect(data, seeds, options.out, options.collect)


if __name__ == '__main__':
    main()
