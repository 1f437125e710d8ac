"""Full ranking and metrics of everybody at Amazon-book size: the library against two loops over users.

    python benchmarks/evaluate.py [DATA_FOLDER] [--threads 1 2] [--out benchmarks/results/evaluate.json]

`published` is the evaluation of the published code, written again in words of our own: a data set gives one user at a
time with a dense row of the training matrix, batches of 1,024 are scored, masked by arithmetic and ranked by torch, and
the items of every list are looked up in a list of the user's held-out items, one after the other. `by user` is the loop
of older code: one user's scores, a heap of all items, metrics in Python. Both are timed without what they prepare once.
Median of the rounds, the three in turn in one process. Without a folder the data are generated with its dimensions.
Every side has the same vectors; their metrics have to agree to 1e-6.
"""

import argparse
import heapq
import json
import math
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from torch.utils.data import DataLoader, Dataset

from promax_nb.data.published import from_rlmrec
from promax_nb.models.evaluate import evaluate
from promax_nb.models.results import versions

KS = (5, 10, 20)
USERS, ITEMS, TRAIN, TEST = 11_000, 9_332, 120_464, 40_106


def generated(seed=0):
    """Training and test interactions of Amazon-book's dimensions."""
    rng = np.random.default_rng(seed)
    liked = 1 / np.arange(1, ITEMS + 1) ** 0.6

    def some(n):
        items = rng.choice(ITEMS, n, p=liked / liked.sum())
        table = sp.csr_matrix((np.ones(n, np.float32), (rng.integers(USERS, size=n), items)), shape=(USERS, ITEMS))
        table.data[:] = 1
        return table

    train, test = some(TRAIN), some(TEST)
    test = sp.csr_matrix(test - test.multiply(train))
    return train, test


# ---- the published evaluation


class OneUser(Dataset):
    """Everybody who has something held out, with what they had before as a dense row."""

    def __init__(self, train, test):
        self.train = sp.csr_matrix(train, dtype=np.float64)
        self.liked = [test[user].indices.tolist() for user in range(test.shape[0])]
        self.users = np.array([user for user, items in enumerate(self.liked) if items])

    def __len__(self):
        return len(self.users)

    def __getitem__(self, place):
        user = self.users[place]
        return user, self.train[user].toarray().reshape(-1)


def published(users, items, people) -> dict:
    """Mean metrics, in batches, the lists looked through user by user."""
    users, items = torch.from_numpy(users), torch.from_numpy(items)
    sums = {f'{name}@{k}': 0.0 for name in ('recall', 'ndcg', 'precision') for k in KS}
    for who, had in DataLoader(people, batch_size=1024):
        had = had.long()
        scores = users[who] @ items.T
        scores = scores * (1 - had) - 1e8 * had
        lists = scores.topk(max(KS)).indices.numpy()
        truth = [people.liked[user] for user in who.tolist()]
        hits = []
        for listed, liked in zip(lists, truth, strict=True):
            hits.append(np.array([item in liked for item in listed], float))
        hits, counts = np.array(hits), np.array([len(liked) for liked in truth])
        for k in KS:
            discount = 1 / np.log2(np.arange(2, k + 2))
            ideal = np.zeros((len(hits), k))
            for row, count in enumerate(counts):
                ideal[row, : min(k, count)] = 1
            sums[f'recall@{k}'] += (hits[:, :k].sum(1) / counts).sum()
            sums[f'ndcg@{k}'] += ((hits[:, :k] * discount).sum(1) / (ideal * discount).sum(1)).sum()
            sums[f'precision@{k}'] += hits[:, :k].sum() / k
    return {name: float(value / len(people)) for name, value in sums.items()}


# ---- one user at a time


def by_user(users, items, people) -> dict:
    """Mean metrics, user by user."""
    sums = {f'{name}@{k}': 0.0 for name in ('recall', 'ndcg', 'precision') for k in KS}
    for user in people.users:
        scores = items @ users[user]
        scores[people.train.indices[people.train.indptr[user] : people.train.indptr[user + 1]]] = -np.inf
        listed = heapq.nlargest(max(KS), range(len(scores)), key=scores.tolist().__getitem__)
        liked = set(people.liked[user])
        for k in KS:
            hits = [place for place, item in enumerate(listed[:k]) if item in liked]
            best = sum(1 / math.log2(place + 2) for place in range(min(k, len(liked))))
            sums[f'recall@{k}'] += len(hits) / len(liked)
            sums[f'ndcg@{k}'] += sum(1 / math.log2(place + 2) for place in hits) / best
            sums[f'precision@{k}'] += len(hits) / k
    return {name: value / len(people) for name, value in sums.items()}


# ---- side by side


def measure(train, test, threads: int, rounds: int) -> dict:
    """Seconds of each side, and how far their numbers are apart."""
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    users, items = (rng.normal(size=(n, 32)).astype(np.float32) for n in train.shape)
    people = OneUser(train, test)
    sides = {
        'ours': lambda: evaluate((users, items), test, train, KS),
        'published': lambda: published(users, items, people),
        'by user': lambda: by_user(users, items, people),
    }
    evaluate((users, items), test, train, KS)  # warm
    seconds, found = {name: [] for name in sides}, {}
    for _ in range(rounds):
        for name, call in sides.items():
            began = time.perf_counter()
            found[name] = call()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    ours, names = found.pop('ours'), list(found['published'])
    apart = max(abs(other[name] - ours[name]) for other in found.values() for name in names)
    assert apart < 1e-6, f'the numbers differ by {apart}'
    times = {name: round(medians[name] / medians['ours'], 1) for name in found}
    metrics = {name: ours[name] for name in ('recall@20', 'ndcg@20')}
    return {'threads': threads, 'seconds': medians, 'times ours': times, 'apart': apart, **metrics}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', nargs='?', type=Path)
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--out', type=Path, default=Path(__file__).parent / 'results' / 'evaluate.json')
    options = parser.parse_args()
    if options.data:
        data = from_rlmrec(options.data)
        train, test, name = data.train, data.test, 'Amazon-book'
    else:
        (train, test), name = generated(), 'generated, dimensions of Amazon-book'
    facts = {'data': name, 'users': train.shape[0], 'items': train.shape[1], **versions()}
    rows = [measure(train, test, threads, options.rounds) for threads in options.threads]
    options.out.write_text(json.dumps(facts | {'rows': rows}, indent=1) + '\n')
    print(json.dumps(rows, indent=1))


if __name__ == '__main__':
    main()
