"""Do other libraries measure the same? `make test-outside` asks those that want another environment than ours.

    python tests/outside.py [rectools lenskit recbole] [--check]

Each library gets an environment of its own in .cache/outside (kept for the next time), reads lists, answers and events
as files, measures them with tests/outside/in_LIBRARY.py, and its numbers are kept in tests/outside/LIBRARY.json.
`--check` compares what is kept with our code and asks nobody; tests/test_outside.py does the same.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from promax_nb.data.interactions import RecData
from promax_nb.models.evaluate import held_out, per_user, topk
from promax_nb.models.exposure import (
    coverage,
    gini,
    list_diversity,
    list_popularity,
    novelty,
    rank_biased_overlap,
    shown_to,
)
from promax_nb.recommend.outside import lists_scorer, to_interactions, to_lenskit, to_rectools

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / 'tests' / 'outside'
PLACE = ROOT / '.cache' / 'outside'
KS = (5, 10)
LIBRARIES = {  # what `pip install` gets; torch is the one of constraints.txt, so that none comes with CUDA here
    'rectools': ['rectools==0.19.0'],
    'lenskit': ['lenskit==2025.8.1', 'torch==2.13.0', 'pandas<3'],
    'recbole': [
        'recbole==1.2.1',
        'torch==2.13.0',
        'numpy==1.23.5',  # it uses np.float, which 1.24 took away
        'scipy==1.10.1',
        'pandas==1.5.3',
        'scikit-learn==1.3.2',
    ],
}
FORMAT = {'rectools': to_rectools, 'lenskit': to_lenskit, 'recbole': to_rectools}


# ---- what is measured


def world(n_users=40, n_items=60, seed=12) -> tuple:
    """Data with ids of all kinds, and two tables of lists: many equal scores, short lists, a user without one."""
    rng = np.random.default_rng(seed)
    part = rng.random((n_users, n_items))
    part[:3] = np.select([part[:3] < 0.85, part[:3] < 0.92], [part[:3] * 0.2, 0.3], 0.99)  # who know nearly everything
    part[2] = 0.1
    part[2, 5] = 0.3  # one for whom a single item is left
    part[5:9] = np.where(part[5:9] > 0.5, 0.3, part[5:9])  # four with more right answers than places in a list
    part[3][part[3] < 0.4] += 0.4  # one without right answers
    part[3, 0] = 0.1
    cuts = {'train': (0, 0.2), 'valid': (0.2, 0.25), 'test': (0.25, 0.35)}
    matrices = {name: sp.csr_matrix(((part >= a) & (part < b)).astype(np.float32)) for name, (a, b) in cuts.items()}
    users = pd.DataFrame({'user': [f'reader {i}' if i % 2 else f'ü{i}%' for i in range(n_users)]})
    items = pd.DataFrame({'item': [f'Book/{i}, vol. 1' if i % 3 else str(100 - i) for i in range(n_items)]})
    data = RecData(**matrices, users=users, items=items, name='outside')
    return data, *(lists_of(data, rng.integers(0, 4, (n_users, n_items))) for _ in range(2))


def lists_of(data, scores, n=20) -> pd.DataFrame:
    """The best n unseen items of each user but the last, in people's ids; equal scores by item row."""
    seen = held_out(data)[1].toarray() > 0
    rows = []
    for user in range(data.n_users - 1):
        unseen = [item for item in range(data.n_items) if not seen[user, item]]
        best = sorted(unseen, key=lambda item: (-scores[user, item], item))[:n]
        rows += [(user, item, place, float(scores[user, item])) for place, item in enumerate(best, 1)]
    table = pd.DataFrame(rows, columns=['user', 'item', 'rank', 'score'])
    table['user'] = table['user'].map(data.users['user'])
    return table.assign(item=table['item'].map(data.items['item']))


def item_vectors(data) -> np.ndarray:
    """(N, 6) vectors for the diversity of lists."""
    return np.random.default_rng(3).normal(size=(data.n_items, 6))


def fingerprint(data, lists) -> str:
    """Changes when the lists or the right answers do: kept numbers belong to one of these."""
    text = lists.to_csv(index=False) + to_interactions(data, 'test').to_csv() + to_interactions(data, 'train').to_csv()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Ours:
    """Our numbers on the lists, and what a conversion needs."""

    def __init__(self, data, lists, other):
        truth, seen = held_out(data)
        self.data, self.scorer = data, lists_scorer(lists, data)
        self.users = np.flatnonzero(np.diff(truth.indptr))
        self.names = data.users['user'].to_numpy()[self.users].tolist()
        self.table = per_user(self.scorer, truth, seen, KS)
        self.n_truth = np.diff(truth.indptr)[self.users]
        self.lists = topk(self.scorer, max(KS), seen, rows=self.users)
        self.everybody = topk(self.scorer, max(KS), seen)  # of all users, with right answers or not
        self.others = topk(lists_scorer(other, data), max(KS), seen, rows=self.users)
        self.has_list = self.lists[:, 0] >= 0
        self.full = np.flatnonzero((self.everybody >= 0).all(1))

    def value(self, name, k):
        """(U,) one of our metrics."""
        return self.table[f'{name}@{k}'].to_numpy()

    def counts(self, k, users=slice(None)):
        """(N,) in how many of the lists of these users each item is."""
        return np.asarray(shown_to(self.everybody[users, :k], self.data.n_items).sum(0)).ravel()

    def length(self, k):
        """(U,) how long the first k places are."""
        return (self.lists[:, :k] >= 0).sum(1)


# ---- what theirs is, in terms of ours


def as_it_is(name):
    """The same number."""
    return lambda ours, k: ours.value(name, k)


def ideal(n) -> np.ndarray:
    """DCG of n right answers at the first n places."""
    return np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, np.max(n) + 2)))])[n]


def recall_of_what_fits(ours, k):
    """Hits by the number of right answers that fit into the list: ours times n / min(k, n)."""
    return ours.value('recall', k) * ours.n_truth / np.minimum(k, ours.n_truth)


def precision_of_what_fits(ours, k):
    """Hits by the number of right answers that fit: ours times k / min(k, n)."""
    return ours.value('precision', k) * k / np.minimum(k, ours.n_truth)


def precision_of_what_is_there(ours, k):
    """Hits by the length of the list where it is shorter than k: ours times k / length."""
    return ours.value('precision', k) * k / np.maximum(ours.length(k), 1)


def ndcg_of_full_lists(ours, k):
    """Divided by what k hits would gain, with few right answers too: ours times ideal(min(k, n)) / ideal(k)."""
    return ours.value('ndcg', k) * ideal(np.minimum(k, ours.n_truth)) / ideal(np.full(len(ours.n_truth), k))


def precision_of_all_users(ours, k):
    """Hits of all users by all the right answers that fit into the lists: one fraction, no mean over users."""
    return ours.value('precision', k).sum() * k / np.minimum(k, ours.n_truth).sum()


def where_listed(convert):
    """The same, and nothing for a user without a list, whom LensKit leaves out of its table and its means."""
    return lambda ours, k: np.where(ours.has_list, convert(ours, k), np.nan)


def varied_or_nothing(ours, k):
    """Diversity; 0 for a list of one item, where ours is unknown."""
    diversity = list_diversity(ours.lists[:, :k], item_vectors(ours.data))
    return np.where(ours.length(k) == 1, 0.0, diversity)


def overlap_of_full_lists(ours, k):
    """Rank-biased overlap, where both lists have k places."""
    both = (ours.lists[:, k - 1] >= 0) & (ours.others[:, k - 1] >= 0)
    return np.where(both, rank_biased_overlap(ours.lists[:, :k], ours.others[:, :k]), np.nan)


def coverage_with_padding(ours, k):
    """RecBole counts its padding among the items: ours times N / (N + 1)."""
    n_items = ours.data.n_items
    return coverage(ours.counts(k, ours.full)) * n_items / (n_items + 1)


def gini_with_padding(ours, k):
    """RecBole counts its padding among the items, one more that nobody is shown: (N times ours + 1) / (N + 1)."""
    n_items = ours.data.n_items
    return (n_items * gini(ours.counts(k, ours.full)) + 1) / (n_items + 1)


SAME = {  # library -> their metric -> ours, read from our numbers: of each user, or of all together
    'rectools': {
        'Recall': as_it_is('recall'),
        'NDCG(divide_by_achievable=True)': as_it_is('ndcg'),
        'NDCG': ndcg_of_full_lists,
        'Precision': as_it_is('precision'),
        'Precision(r_precision=True)': precision_of_what_fits,
        'MRR': as_it_is('mrr'),
        'HitRate': as_it_is('hit'),
        'MeanInvUserFreq': lambda ours, k: novelty(ours.lists[:, :k], ours.data.train),
        'AvgRecPopularity': lambda ours, k: list_popularity(ours.lists[:, :k], ours.data.train),
        'IntraListDiversity': varied_or_nothing,
        'CatalogCoverage(normalize=True)': lambda ours, k: coverage(ours.counts(k)),
    },
    'lenskit': {
        'Recall': where_listed(recall_of_what_fits),
        'NDCG(weight=LogRankWeight(offset=1))': where_listed(as_it_is('ndcg')),
        'Precision': where_listed(precision_of_what_is_there),
        'RecipRank': where_listed(as_it_is('mrr')),
        'Hit': where_listed(as_it_is('hit')),
        'rank_biased_overlap': overlap_of_full_lists,
        'ListGini': lambda ours, k: gini(ours.counts(k)),
    },
    'recbole': {
        'Recall': as_it_is('recall'),
        'NDCG': as_it_is('ndcg'),
        'Precision': as_it_is('precision'),
        'MRR': as_it_is('mrr'),
        'Hit': as_it_is('hit'),
        'AveragePopularity': lambda ours, k: list_popularity(ours.everybody[ours.full, :k], ours.data.train).mean(),
        'ItemCoverage': coverage_with_padding,
        'GiniIndex': gini_with_padding,
    },
    'ranx': {
        'recall': as_it_is('recall'),
        'ndcg': as_it_is('ndcg'),
        'precision': as_it_is('precision'),
        'mrr': as_it_is('mrr'),
        'hit_rate': as_it_is('hit'),
    },
    'ir-measures': {
        'R': as_it_is('recall'),
        'nDCG': as_it_is('ndcg'),
        'P': as_it_is('precision'),
        'RR': as_it_is('mrr'),
        'Success': as_it_is('hit'),
    },
    'implicit': {
        'ndcg': lambda ours, k: ours.value('ndcg', k).mean(),
        'precision': precision_of_all_users,
    },
}


def disagreements(library, kept, ours) -> list:
    """Sentences about numbers of a library that are not ours after the conversion."""
    found = []
    for name, convert in SAME[library].items():
        for k in KS:
            theirs = np.atleast_1d(np.array((kept['per_user'] | kept.get('overall', {}))[f'{name}@{k}'], dtype=float))
            mine = np.atleast_1d(convert(ours, k))
            if not np.allclose(theirs, mine, rtol=0, atol=1e-9, equal_nan=True):
                away = np.where(np.isnan(theirs) == np.isnan(mine), np.nan_to_num(np.abs(theirs - mine)), np.inf)
                worst = int(away.argmax())
                found.append(f'{library} {name}@{k}: {theirs[worst]} for {ours.names[worst]!r}, and here {mine[worst]}')
    return found


def read_kept(library) -> dict:
    """Numbers of a library that were kept."""
    return json.loads((KEPT / f'{library}.json').read_text(encoding='utf-8'))


# ---- asking


def python_of(library) -> Path:
    """The interpreter of a library's own environment, made where there is none."""
    place = PLACE / library
    python = place / ('Scripts' if sys.platform == 'win32' else 'bin') / 'python'
    wanted = '\n'.join(LIBRARIES[library])
    note = place / 'installed.txt'
    if note.exists() and note.read_text(encoding='utf-8') == wanted:
        return python
    maker = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which('python3.11')
    if maker is None:
        raise SystemExit('RecTools, LensKit 2025.8 and RecBole run on Python 3.11: put a python3.11 on the PATH.')
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([maker, '-m', 'venv', place], check=True)
    subprocess.run([python, '-m', 'pip', 'install', '--quiet', *LIBRARIES[library]], check=True)
    note.write_text(wanted, encoding='utf-8')
    return python


def exchange(data, lists, other, folder, library):
    """What a library reads: lists in its form, right answers, training events, vectors."""
    folder.mkdir(parents=True, exist_ok=True)
    FORMAT[library](lists).to_csv(folder / 'lists.csv', index=False)
    FORMAT[library](other).to_csv(folder / 'other.csv', index=False)
    for split in ('train', 'test'):
        to_interactions(data, split).to_csv(folder / f'{split}.csv', index=False)
    vectors = pd.DataFrame(item_vectors(data))
    vectors.insert(0, 'item_id', data.items['item'])
    vectors.to_csv(folder / 'vectors.csv', index=False)
    ours = Ours(data, lists, other)
    asked = {'ks': KS, 'users': ours.names, 'full': data.users['user'][ours.full].tolist()}
    (folder / 'asked.json').write_text(json.dumps(asked), encoding='utf-8')


def ask(library, data, lists, other) -> dict:
    """What a library says, measured in its own environment."""
    python = python_of(library)
    folder = PLACE / f'{library}-files'
    exchange(data, lists, other, folder, library)
    subprocess.run([python, KEPT / f'in_{library}.py', folder], check=True)
    said = json.loads((folder / 'said.json').read_text(encoding='utf-8'))
    return {'asked': LIBRARIES[library], 'fingerprint': fingerprint(data, lists), **said}


def keep(library, said):
    """Write the numbers of a library, one metric a line."""
    lines = json.dumps(said, indent=1, ensure_ascii=False)
    text = '\n'.join(_one_line_lists(lines.split('\n')))
    (KEPT / f'{library}.json').write_bytes((text + '\n').encode('utf-8'))


def _one_line_lists(lines):
    """A list of numbers on one line."""
    inside, kept = False, []
    for line in lines:
        if inside:
            kept[-1] += line.strip() if line.strip().startswith(']') else f'{line.strip()} '
            inside = not line.strip().startswith(']')
        else:
            kept.append(line)
            inside = line.endswith('[')
    return kept


def main(argv=None) -> int:
    options = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    options.add_argument('libraries', nargs='*', help='which; without: all')
    options.add_argument('--check', action='store_true', help='compare what is kept, ask nobody')
    options = options.parse_args(argv)
    unknown = set(options.libraries) - set(LIBRARIES)
    if unknown:
        raise SystemExit(f'{", ".join(unknown)} is unknown: use {", ".join(LIBRARIES)}.')
    data, lists, other = world()
    ours, worst = Ours(data, lists, other), 0
    for library in options.libraries or LIBRARIES:
        if not options.check:
            keep(library, ask(library, data, lists, other))
        said = read_kept(library)
        problems = disagreements(library, said, ours)
        if said['fingerprint'] != fingerprint(data, lists):
            problems.append(f'{library} was asked about other lists: make test-outside')
        worst = worst or bool(problems)
        versions = ', '.join(f'{name} {version}' for name, version in said['versions'].items())
        print('\n'.join(problems) or f'{library}: {len(SAME[library]) * len(KS)} metrics agree to 1e-9 ({versions})')
    return int(worst)


if __name__ == '__main__':
    sys.exit(main())
