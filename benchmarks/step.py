"""One ProMax training step at Amazon-book size: ours against a straight port of the published formulation, in one
process.

    python benchmarks/step.py [--threads 2] [--repeats 7] [--data FOLDER]

The straight port recomputes the teacher for every batch and leaves all gradients to autograd; ours keeps the teacher
and uses the fused softmax
term. Both start from the same parameters and see the same batches, in turn, so that whatever else the machine does
meets both alike. Reports
the median time of a step, the agreement of loss and gradient, and each side's peak of memory above what was resident
before.
Without --data, interactions are random with the size and skew of Amazon-book.
"""

import argparse
import json
import platform
import threading
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from promax_nb.models.bases import LightGCN
from promax_nb.models.losses import bpr_loss
from promax_nb.models.objectives import ProMax
from promax_nb.models.train import PairSampler

TAU, SDR, S2DR = 0.2, 1.5, 0.05


def infonce_plain(a, b):
    """Row-wise InfoNCE over the batch, repeats and all."""
    z = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / TAU
    return -torch.log(torch.exp(z.diagonal()) / torch.exp(z).sum(1)).mean()


class Straight:
    """The published formulation: teacher per batch, pairwise contrasts on repeated rows, plain autograd, sparse
    torch products."""

    def __init__(self, model, su, si, both):
        self.model, self.su, self.si = model, torch.from_numpy(su), torch.from_numpy(si)
        self.graphs = [self.coo(model.adj.matrix), self.coo(model.graph(both).matrix)]

    @staticmethod
    def coo(m):
        m = m.tocoo()
        return torch.sparse_coo_tensor(np.stack([m.row, m.col]), m.data, m.shape, check_invariants=False).coalesce()

    def view(self, graph):
        x = [torch.cat([self.model.user, self.model.item])]
        for _ in range(3):
            x.append(torch.sparse.mm(graph, x[-1]))
        return self.model.split(sum(x[1:]))

    def __call__(self, users, pos, neg):
        (u1, i1), (u2, i2) = (self.view(g) for g in self.graphs)
        du, di = torch.unique(users), torch.unique(pos)
        p = torch.softmax(F.normalize(self.su[du], dim=1) @ F.normalize(self.si, dim=1).T / TAU, 1)
        h = -(p * torch.log(p)).sum(1) / np.log(len(self.si))
        q = torch.softmax(F.normalize(u1[du], dim=1) @ F.normalize(i1, dim=1).T / TAU, 1)
        sdr = ((1 - h).clamp(0.1, 1) * -(p * torch.log(q)).sum(1)).mean()
        s2dr = infonce_plain(u1[du], u2[du]) + infonce_plain(i1[di], i2[di])
        s2dr = s2dr + 0.5 * infonce_plain(u1[users], i2[pos]) + 0.5 * infonce_plain(u2[users], i1[pos])
        return bpr_loss(u1[users], i1[pos], i1[neg]) + SDR * sdr + S2DR * s2dr


def world(folder):
    """Training matrix, added interactions."""
    if folder:
        from promax_nb.data.published import from_rlmrec

        data = from_rlmrec(folder)
        added = data.extras['augmented'] - data.extras['augmented'].multiply(data.train)
        added.eliminate_zeros()
        return data.train, added
    rng = np.random.default_rng(0)
    m, n, nnz = 11_000, 9_332, 120_464
    pop, act = 1 / np.arange(1, n + 1) ** 0.6, 1 / np.arange(1, m + 1) ** 0.5

    def draw(k):
        x = sp.csr_matrix(
            (np.ones(k, np.float32), (rng.choice(m, k, p=act / act.sum()), rng.choice(n, k, p=pop / pop.sum()))), (m, n)
        )
        x.data[:] = 1
        return x

    train = draw(int(nnz * 1.06))
    added = draw(24_199)
    return train, sp.csr_matrix(added - added.multiply(train))


class Peak:
    """Largest resident memory above the start while active, sampled every 2 ms."""

    def resident(self):
        return int(Path('/proc/self/statm').read_text().split()[1]) * 4096

    def __enter__(self):
        self.start = self.top = self.resident()
        self.stop = threading.Event()

        def watch():
            while not self.stop.wait(0.002):
                self.top = max(self.top, self.resident())

        self.thread = threading.Thread(target=watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        self.mib = (self.top - self.start) / 2**20


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--threads', type=int, default=2)
    a.add_argument('--repeats', type=int, default=7)
    a.add_argument('--data', type=Path)
    a.add_argument('--out', type=Path, help='write the numbers as JSON')
    a = a.parse_args()
    torch.set_num_threads(a.threads)
    train, added = world(a.data)
    rng = np.random.default_rng(1)
    su, si = (rng.normal(size=(k, 32)).astype(np.float32) for k in train.shape)
    model = LightGCN(train, sum_layers=(1, 2, 3))
    straight = Straight(model, su, si, train + added)
    began = time.perf_counter()
    ours = ProMax(su, si, added, sdr=SDR, s2dr=S2DR)
    ours.second_graph(model)
    prepared = time.perf_counter() - began
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)  # its work is timed, the parameters stay put
    triples = [torch.from_numpy(x[:4096]) for x in PairSampler(train).epoch(rng)]

    def step(objective):
        optimizer.zero_grad(set_to_none=True)
        t = time.perf_counter()
        loss = objective()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - t, float(loss.detach()), model.user.grad.clone()

    sides = {'straight': lambda: straight(*triples), 'ours': lambda: sum(ours(model, *triples).values())}
    peaks, times, last = {}, {k: [] for k in sides}, {}
    for f in sides.values():
        step(f)  # warm
    for name, f in reversed(sides.items()):  # the small one first, so that memory freed by the large one cannot hide it
        with Peak() as peak:
            step(f)
        peaks[name] = peak.mib
    for _ in range(a.repeats):
        for name, f in sides.items():
            t, *last[name] = step(f)
            times[name].append(t)
    (l0, g0), (l1, g1) = last['straight'], last['ours']
    med = {k: float(np.median(v)) for k, v in times.items()}
    where = 'amazon-book' if a.data else 'generated, Amazon-book size'
    result = {
        'threads': a.threads,
        'torch': torch.__version__,
        'machine': platform.machine(),
        'data': where,
        'seconds': med,
        'spread': {k: [min(v), max(v)] for k, v in times.items()},
        'speed-up': med['straight'] / med['ours'],
        'peak MiB': peaks,
        'teacher once, seconds': prepared,
        'teacher MiB': train.shape[0] * train.shape[1] * 4 / 2**20,
        'loss difference (relative)': abs(l0 - l1) / abs(l0),
        'gradient difference (relative)': float((g0 - g1).norm() / g0.norm()),
    }
    print(json.dumps(result, indent=1))
    if a.out:
        a.out.write_text(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
