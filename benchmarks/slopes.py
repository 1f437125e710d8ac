"""Should texts weigh more for some users than for others? One weight for all beside weights by facts about a user.

    python benchmarks/slopes.py FAIR [--out FILE]

FAIR is the work folder of benchmarks/fair.py. On top of EASE, ItemKNN and each training of the base: the text that
validation likes best, with one weight, and with a weight that follows how many items a user has, how sharp the text is,
and what texts know of the items (`choose_slopes`). Text and scale are the same for both; half of the validation users
chooses the weights, the other half is measured, and the other way round. Test is not read.
"""

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from controls import mean_texts, vectors_of
from fair import FILMS, INDUSTRIAL, MOVIES, PARTS, kept_arrays, prepared
from fair_table import seeds_there

from promax_nb.data.storage import write_json
from promax_nb.models.closed import tuned_line
from promax_nb.models.gate import WEIGHTS, guide_choice, spaces_of, text_guides
from promax_nb.models.inference import interval, resampled
from promax_nb.models.reshape import Chosen, choose_slopes, reader_facts, reshape, values_of

METRIC = 'ndcg@20'


def both(line, guide, form, facts, data, users) -> tuple:
    """The metric of every user with one weight, and with weights by facts, each user by the other half's choice."""
    truth, seen = sp.csr_matrix(data.valid), sp.csr_matrix(data.train)
    half, one, many = (
        np.random.default_rng(0).permutation(len(users)) % 2 == 0,
        np.zeros(len(users)),
        np.zeros(len(users)),
    )
    slopes = []
    reshaped = reshape(line, {'texts': guide}, {'texts': 0.0}, seen, form)
    for choosing in (half, ~half):
        asked = [{'texts': weight} for weight in WEIGHTS]
        means = values_of(reshaped, asked, truth, seen, users[choosing], METRIC).mean(1)
        alpha = {'texts': WEIGHTS[int(means.argmax())]}
        chosen = Chosen(alpha, form, METRIC, float(means.max()), None)
        by_facts, found, _ = choose_slopes(line, {'texts': guide}, chosen, facts, truth, seen, users[choosing])
        slopes.append(alpha | {'slopes': found})
        one[~choosing], many[~choosing] = values_of(reshaped, [alpha, by_facts], truth, seen, users[~choosing], METRIC)
    return one, many, slopes


def rows_of(cell, options) -> list:
    """One row a line."""
    data, su, si, _ = prepared(cell.data, cell.split, cell.dim, options.root, options.work)
    users, items, _ = vectors_of(data, options.work / f'{cell.data}.db')
    users = mean_texts(data, items) if users is None else users
    lines = {name: tuned_line(name, data.train, data.valid, metric=METRIC)[0] for name in ('EASE', 'ItemKNN')}
    for number, file in enumerate(seeds_there(cell, 'base', options), 1):
        arrays = kept_arrays(file.with_suffix('.npz'), None)
        lines[f'LightGCN, training {number}'] = arrays['u'], arrays['i']
    first = dict([next(iter(spaces_of((users, items), (su, si)).items()))])
    guides, rows = text_guides(data.train, first), []
    for name, line in lines.items():
        found = guide_choice(line, guides, data.train, data.valid, METRIC)
        guide = guides[found.chosen['space'], found.chosen['guide']]
        facts = reader_facts(data.train, guide, items)
        one, many, slopes = both(line, guide, found.chosen['form'], facts, data, found.users)
        low, high = interval(resampled(many - one))
        row = {'cell': cell.name, 'line': name, 'users': len(one), 'alone': float(found.before.mean())}
        row |= {'one weight': float(one.mean()), 'by facts': float(many.mean()), 'low': float(low), 'high': float(high)}
        rows.append(row | {'guide': found.chosen['guide'], 'form': found.chosen['form'], 'halves': slopes})
        print(rows[-1], flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=Path)
    parser.add_argument('--out', type=Path, default=Path(__file__).parent / 'results' / 'slopes.json')
    options = parser.parse_args()
    options.root = Path(os.environ.get('PROMAX_DATA', '../shared/data'))
    options.trials, options.seeds = 6, 3
    warnings.simplefilter('ignore')
    cells = (FILMS, INDUSTRIAL, MOVIES, *PARTS['D'])
    write_json(options.out, [row for cell in cells for row in rows_of(cell, options)])


if __name__ == '__main__':
    main()
