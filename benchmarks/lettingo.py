"""LettinGo from exploring to the closed loop: three generated bookshops, then ML-100K with 30, 50 and 70 older events.

    python benchmarks/lettingo.py --out runs/lettingo [--ml100k DATA/ml-100k] [--seeds 0,1,2]

Type it again to continue: each run is a folder of its own, and nothing is asked, judged or trained twice. The
summaries go to
benchmarks/results/lettingo.json, without texts. On ML-100K the judge is the built-in one, the writer is the small
one trained anew on the genres, and
template styles stand beside it; a person needs enough events for each condition, so few are left, and what that
number can show is part of the result.
"""

import argparse
import json
from pathlib import Path

OLDER = (30, 50, 70)
KEEP = (
    'verdict',
    'ablation',
    'differences',
    'pairs',
    'transfer',
    'loop',
    'judge',
    'seconds',
    'train_users',
    'test_users',
    'settings',
    'data',
    'diversity',
)


def smallest_visible(differences):
    """Half of the widest interval of the accuracy: a smaller difference could not have been told from none with
    these users."""
    half = [
        (d['high'] - d['low']) / 2
        for d in differences
        if d['metric'] == 'accuracy' and d['from'] in ('as is', 'SFT') and d['to'] == 'DPO'
    ]
    return max(half) if half else None


def ml100k(folder, out):
    """One run for each number of older events, all with one small writer that knows the genres."""
    from promax_nb.data.loaders import from_atomic
    from promax_nb.lettingo.histories import attribute_values
    from promax_nb.lettingo.story import lettingo
    from promax_nb.lettingo.tiny import tiny_lm

    data = from_atomic(folder, threshold=4, kcore=1, split='temporal')
    base = tiny_lm(attribute_values(data.items), path=out / 'writer', seed=0)
    return {
        str(n): lettingo(
            out / f'older-{n}', data, base=base, older=n, targets=10, test_users=200, margin=0.05, loop=n == 50
        )['summary']
        for n in OLDER
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, default=Path('runs/lettingo'))
    p.add_argument('--ml100k', type=Path, help='folder of ML-100K in RecBole form; left out: the bookshops only')
    p.add_argument('--seeds', type=lambda t: [int(s) for s in t.split(',')], default=[0, 1, 2])
    p.add_argument(
        '--no-loop',
        action='store_true',
        help='leave out ProMax on the profiles of the bookshops (a minute for each seed)',
    )
    a = p.parse_args()
    from promax_nb.lettingo.story import lettingo
    from promax_nb.models.train import versions

    target = Path(__file__).parent / 'results' / 'lettingo.json'
    result = json.loads(target.read_text(encoding='utf-8')) if target.exists() else {}

    def keep(name, summaries):
        kept = {
            k: {n: s.get(n) for n in KEEP} | {'smallest visible difference': smallest_visible(s['differences'])}
            for k, s in summaries.items()
        }
        result[name] = result.get(name, {}) | kept
        target.write_text(json.dumps(result | {'versions': versions()}, indent=1), encoding='utf-8')

    for seed in a.seeds:
        keep('bookshop', {str(seed): lettingo(a.out / f'seed-{seed}', seed=seed, loop=not a.no_loop)['summary']})
    if a.ml100k:
        keep('ml100k', ml100k(a.ml100k, a.out / 'ml100k'))
    for name in ('bookshop', 'ml100k'):
        for key, s in result.get(name, {}).items():
            print(f'{name} {key}: {s["verdict"]}')


if __name__ == '__main__':
    main()
