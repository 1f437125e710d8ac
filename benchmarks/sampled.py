"""Estimated SDR and S2DR beside the exact terms: quality, time, bias and variance. Resumable: one JSON a training.

    python benchmarks/sampled.py DATA_FOLDER --out runs/sampled [--ways ...] [--seeds 0 1 2]
        [--only shop films rates tuned tuned-1 tuned-2 industrial book bias times-tuned]

shop, films: amazon-industrial and ml-100k split at random within each user, settings and defaults of `promax run`;
there the losses help, so that an estimate could lose something. `continued` is exact, and begins where the base ended.
tuned: shop with what validation chose for base and ProMax in benchmarks/fair.py, equal trials for both; `own rate` is
as it comes, with the learning rate that validation likes best with other seeds (rates, before it). tuned-1, tuned-2:
with what was chosen on that split, two others.
industrial: LightGCN on amazon-industrial (its own split, template profiles, of an item 64 tokens read, retrieval order)
with BPR, with both exact terms, and with both terms estimated in several ways. book: LightGCN, layers 1..3, on
Amazon-book with S2DR 0.05 over the published augmented matrix, estimated; its exact trainings and its base are those of
benchmarks/amazon_book.py.
times-...: epochs of base, exact and estimated in turn, in one process. bias: value and gradient of the estimates beside
the exact ones, at the vectors of a trained model. Test events are read once, by the model that validation chose.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from fair import BATCH, prepared
from null_pairs import load as load_industrial

from promax_nb.data.published import from_rlmrec
from promax_nb.data.storage import write_json
from promax_nb.data.threads import freed_memory_kept
from promax_nb.models.bases import LightGCN
from promax_nb.models.evaluate import evaluate, held_out
from promax_nb.models.losses import s2dr_loss
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.results import load_tensors, versions
from promax_nb.models.sampled import sampled_s2dr
from promax_nb.models.train import PairSampler, TrainConfig, fit
from promax_nb.models.warm import warm_start
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.template import template
from promax_nb.profiles.write import write
from promax_nb.retrieval.augment import augment
from promax_nb.retrieval.embed import encode, whiten


def sampled(anchors, columns, batch_anchors, batch_columns, every=1):
    """Arguments of ProMax."""
    sizes = dict(anchors=anchors, columns=columns, batch_anchors=batch_anchors, batch_columns=batch_columns)
    return {'terms': 'sampled', **sizes, 'every': every}


WAYS = {  # name -> arguments of ProMax
    'exact': {'terms': 'exact'},
    'sampled': sampled(256, 512, 256, 512),
    'sampled, every 2nd step': sampled(256, 512, 256, 512, 2),
    'sampled, every 4th step': sampled(256, 512, 256, 512, 4),
    'sampled, more users, every 2nd step': sampled(512, 4096, 256, 512, 2),
    'as it comes': {'terms': 'sampled'},
    'sampled, few': sampled(64, 128, 64, 128),
    'own rate': {'terms': 'sampled'},
    'continued': {'terms': 'exact'},
}
RATES = 0.003, 0.002, 0.001  # learning rates
OTHERS = {'as it comes': range(10, 16), 'exact': range(10, 13)}  # seeds that choose among them; exact ones take longer
AS_RUN = {  # data set and random split
    'shop': ('amazon-industrial', '0'),
    'films': ('ml-100k', '0'),
    'tuned': ('amazon-industrial', '0'),
    'tuned-1': ('amazon-industrial', '1'),
    'tuned-2': ('amazon-industrial', '2'),
}
FAIR = Path(__file__).parent / 'results' / 'fair.json'
SETTINGS = {
    'shop': TrainConfig(batch=2048, device='cpu'),
    'films': TrainConfig(batch=2048, device='cpu'),
    'tuned': TrainConfig(batch=BATCH, device='cpu'),  # lr and reg: see `chosen`
    'tuned-1': TrainConfig(batch=BATCH, device='cpu'),
    'tuned-2': TrainConfig(batch=BATCH, device='cpu'),
    'industrial': TrainConfig(batch=2048, min_steps=300, patience=10, device='cpu'),
    'book': TrainConfig(min_steps=3000, device='cpu'),
}


def chosen(method):
    """What validation chose on amazon-industrial."""
    cells = json.loads(FAIR.read_text(encoding='utf-8'))
    return cells['amazon-industrial-0-LightGCN-64']['methods'][method]['settings']


def settings(world, way, results):
    """How a way is trained."""
    if not world.tuned:
        return SETTINGS[world.name]
    shared = chosen('base' if way == 'base' else 'ProMax')
    lr = shared['lr']
    if way == 'own rate':
        tried = json.loads((results / 'rates.json').read_text(encoding='utf-8'))['as it comes']
        lr = float(max(tried, key=lambda rate: np.mean([one['valid recall@20'] for one in tried[rate]])))
    return dataclasses.replace(SETTINGS[world.name], lr=lr, reg=shared['reg'])


def rates(world, results):
    """What validation says of learning rates, with seeds that test never sees; resumable."""
    path = results / 'rates.json'
    found = json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}
    for way, others in OTHERS.items():
        for lr in RATES:
            made = found.setdefault(way, {}).setdefault(str(lr), [])
            for seed in others[len(made) :]:
                config = dataclasses.replace(settings(world, way, results), lr=lr, epochs=200, min_steps=0)
                result = fit(world.base(seed), world.objective(way), world.data, config, progress=False)
                made.append({'seed': seed, 'valid recall@20': result.best_score, 'best_epoch': result.best_epoch})
                write_json(path, found)
                print(way, lr, made[-1], flush=True)


class World:
    """Data, and what an objective needs, of one of the data sets."""

    def __init__(self, name, folder, out):
        self.name, self.tuned = name, name.startswith('tuned')
        if name in AS_RUN:
            self.data, *self.vectors, self.added = prepared(*AS_RUN[name], 64, folder, out)
            return
        if name == 'book':
            self.data = from_rlmrec(folder / 'amazon-book')
            self.vectors = None, None
            self.added = self.data.extras['augmented'] - self.data.extras['augmented'].multiply(self.data.train)
            self.added.eliminate_zeros()
            return
        self.data = load_industrial(folder / 'amazon-industrial')
        self.vectors = self.place(out)
        self.added = augment(self.data, *self.vectors)[0]

    def place(self, out):
        """Whitened vectors of users and items, kept."""
        path = out / 'industrial.npz'
        if not path.exists():
            items = write(template(), item_prompts(self.data), store=out / 's.db', progress=False)
            users = write(template(), user_prompts(self.data, items), store=out / 's.db', progress=False)
            raw_users = encode(list(users['profile']), cache=out / 'v.db', empty='zero')
            raw_items = encode(list(items['profile']), cache=out / 'v.db', empty='zero', max_length=64)
            su, si = whiten(raw_users, raw_items, dim=64)
            np.savez(path, su=su, si=si)
        kept = np.load(path)
        return kept['su'], kept['si']

    def base(self, seed):
        if self.tuned:
            return LightGCN(self.data, 64, sum_layers=(1, 2, 3), seed=seed)
        if self.name == 'book':
            return LightGCN(self.data, sum_layers=(1, 2, 3), seed=seed)
        return LightGCN(self.data, seed=seed)

    def objective(self, way):
        if way == 'base':
            return BPR()
        weights = {'sdr': 0.0, 's2dr': 0.05} if self.name == 'book' else {'sdr': 0.5, 's2dr': 0.01}
        if self.tuned:
            weights = {term: chosen('ProMax')[term] for term in weights}
        return ProMax(*self.vectors, self.added, **weights, **WAYS[way])


def train(world, way, seed, out, results, epochs):
    """One training, unless it is there."""
    name = f'{world.name}-{way.replace(", ", "-").replace(" ", "-")}-{seed}'
    target = results / f'{name}.json'
    if target.exists():
        return
    began = time.process_time()
    config, model = dataclasses.replace(settings(world, way, results), epochs=epochs), world.base(seed)
    if way == 'continued':  # patience counts at once: nothing has to get going
        config = dataclasses.replace(config, min_steps=0)
        warm_start(model, out / f'{world.name}-base-{seed}', world.data, world.data)
    result = fit(model, world.objective(way), world.data, config, out / name, progress=False)
    result.save(out / name)
    scores = evaluate(result.users, result.items, *held_out(world.data, 'test', 'train'))
    found = {
        'data': world.name,
        'way': way,
        'settings': WAYS.get(way, {}),
        'lr': config.lr,
        'seed': seed,
        'test': scores,
        'valid recall@20': result.best_score,
        'best_epoch': result.best_epoch,
        'epochs': len(result.history),
        'stopped': 'by validation' if len(result.history) < epochs else 'by --epochs',
        'processor seconds, with other work beside it': time.process_time() - began,
        'versions': versions(),
    }
    target.write_text(json.dumps(found, indent=1), encoding='utf-8')
    told = {name: round(scores[name], 4) for name in ('recall@20', 'ndcg@20')}
    print(target.name, told, f'valid {result.best_score:.4f}, epoch {result.best_epoch}', flush=True)


def epoch(model, objective, optimizer, triples, config):
    """Seconds of one pass over the triples."""
    began = time.perf_counter()
    for start in range(0, len(triples[0]), config.batch):
        terms = objective(model, *(column[start : start + config.batch] for column in triples))
        terms['reg'] = config.reg * sum(parameter.square().sum() for parameter in model.parameters())
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        optimizer.step()
    return time.perf_counter() - began


def times(world, seconds, results):
    """Epochs of base, exact and estimated in turn, in one process: median seconds, and the ratio to the base."""
    config, sides = settings(world, 'base', results), {}
    for way in ('base', *(way for way in WAYS if way not in ('continued', 'own rate'))):
        model = world.base(0)
        sides[way] = model, world.objective(way), torch.optim.Adam(model.parameters(), lr=config.lr)
    sampler, rng, found = PairSampler(world.data.train), np.random.default_rng(0), {way: [] for way in sides}
    until = time.perf_counter() + seconds
    with freed_memory_kept():  # as in `fit`
        while time.perf_counter() < until or len(found['base']) < 3:
            triples = [torch.from_numpy(column) for column in sampler.epoch(rng)]
            for way, parts in sides.items():
                found[way].append(epoch(*parts, triples, config))
    middle = {way: float(np.median(rounds[1:])) for way, rounds in found.items()}
    ratio = {way: value / middle['base'] for way, value in middle.items()}
    return {'seconds an epoch': middle, 'times the base': ratio, 'rounds': len(found['base']) - 1}


def spread(estimate, exact, repeats):
    """Bias and standard deviation of an estimate and its gradient, relative to the exact ones."""
    value, gradient = exact
    drawn = [estimate() for _ in range(repeats)]
    values = torch.tensor([float(one) for one, _ in drawn], dtype=torch.float64)
    gradients = torch.stack([one for _, one in drawn])
    mean = gradients.mean(0)
    noise = (gradients - mean).square().sum((1, 2)).mean().sqrt()
    bias = (mean - gradient).square().sum() - noise.square() / (repeats - 1)  # less what is left of the noise
    return {
        'bias of the value': float(values.mean() - value) / abs(value),
        'its standard error': float(values.std() / repeats**0.5) / abs(value),
        'sd of the value': float(values.std()) / abs(value),
        'bias of the gradient': float(bias.clamp_min(0).sqrt() / gradient.norm()),
        'sd of the gradient': float(noise / gradient.norm()),
    }


def bias(world, out, repeats):
    """The estimates beside the exact terms at the vectors of a trained model, for one batch."""
    model, objective = world.base(0), world.objective('exact')
    model.load_state_dict(load_tensors(out / 'industrial-exact-0' / 'model.safetensors')[0])
    users, pos, _ = (torch.from_numpy(x[:2048]) for x in PairSampler(world.data.train).epoch(np.random.default_rng(0)))
    with torch.no_grad():
        views = [torch.cat(model(graph)) for graph in (None, objective.second_graph(model))]
    n_users, rows = len(model.user), []

    def cut(nodes):
        return nodes[:n_users], nodes[n_users:]

    def both(term):
        """Value, and gradient with respect to the vectors of view 1."""
        view = views[0].clone().requires_grad_()
        value = term(cut(view))
        return float(value.detach()), torch.autograd.grad(value, view)[0]

    exact = {
        'sdr': both(lambda view: objective.reshaping(users, *view)),
        's2dr': both(lambda view: s2dr_loss(view, cut(views[1]), users, pos, 0.2)),
    }
    for anchors, size in ((64, 128), (64, 4000), (256, 128), (256, 512), (256, 4000), (4000, 128), (4000, 512)):
        one = ProMax(*world.vectors, world.added, **sampled(anchors, size, anchors, size))
        estimates = {
            'sdr': lambda view, one=one: one.sampled_reshaping(users, pos, *view),
            's2dr': lambda view, a=anchors, c=size: sampled_s2dr(view, cut(views[1]), users, pos, 0.2, a, c),
        }
        for term, estimate in estimates.items():
            row = spread(lambda estimate=estimate: both(estimate), exact[term], repeats)
            rows.append({'term': term, 'anchors': anchors, 'columns': size, **row})
            print(rows[-1], flush=True)
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', type=Path, help='folder with amazon-book, amazon-industrial and ml-100k')
    p.add_argument('--out', type=Path, default=Path('runs/sampled'), help='folder for checkpoints and vectors')
    p.add_argument('--only', nargs='+', default=['industrial', 'book', 'times-industrial', 'times-book', 'bias'])
    p.add_argument('--ways', nargs='+', default=['base', *WAYS])
    p.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    p.add_argument('--epochs', type=int, default=1000, help='most epochs of a training')
    p.add_argument('--seconds', type=float, default=60, help='of the times, for each data set')
    p.add_argument('--repeats', type=int, default=400, help='draws of the bias')
    p.add_argument('--results', type=Path, default=Path(__file__).parent / 'results' / 'sampled')
    a = p.parse_args()
    a.results.mkdir(parents=True, exist_ok=True)
    a.out.mkdir(parents=True, exist_ok=True)
    if 'rates' in a.only:
        rates(World('tuned', a.data, a.out), a.results)
    for name in SETTINGS:
        if name in a.only:
            world = World(name, a.data, a.out)
            for seed in a.seeds:
                for way in a.ways:
                    if (way != 'continued' or name in AS_RUN) and (way != 'own rate' or world.tuned):
                        train(world, way, seed, a.out, a.results, a.epochs)
        path = a.results / f'times-{name}.json'
        if f'times-{name}' in a.only and not path.exists():
            found = {'threads': torch.get_num_threads(), **times(World(name, a.data, a.out), a.seconds, a.results)}
            path.write_text(json.dumps(found, indent=1), encoding='utf-8')
    if 'bias' in a.only:
        rows = bias(World('industrial', a.data, a.out), a.out, a.repeats)
        (a.results / 'bias.json').write_text(json.dumps(rows, indent=1), encoding='utf-8')


if __name__ == '__main__':
    main()
