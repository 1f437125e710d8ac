"""Whole-graph propagation in every step, or less often: what larger batches and frozen layers cost LightGCN.

    python benchmarks/propagation.py DATA_FOLDER --out runs/propagation [--only ml-100k] [--objectives BPR ProMax]
    python benchmarks/propagation.py DATA_FOLDER --out runs/propagation --collect benchmarks/results/propagation.json

The exact way propagates over the whole graph for every 2,048 pairs. `batch x4`, `x16`, `x64` do it for as many times
more pairs (an epoch has at least one step). `frozen 4`, `16` keep the batch: layers 1 to 3 are made in one of so many
steps and stand still in between, so a step computes layer 0 of a batch's rows alone, and only layer 0 has a gradient.
`delayed 4`, `16` do the same, and what the standing layers would have passed back is summed and passed back when they
are made anew. Learning rates are chosen by validation with seed 0 and BPR, of three for each way (of five on
amazon-industrial, where the lowest of three was often the best); ProMax (both terms, exact) takes the same. All have
equally many epochs at most and the same patience; seeds 0 to 2; test is read once. Collected is what has all its seeds.
Resumable: one JSON and one table of vectors a training. Seconds are of the processor, with other work beside it.
"""

import argparse
import json
import time
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from null_pairs import load as load_industrial

from promax_nb.data.loaders import from_atomic
from promax_nb.models.bases import LightGCN
from promax_nb.models.inference import compare
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.results import versions
from promax_nb.models.train import TrainConfig, fit
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.template import template
from promax_nb.profiles.write import write
from promax_nb.retrieval.augment import augment
from promax_nb.retrieval.embed import encode, whiten

BATCH = 2048
SETTINGS = TrainConfig(epochs=600, batch=BATCH, min_steps=300, patience=15, device='cpu')
RATES = {  # way -> learning rates that are tried
    'exact': (5e-4, 1e-3, 2e-3),
    'batch x4': (1e-3, 2e-3, 4e-3),
    'batch x16': (2e-3, 4e-3, 8e-3),
    'batch x64': (4e-3, 8e-3, 16e-3),
    'frozen 4': (5e-4, 1e-3, 2e-3),
    'frozen 16': (5e-4, 1e-3, 2e-3),
    'delayed 4': (5e-4, 1e-3, 2e-3),
    'delayed 16': (5e-4, 1e-3, 2e-3),
}
SEEDS = (0, 1, 2)


class _PassBack(torch.autograd.Function):
    """x, with a gradient from elsewhere added to its own."""

    @staticmethod
    def forward(ctx, x, more):
        ctx.save_for_backward(more)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad + ctx.saved_tensors[0], None


class Frozen(LightGCN):
    """LightGCN whose propagated layers are made in one of `every` steps and stand still in between."""

    def __init__(self, data, every, delayed=False, **settings):
        super().__init__(data, **settings)
        self.every, self.delayed, self.step = every, delayed, -1
        self.kept = WeakKeyDictionary()  # graph -> step when its layers were made, their sum

    derived = ('kept', 'step')

    def propagated(self, nodes, adj):
        """The sum of layers 1 to n, for nodes (M+N, d)."""
        total = 0
        for _ in range(self.n_layers):
            nodes = adj(nodes)
            total = total + nodes
        return total

    def forward(self, adj=None):
        adj = self.adj if adj is None else adj
        if not self.training:
            return super().forward(adj)
        self.step += adj is self.adj
        nodes = torch.cat([self.user, self.item])
        made, standing = self.kept.get(adj, (-self.every, None))
        if self.step - made >= self.every:
            with torch.no_grad():
                if standing is not None and standing.grad is not None:
                    back = self.propagated(standing.grad, adj)  # the graph is symmetric
                standing_now = self.propagated(nodes, adj)
            if standing is not None and standing.grad is not None:
                nodes = _PassBack.apply(nodes, back)
            standing = standing_now.requires_grad_(self.delayed)
            self.kept[adj] = self.step, standing
        return self.split(nodes + standing)


def model_of(way, data, seed):
    """LightGCN, as this way propagates."""
    kind, _, number = way.partition(' ')
    if kind in ('frozen', 'delayed'):
        return Frozen(data, int(number), kind == 'delayed', seed=seed)
    return LightGCN(data, seed=seed)


def batch_of(way):
    return BATCH * int(way.partition(' x')[2] or 1)


class World:
    """Data, and what ProMax needs of it; kept."""

    def __init__(self, name, folder, out):
        self.name = name
        self.data = load_industrial(folder / name) if name != 'ml-100k' else from_atomic(folder / name, split='random')
        path = out / f'{name}.npz'
        if not path.exists():
            store, cache = out / f'{name}-profiles.db', out / f'{name}-vectors.db'
            items = write(template(), item_prompts(self.data), store=store, progress=False)
            users = write(template(), user_prompts(self.data, items), store=store, progress=False)
            raw = [encode(list(t.profile), 'static', cache=cache, empty='zero') for t in (users, items)]
            su, si = whiten(*raw, dim=64)
            np.savez(path, su=su, si=si)
        kept = np.load(path)
        self.vectors = kept['su'], kept['si']
        self.added = augment(self.data, *self.vectors)[0]

    def objective(self, name):
        if name == 'BPR':
            return BPR()
        return ProMax(*self.vectors, self.added, sdr=0.5, s2dr=0.01, terms='exact')

    def ways(self):
        """Those that are not another one at this size."""
        whole = self.data.train.nnz
        alike = [way for way in RATES if batch_of(way) / 4 >= whole]
        return [way for way in RATES if way not in alike]


def rates_of(world, way):
    """The learning rates that are tried."""
    lowest = RATES[way][0]
    return (lowest / 4, lowest / 2, *RATES[way]) if world.name == 'amazon-industrial' else RATES[way]


def name_of(world, objective, way, rate, seed):
    return f'{world.name}-{objective}-{way.replace(" ", "-")}-{rate:g}-{seed}'


def train(world, objective, way, rate, seed, out):
    """One training, unless it is there."""
    name = name_of(world, objective, way, rate, seed)
    target = out / f'{name}.json'
    if target.exists():
        return json.loads(target.read_text())
    began = time.process_time()
    model = model_of(way, world.data, seed)
    fitted = fit(
        model, world.objective(objective), world.data, SETTINGS, batch=batch_of(way), lr=rate, progress=False
    )
    np.savez(out / f'{name}.npz', users=fitted.users, items=fitted.items)
    found = {'way': way, 'lr': rate, 'seed': seed, 'valid recall@20': fitted.best_score, 'name': name}
    found |= {'best_epoch': fitted.best_epoch, 'epochs': len(fitted.history), 'steps': fitted.card['steps']}
    found |= {'processor seconds': time.process_time() - began}
    target.write_text(json.dumps(found, indent=1))
    print({key: round(x, 4) if isinstance(x, float) else x for key, x in found.items()}, flush=True)
    return found


def is_there(world, objective, way, rate, out):
    """Whether all seeds of a way have been trained."""
    return all((out / f'{name_of(world, objective, way, rate, seed)}.json').exists() for seed in SEEDS)


def chosen(world, out):
    """way -> the learning rate with the best validation, seed 0, BPR; and all that were tried."""
    tried = {way: [train(world, 'BPR', way, rate, 0, out) for rate in rates_of(world, way)] for way in world.ways()}
    return {way: max(rows, key=lambda row: row['valid recall@20']) for way, rows in tried.items()}, tried


def run(world, objectives, seeds, out):
    rates, _ = chosen(world, out)
    for objective in objectives:
        for seed in seeds:
            for way, row in rates.items():
                train(world, objective, way, row['lr'], seed, out)


KEPT = ('base', 'ours', 'difference', 'low', 'high', 'method_low', 'method_high', 'method_p', 'holm')


def collect(world, objectives, out):
    """Every way beside the exact one."""
    rates, tried = chosen(world, out)
    found = {'data': repr(world.data), 'tried': tried}
    for objective in objectives:
        rows, sides = {}, {}
        ways = [way for way in rates if is_there(world, objective, way, rates[way]['lr'], out)]
        if 'exact' not in ways:
            continue
        for way in ways:
            runs = [train(world, objective, way, rates[way]['lr'], seed, out) for seed in SEEDS]
            tables = [np.load(out / f'{row["name"]}.npz') for row in runs]
            sides[way] = [(table['users'], table['items']) for table in tables]
            means = {key: float(np.mean([row[key] for row in runs])) for key in ('best_epoch', 'epochs', 'steps')}
            seconds = float(np.mean([row['processor seconds'] for row in runs]))
            rows[way] = {'lr': rates[way]['lr'], **means, 'processor seconds': seconds}
        for way in ways[1:]:
            table = compare(sides['exact'], sides[way], world.data, metrics=['recall@20', 'ndcg@20'])
            rows[way] |= {metric: {key: float(table.loc[metric, key]) for key in KEPT} for metric in table.index}
            print(world.name, objective, way, rows[way]['lr'], flush=True)
            print(table[['base', 'ours', 'difference', 'method_low', 'method_high']].round(4), flush=True)
        found[objective] = rows
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--out', type=Path, default=Path('runs/propagation'))
    parser.add_argument('--only', nargs='+', default=['ml-100k', 'amazon-industrial'])
    parser.add_argument('--objectives', nargs='+', default=['BPR', 'ProMax'])
    parser.add_argument('--seeds', nargs='+', type=int, default=list(SEEDS))
    parser.add_argument('--collect', type=Path, help='JSON to write')
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = {'command': 'python benchmarks/propagation.py DATA_FOLDER', 'versions': versions()}
    for name in options.only:
        world = World(name, options.data, options.out)
        if options.collect:
            kept[name] = collect(world, options.objectives, options.out)
        else:
            run(world, options.objectives, options.seeds, options.out)
    if options.collect:
        options.collect.write_text(json.dumps(kept, indent=1) + '\n')


if __name__ == '__main__':
    main()
