"""Train the small writer that comes with the package.

    OMP_NUM_THREADS=1 python benchmarks/tiny_writer.py [--steps 1500] [--seed 0] [--out promax_nb/lettingo/tiny_writer]

It reads three lists of tastes and writes in a mixture of four styles (see chapter 11). Everything follows from the
seed and the vocabulary of the
generated world; the card beside the weights says both. About six minutes on one quiet thread.
"""

import argparse
import json
from pathlib import Path

from promax_nb.lettingo.tiny import tiny_lm

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--steps', type=int, default=1500)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument(
        '--out', type=Path, default=Path(__file__).resolve().parent.parent / 'promax_nb' / 'lettingo' / 'tiny_writer'
    )
    args = p.parse_args()
    model, _ = tiny_lm(path=args.out, retrain=True, seed=args.seed, steps=args.steps)
    size = sum(f.stat().st_size for f in args.out.iterdir()) / 1e6
    print(json.dumps(model.card, indent=1), f'\n{args.out}: {size:.1f} MB')
