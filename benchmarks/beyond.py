"""How often an interval of a coverage or a Gini coefficient holds the truth, where the truth is known.

    python benchmarks/beyond.py

Two recommenders show lists to 20,000 simulated people. 300 of them are drawn, 1,000 times over; the mean over all
draws is the truth about 300 people. Each draw makes a 95 % interval in two ways: percentiles of people drawn with
replacement (bootstrap), and the contributions of `promax_nb.models.exposure` (jackknife), for base, ours and their
difference. Writes benchmarks/results/beyond.json; a minute on one thread.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from promax_nb.models.exposure import coverage_by_user, gini_by_user, rank_weights, shown_to

PEOPLE, ITEMS, LENGTH, DRAWN = 20_000, 600, 10, 300


def lists_of(steepness, seed):
    """Lists of everybody: items that are liked less and less, and a taste of each person."""
    rng = np.random.default_rng(seed)
    liking = rng.gumbel(size=(PEOPLE, ITEMS)) - steepness * np.arange(ITEMS) / ITEMS
    return np.argpartition(-liking, LENGTH, axis=1)[:, :LENGTH]


def coverages(counts):
    return (counts > 0).mean(-1)


def ginis(counts):
    amounts = np.sort(counts, axis=-1)
    return amounts @ rank_weights(ITEMS) / (ITEMS * amounts.sum(-1))


MEASURES = {'coverage': (coverages, coverage_by_user), 'gini': (ginis, gini_by_user)}


def one_draw(sides, rng, n_boot=400):
    """Estimates and both intervals, by measure; each for base, ours and their difference."""
    rows = rng.choice(PEOPLE, DRAWN, replace=False)
    again = rng.multinomial(DRAWN, np.full(DRAWN, 1 / DRAWN), n_boot).astype(float)
    counts = [again @ shown_to(lists[rows], ITEMS) for lists in sides]
    found = {}
    for name, (measure, by_user) in MEASURES.items():
        base, ours = (by_user(lists[rows], ITEMS) for lists in sides)
        contributions = np.stack([base, ours, ours - base])
        estimate, half = contributions.mean(1), 1.96 * contributions.std(1, ddof=1) / np.sqrt(DRAWN)
        drawn = np.stack([measure(one) for one in counts])
        bootstrap = np.quantile(np.vstack([drawn, drawn[1] - drawn[0]]), [0.025, 0.975], axis=1)
        found[name] = estimate, bootstrap, np.stack([estimate - half, estimate + half])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--draws', type=int, default=1000)
    parser.add_argument('--out', default=Path(__file__).parent / 'results' / 'beyond.json', type=Path)
    options = parser.parse_args()
    sides, rng = (lists_of(12, 1), lists_of(9, 2)), np.random.default_rng(0)
    draws = [one_draw(sides, rng) for _ in range(options.draws)]
    table = {'people': PEOPLE, 'drawn': DRAWN, 'items': ITEMS, 'length': LENGTH, 'draws': options.draws}
    for name in MEASURES:
        estimates, *intervals = (np.stack([draw[name][part] for draw in draws]) for part in range(3))
        truth = estimates.mean(0)
        table[name] = dict(zip(('base', 'ours', 'difference'), truth.round(4).tolist(), strict=True))
        for kind, ends in zip(('bootstrap', 'jackknife'), intervals, strict=True):
            held = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean(0)
            width = (ends[:, 1] - ends[:, 0]).mean(0)
            table[name][kind] = {'held': held.round(3).tolist(), 'width': width.round(4).tolist()}
    options.out.write_text(json.dumps(table, indent=1) + '\n')
    print(json.dumps(table, indent=1))


if __name__ == '__main__':
    main()
