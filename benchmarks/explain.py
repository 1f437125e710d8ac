"""Does an item fall further without the item of the history that is named first than without another one?

    python benchmarks/explain.py

On the generated bookshop, per base and seed, 300 users and an item of the top ten of each. Every item of the history is
taken out of the graph in turn, with the same parameters, and the fall of the item is measured: in standard deviations
of the user's scores, and in ranks. The fall without the named one is compared with the mean over all others, which is
what a random one costs. Beside the sum: likeness of trained vectors as the one who names. Writes
benchmarks/results/explain.json; some minutes on one thread.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from promax_nb.data.bookshop import toy_data
from promax_nb.models.bases import GCCF, LightGCN
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.results import versions
from promax_nb.models.train import fit
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.template import template
from promax_nb.profiles.write import write
from promax_nb.recommend.build import recommender
from promax_nb.recommend.reasons import from_history, place_of, scores_without
from promax_nb.retrieval.augment import augment
from promax_nb.retrieval.embed import encode, whiten
from promax_nb.retrieval.vectors import unit_rows

SEEDS, USERS, TOP = (0, 1, 2), 300, 10
HOW = dict(batch=512, lr=3e-3, epochs=60, patience=8, min_steps=200, progress=False)


def trainings(data):
    """name -> (base, objective); profiles by the template."""
    items = write(template(), item_prompts(data))
    users = write(template(), user_prompts(data, items))
    su, si = whiten(encode(users.profile.tolist()), encode(items.profile.tolist()), dim=64)
    added, _ = augment(data, su, si)
    promax = ProMax(su, si, added, sdr=3.0, s2dr=0.01)
    return {'LightGCN': (LightGCN, BPR()), 'LightGCN, ProMax': (LightGCN, promax), 'GCCF, ProMax': (GCCF, promax)}


def standing(scores, item, shown):
    """In standard deviations of the user's scores, and as a rank."""
    among = scores[shown]
    return (scores[item] - among.mean()) / among.std(), -place_of(item, scores, shown)


def falls(served, user, item):
    """(h, 2): the fall without each item of the history, the largest part first; and the place of the closest."""
    who = served.somebody(served.users.user[user])
    shown = np.ones(served.shape[1], bool)
    shown[who.known] = False
    named = from_history(served, who, item).rows
    here = standing(who.scores['ours'], item, shown)
    there = [standing(scores_without(served, who, int(row)), item, shown) for row in named]
    units = unit_rows(served.ours.vectors[1])
    return np.array(here) - np.array(there), int(np.argmax(units[named] @ units[item]))


def against_others(lost, place):
    """What the named one costs more than the others on average."""
    return lost[place] - np.delete(lost, place, 0).mean(0)


def measured(extra):
    """Mean, 95 % interval over users, share of pairs that fall further, and at least as far."""
    mean, half = extra.mean(), 1.96 * extra.std(ddof=1) / np.sqrt(len(extra))
    return {
        'mean': round(mean, 3),
        'low': round(mean - half, 3),
        'high': round(mean + half, 3),
        'further': round(float((extra > 0).mean()), 3),
        'at_least': round(float((extra >= 0).mean()), 3),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', default=Path(__file__).parent / 'results' / 'explain.json', type=Path)
    options = parser.parse_args()
    data, rows = toy_data(), []
    for name, (base, objective) in trainings(data).items():
        for seed in SEEDS:
            served = recommender(data, fit(base(data, seed=seed), objective, data, seed=seed, **HOW))
            rng = np.random.default_rng(seed)
            users = rng.choice(data.n_users, min(USERS, data.n_users), replace=False)
            items = [int(rng.choice(found)) for found in served.ranked(users, TOP)[0]]
            found = [falls(served, int(user), item) for user, item in zip(users, items, strict=True)]
            found = [(lost, place) for lost, place in found if len(lost) > 1]
            for how in ('sum', 'likeness'):
                extra = np.array([against_others(lost, 0 if how == 'sum' else place) for lost, place in found])
                row = {'training': name, 'seed': seed, 'named_by': how, 'pairs': len(extra)}
                row |= {'deviations': measured(extra[:, 0]), 'ranks': measured(extra[:, 1])}
                rows.append(row)
                print(json.dumps(row), flush=True)
    result = {'data': repr(data), 'top': TOP, 'rows': rows, 'versions': versions()}
    options.out.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
