"""Similar users of everybody: exactly, by clusters with codes (the index of the library), and by a graph (HNSW).

    python benchmarks/retrieval.py --size 100000 --kind exact approximate hnsw [--threads 1]

Generated vectors: 200 groups, 48 dimensions of taste behind 384 numbers of a vector, the groups as far apart as their
members. Seconds to build, and microseconds a query, measured on 4,096 queries and reckoned up for everybody; recall@20
of 512 of them against the exact answer. One JSON with a row for each size and kind; a row that is there is replaced.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from promax_nb.retrieval.index import Index, load_faiss

RESULTS = Path(__file__).parent / 'results' / 'retrieval.json'
GROUPS, TASTES, WIDE, K, ASK, CHECK = 200, 48, 384, 20, 4096, 512


def make_vectors(n):
    """Unit vectors in groups."""
    rng = np.random.default_rng(0)
    centres, basis = rng.normal(size=(GROUPS, TASTES)), rng.normal(size=(TASTES, WIDE)).astype(np.float32)
    group = rng.integers(GROUPS, size=n)
    vectors = np.empty((n, WIDE), np.float32)
    for start in range(0, n, 50_000):
        some = group[start : start + 50_000]
        tastes = centres[some] + rng.normal(size=(len(some), TASTES))
        wide = tastes.astype(np.float32) @ basis
        vectors[start : start + 50_000] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return vectors


class Graph:
    """HNSW of faiss, called like an `Index`."""

    def __init__(self, vectors):
        faiss = load_faiss()
        self.index = faiss.IndexHNSWFlat(vectors.shape[1], 24, faiss.METRIC_INNER_PRODUCT)
        self.index.add(vectors)
        self.index.hnsw.efSearch = 128

    def nearest(self, queries, k):
        return self.index.search(queries, k)[::-1]

    def clusters(self, queries):
        return np.arange(len(queries))


def measure(vectors, kind, truth):
    """Seconds and recall of one way."""
    began = time.perf_counter()
    index = Graph(vectors) if kind == 'hnsw' else Index(vectors, kind)
    built = time.perf_counter() - began
    found, _ = index.nearest(vectors[:CHECK], K + 1)
    alike = vectors[np.argsort(index.clusters(vectors[: 16 * ASK]), kind='stable')[:ASK]]  # as `search` asks
    began = time.perf_counter()
    index.nearest(alike, K + 1)
    each = (time.perf_counter() - began) / len(alike)
    shared = [len(np.intersect1d(a, b)) - 1 for a, b in zip(found, truth, strict=True)]  # one of them is oneself
    everybody = each * len(vectors)
    return {
        'build_seconds': round(built, 2),
        'microseconds_a_query': round(each * 1e6, 1),
        'seconds_for_everybody': round(built + everybody, 1),
        'recall@20': round(float(np.mean(shared)) / K, 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=int, nargs='+', default=[10_000])
    parser.add_argument('--kind', nargs='+', default=['exact', 'approximate', 'hnsw'])
    parser.add_argument('--threads', type=int, default=1)
    options = parser.parse_args()
    load_faiss().omp_set_num_threads(options.threads)
    for n in options.size:
        vectors = make_vectors(n)
        truth, _ = Index(vectors, 'exact').nearest(vectors[:CHECK], K + 1)
        for kind in options.kind:
            row = {'vectors': n, 'kind': kind, 'threads': options.threads} | measure(vectors, kind, truth)
            rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
            same = [old for old in rows if (old['vectors'], old['kind'], old['threads']) != (n, kind, options.threads)]
            rows = sorted([*same, row], key=lambda each: (each['vectors'], each['kind'], each['threads']))
            RESULTS.write_text(json.dumps(rows, indent=1) + '\n')
            print(row, flush=True)


if __name__ == '__main__':
    main()
