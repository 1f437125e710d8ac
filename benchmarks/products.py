"""The product of a normalised graph with a table of vectors: scipy, and torch's CSR with 32- and 64-bit indices.

    python benchmarks/products.py [--out FILE]

Milliseconds, the median of 15 (3 for the largest), for three generated graphs, three widths, one thread and all of
them. What `models.graph` chooses follows from this.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from promax_nb.models.adjacency import normalised

SIZES = {'amazon-industrial': (3_285, 3_541, 13_000), 'Amazon-book': (11_000, 9_332, 127_000)}
SIZES |= {'100 k x 100 k': (100_000, 100_000, 2_000_000)}


def milliseconds(product, repeats: int) -> float:
    """The median time of a call."""
    product()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        product()
        taken.append(time.perf_counter() - began)
    return round(1000 * float(np.median(taken)), 3)


def graph(users: int, items: int, events: int):
    """A normalised graph with some popular items."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, items + 1) ** 0.6
    cells = rng.integers(users, size=events), rng.choice(items, events, p=share / share.sum())
    return normalised(sp.csr_matrix((np.ones(events, np.float32), cells), (users, items)))


def measured(matrix, width: int, cores: int) -> dict:
    """Each product of one matrix with vectors of one width."""
    x, repeats = torch.randn(matrix.shape[0], width), 15 if matrix.nnz < 1e6 else 3
    found = {'scipy': milliseconds(lambda: matrix @ x.numpy(), repeats)}
    for bits, kind in ((32, np.int32), (64, np.int64)):
        indices = [torch.from_numpy(part.astype(kind)) for part in (matrix.indptr, matrix.indices)]
        csr = torch.sparse_csr_tensor(*indices, torch.from_numpy(matrix.data), matrix.shape)
        for threads in sorted({1, cores}):
            torch.set_num_threads(threads)
            found[f'torch, {bits} bits, {threads} threads'] = milliseconds(lambda csr=csr: csr @ x, repeats)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path)
    options = parser.parse_args()
    warnings.simplefilter('ignore')
    cores, result = torch.get_num_threads(), {'torch': torch.__version__, 'mkl': torch.backends.mkl.is_available()}
    for name, size in SIZES.items():
        matrix = graph(*size)
        for width in (32, 64, 128):
            result[f'{name}, width {width}'] = measured(matrix, width, cores)
            print(name, width, result[f'{name}, width {width}'], flush=True)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
