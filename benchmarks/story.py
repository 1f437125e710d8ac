"""Where profiles and a recommender disagree on ML-100K, whom reshaping moved, helped and hurt: numbers for the story
chapter.

    python benchmarks/story.py DATA_FOLDER --out runs/ml100k [--base LightGCN]

Uses the trainings of benchmarks/ml100k.py (run that first): the base and SDR with the shared basis, all seeds.
Writes coordinates and numbers, no titles and
no texts, to benchmarks/results/story.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from ml100k import World, cases

from promax_nb.data.loaders import from_atomic
from promax_nb.models.inference import compare
from promax_nb.models.results import load_fit, versions
from promax_nb.views.distributions import entropies
from promax_nb.views.gains import gain_by
from promax_nb.views.maps import project_scene
from promax_nb.views.nodes import node_table
from promax_nb.views.scene import Scene


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', type=Path, help='folder with ml-100k.inter, ml-100k.item and items_info.json')
    p.add_argument('--out', type=Path, default=Path('runs/ml100k'), help='folder of the trainings')
    p.add_argument('--base', default='LightGCN')
    p.add_argument('--case', default='SDR, shared basis, published weights')
    p.add_argument('--seeds', nargs='+', type=int, default=[1, 2, 3])
    a = p.parse_args()
    world = World(from_atomic(a.data, split='random'), a.out)
    names = list(cases(0, 0))
    before, after = ([load_fit(a.out / f'{a.base}-{names.index(c)}-{s}') for s in a.seeds] for c in ('base', a.case))
    scene = Scene(world.data, vectors=world.vectors['shared'], before=before, after=after, settings={'width': 64})
    projection = project_scene(scene)
    table = node_table(scene, projection)
    users = table.iloc[: world.data.n_users]
    far = entropies(scene)
    columns = ('interactions', 'confidence weight', 'profile sharpness', 'neighbours kept', 'distance moved')
    result = {
        'data': repr(world.data),
        'base': a.base,
        'case': a.case,
        'seeds': a.seeds,
        'versions': versions(),
        'record': projection.record,
        'text': projection.describe(),
        'n_users': world.data.n_users,
        'n_items': world.data.n_items,
        'coords': {k: np.round(v.astype(float), 2).tolist() for k, v in projection.coords.items()},
        'columns': {c: np.round(table[c].to_numpy(float, na_value=np.nan), 4).tolist() for c in columns},
        'divergence': {c: np.round(far[c].to_numpy(float), 5).tolist() for c in far if far[c].dtype.kind == 'f'},
        'compare': compare(before, after, world.data).loc[['recall@20', 'ndcg@20']].to_dict('index'),
        'gain': {c: gain_by(scene, users[c]).to_dict('records') for c in columns if users[c].nunique() > 4},
        'everybody': gain_by(scene, np.zeros(world.data.n_users)).to_dict('records')[0],
    }
    target = Path(__file__).parent / 'results' / 'story.json'
    target.write_text(json.dumps(result, default=float).replace('NaN', 'null'))
    print(target, f'{target.stat().st_size / 1e3:.0f} kB')
    print(result['text'])
    for c, rows in result['gain'].items():
        for r in rows:
            print(
                f"{c:20} {r['group']:22} {r['users']:4} users  {r['difference']:+.4f} [{r['low']:+.4f}, "
                    f"{r['high']:+.4f}]"
            )


if __name__ == '__main__':
    main()
