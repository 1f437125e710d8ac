"""New users and new items: which representation of somebody unknown makes the best list? Resumable.

    python benchmarks/cold.py --data DATA_FOLDER --out runs/cold [--only bookshop imdb-exp3rt] [--collect FILE]
    python benchmarks/cold.py --data DATA_FOLDER --out runs/cold --choose FILE

Of each data set 10 % of the users are kept out of the training altogether, and another 10 % on which everything is
chosen; of the items likewise. What a guest is known by are the k earliest liked items (k = 1, 3, 5, 10) and a profile
written from exactly these by the template; for k = 0 a text of another source: a sentence from the planted tastes
(bookshop), the persona that came with the data (imdb-exp3rt). Every finished step is kept and not run again.
`--step prepare | train | measure` runs one step alone.
"""

import argparse
import json
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from promax_nb.data.bookshop import toy_data
from promax_nb.data.frames import from_frame
from promax_nb.data.interactions import assemble
from promax_nb.data.loaders import from_atomic
from promax_nb.lettingo.claims import true_tastes
from promax_nb.methods import cheap_methods, recommended, with_trainings
from promax_nb.models.bases import LightGCN
from promax_nb.models.inference import two_level
from promax_nb.models.objectives import ProMax
from promax_nb.models.results import load_fit, versions
from promax_nb.models.scorers import array_scorer
from promax_nb.models.train import TrainConfig, fit
from promax_nb.profiles.clauses import wishes
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.template import and_list, template
from promax_nb.profiles.write import write
from promax_nb.recommend.build import recommender
from promax_nb.recommend.guests import GUEST, Guest
from promax_nb.recommend.newcomers import NEWCOMERS, item_vectors
from promax_nb.recommend.sentences import UNWANTED
from promax_nb.retrieval.augment import augment
from promax_nb.retrieval.embed import encode, whitening
from promax_nb.retrieval.vectors import unit_rows

NAMES = ('bookshop', 'imdb-exp3rt', 'amazon-industrial', 'ml-100k', 'steam-sub')
SEEDS = (0, 1, 2)
KNOWN = (1, 3, 5, 10)
WIDTH = 64
TOP = 20
STEAM_USERS = 6000  # of 23,268: a quarter, so that three trainings take minutes
NOBODY = np.empty(0, np.int64)


# who and what is kept out


def load_world(name, data):
    """RecData of one data set; nothing is held out yet."""
    if name == 'bookshop':
        return toy_data(1000, 500)
    if name == 'ml-100k':
        return from_atomic(data / name, split='random')
    folder, ids = data / name, {'user': str, 'item': str}
    events = pd.read_csv(next(folder.glob('*events.csv')), dtype=ids)
    events = events.drop(columns=['split', 'rlmrec_split'], errors='ignore')
    items = pd.read_csv(next(folder.glob('*items.csv')), dtype=ids)
    if name == 'steam-sub':
        kept = np.random.default_rng(0).choice(events['user'].unique(), STEAM_USERS, replace=False)
        events = events[events['user'].isin(kept)]
    users = pd.read_csv(folder / 'users.csv', dtype=ids) if (folder / 'users.csv').exists() else None
    return from_frame(events, items, users, kcore=0, split='random', name=name, allow_cold=True)


def likings(whole):
    """Liked events in the order in which they came: user, item, place; by chance where no order is known."""
    liked = (whole.train + whole.valid + whole.test).tocsr()
    events = whole.events[np.asarray(liked[whole.events['user'], whole.events['item']]).ravel() > 0]
    events = events.assign(chance=np.random.default_rng(0).random(len(events)))
    return events.sort_values(['user', 'time', 'chance'], kind='stable')[['user', 'item']]


def roles(n, seed, eligible=None):
    """'test' and 'valid' for a tenth each of those who may be kept out, 'warm' for the others."""
    found = np.full(n, 'warm', dtype=object)
    drawn = np.random.default_rng(seed).permutation(np.arange(n) if eligible is None else np.flatnonzero(eligible))
    tenth = len(drawn) // 10
    found[drawn[:tenth]] = 'test'
    found[drawn[tenth : 2 * tenth]] = 'valid'
    return found


def diary_of(events, users, split):
    """Events as RecData wants them."""
    return pd.DataFrame({
        'user': users, 'item': events['item'].to_numpy(), 'rating': np.nan, 'time': np.nan, 'split': split,
        'positive': True,
    })


def cold_world(name, data):
    """What is trained on, and who and what is kept out."""
    whole = load_world(name, data)
    events = likings(whole)
    counts = np.bincount(events['user'], minlength=whole.n_users)
    people, things = roles(whole.n_users, 0, counts >= 2), roles(whole.n_items, 1)
    events = events.assign(who=people[events['user']], what=things[events['item']])
    warm = events[(events['who'] == 'warm') & (events['what'] == 'warm')]
    ids, rows = np.unique(warm['user'], return_inverse=True)
    rng = np.random.default_rng(2)
    chance, shuffled = rng.random(len(warm)), rng.permutation(len(warm))
    first = np.zeros(len(warm), bool)
    first[shuffled[np.unique(rows[shuffled], return_index=True)[1]]] = True
    split = np.where(first | (chance > 0.12), 'train', np.where(chance > 0.02, 'valid', 'test'))
    users = whole.users.iloc[ids].reset_index(drop=True)
    train = assemble(diary_of(warm, rows, split), users, whole.items, name=name)
    return SimpleNamespace(name=name, whole=whole, events=events, train=train, people=people, things=things, ids=ids)


@dataclass
class Visitors:
    """Users who were kept out, what is known about them, and what they chose later."""

    ids: np.ndarray  # rows of the whole data
    known: list  # arrays of item rows, in order
    target: list  # arrays of item rows
    data: object = None  # RecData whose train part is what is known


def visitors(world, who, k):
    """Those who have more than k items that were trained on."""
    events = world.events[(world.events['who'] == who) & (world.events['what'] == 'warm')]
    place = events.groupby('user').cumcount()
    events, place = (part[events.groupby('user')['item'].transform('size') > k] for part in (events, place))
    ids, rows = np.unique(events['user'], return_inverse=True)
    items, known = events['item'].to_numpy(), (place < k).to_numpy()
    parts = [[items[(rows == row) & side] for row in range(len(ids))] for side in (known, ~known)]
    if not k:
        return Visitors(ids, *parts)
    split = np.where(known, 'train', 'test')
    split[np.flatnonzero(~known)[0]] = 'valid'  # RecData wants one
    users = pd.DataFrame({'user': ids.astype(str)})
    return Visitors(ids, *parts, assemble(diary_of(events, rows, split), users, world.whole.items, name='visitors'))


# texts and vectors


def sentences(world, ids):
    """name -> texts: how somebody without a history might say it; '' where nothing is said."""
    if world.name == 'bookshop':
        tastes = true_tastes(world.whole)
        loved, hated = (tastes[side][ids].map(sorted).tolist() for side in ('liked', 'disliked'))
        pairs = list(zip(loved, hated, strict=True))
        said = [f'I love {and_list(yes)}' + f', no {" and no ".join(no)}.' * bool(no) for yes, no in pairs]
        kept = [f'; keeps away from {and_list(no)}' * bool(no) for _, no in pairs]
        styled = [f'Enjoys {and_list(yes)}{away}.' for (yes, _), away in zip(pairs, kept, strict=True)]
    elif 'profile' in world.whole.users:
        said = world.whole.users['profile'][ids].tolist()
        styled = [''] * len(said)
    else:
        return {}
    cut = [wishes(text) for text in said]
    wanted, unwanted = ([pair[side] for pair in cut] for side in (0, 1))
    enjoys = [f'Enjoys {text}.' if text else '' for text in wanted]
    return {'whole': said, 'styled': styled, 'wanted': wanted, 'unwanted': unwanted, 'enjoys': enjoys}


def reader(world, out):
    """What makes vectors of texts, and keeps them."""
    return partial(encode, cache=out / f'{world.name}-vectors.db', empty='zero')


def profiles_of(world, out):
    """Profiles of users and of items by the template, as tables."""
    store = out / f'{world.name}.db'
    items = write(template(), item_prompts(world.train), store=store)
    return write(template(), user_prompts(world.train, items), store=store), items


def prepare(world, out):
    """Vectors of everybody who is trained on, of all items and of all visitors, as one file."""
    path = out / f'{world.name}.npz'
    if path.exists():
        return np.load(path)
    store, read = out / f'{world.name}.db', reader(world, out)
    users, items = profiles_of(world, out)
    raw_users, raw_items = (read(list(table['profile'])) for table in (users, items))
    place = whitening(np.concatenate([raw_users, raw_items[world.things == 'warm']]), WIDTH)
    found = {'su': place(raw_users), 'si': place(raw_items)}
    for who in ('valid', 'test'):
        for k in KNOWN:
            table = write(template(), user_prompts(visitors(world, who, k).data, items), store=store)
            found[f'{who}-{k}'] = place(read(list(table['profile'])))
        for style, texts in sentences(world, visitors(world, who, 0).ids).items():
            found[f'{who}-0-{style}'] = place(read(texts))
    np.savez(path, **found)
    return np.load(path)


def config_of(name):
    """How long each is trained."""
    small = name in ('bookshop', 'imdb-exp3rt')
    return TrainConfig(batch=512 if small else 2048, lr=3e-3, min_steps=300, patience=8, device='cpu')


def trained(world, made, seed, out):
    """LightGCN with ProMax; read where it is there."""
    folder = out / f'{world.name}-{seed}'
    if not (folder / 'card.json').exists():
        si = np.where((world.things == 'warm')[:, None], made['si'], 0)  # the teacher does not speak of them, either
        added = augment(world.train, made['su'], si)[0]
        objective = ProMax(made['su'], si, added, 0.5, 0.05, terms='exact')
        model = LightGCN(world.train, dim=32, seed=seed)
        fit(model, objective, world.train, config_of(world.name), folder).save(folder)
    return load_fit(folder)


# what is measured


def chosen_runs(world, made, results, out):
    """What validation recommends of all that `promax run` would try, one for each training, and what it is called."""
    warm = (world.things == 'warm')[:, None]  # items that were kept out are not told of
    raw = [reader(world, out)(list(table['profile'])) for table in profiles_of(world, out)]
    spaces = [(su, np.where(warm, si, 0)) for su, si in (raw, (made['su'], made['si']))]
    found = with_trainings(cheap_methods(world.train, *spaces), world.train, {'LightGCN + ProMax': results})
    best = recommended(found.methods)['method']
    runs = next(method.runs for method in found.methods if method.name == best)
    return best, runs if len(runs) == len(results) else runs * len(results)


def served_by(world, made, result, best=None):
    """What was trained, with the ids of the whole data."""
    tables = array_scorer(result.users, result.items)
    return recommender(world.train, tables, recommended=best, vectors=(made['su'], made['si']))


def of_lists(scores, known, target):
    """(U, 2) Recall and NDCG of the first 20, what is known left out; one row of scores a user."""
    found = np.zeros((len(target), 2))
    discount = 1 / np.log2(np.arange(2, TOP + 2))
    for row, (mine, left_out, wanted) in enumerate(zip(scores, known, target, strict=True)):
        mine = np.array(mine, np.float64)
        mine[left_out] = -np.inf
        best = np.argsort(-mine, kind='stable')[:TOP]
        hits = np.isin(best, wanted) & (mine[best] > -np.inf)
        found[row] = hits.sum() / len(wanted), discount @ hits / discount[: len(wanted)].sum()
    return found


def guests_of(served, people, placed, way, side='ours', said=None):
    """The scores of every visitor, one after the other."""
    nothing = [None] * len(people.ids)
    for known, vector in zip(people.known, nothing if placed is None else placed, strict=True):
        yield Guest(served, known, NOBODY, way, vector, said).scores(side)


def history_vectors(served, people):
    """What the texts of the known items say."""
    units = unit_rows(served.vectors[1])
    return [units[known].mean(0) for known in people.known]


WAYS = {  # name -> (way of the guest, what it is told: profile, items, both, history: the texts of the items)
    'mean of the known items': ('items', 'items'),
    'nearest users': ('neighbours', 'profile'),
    'profile retrieval': ('retrieval', 'profile'),
    'retrieval by item texts': ('retrieval', 'history'),
    'teacher over frozen items': ('taught', 'profile'),
    'SDR with frozen items': ('reshaped', 'profile'),
    'ridge map': ('mapped', 'profile'),
    'guest, profile': ('auto', 'profile'),
    'guest, items': ('auto', 'history and items'),
    'guest, both': ('auto', 'both'),
}
RECOMMENDED = {'recommended, items': 'history and items', 'recommended, both': 'both'}  # name -> what it is told


def measure_users(world, made, served, who):
    """'user|k|method' -> (U, 2)."""
    found = {}
    popular = np.asarray(served.train.sum(0), np.float64).ravel()
    for k in KNOWN:
        people = visitors(world, who, k)
        told = {'profile': made[f'{who}-{k}'], 'history': history_vectors(served, people)}
        told |= {'history and items': told['history'], 'items': None, 'both': told['profile']}
        found[f'user|{k}|popularity'] = of_lists([popular] * len(people.ids), people.known, people.target)
        without = Visitors(people.ids, [NOBODY] * len(people.ids), people.target)
        for method, (way, tells) in WAYS.items():
            asked = without if tells in ('profile', 'history') else people
            scores = guests_of(served, asked, told[tells], way)
            found[f'user|{k}|{method}'] = of_lists(scores, people.known, people.target)
        for method, tells in RECOMMENDED.items() if served.recommended is not None else ():
            said = ('a profile', '') if tells == 'both' else None
            scores = guests_of(served, people, told[tells], 'auto', 'recommended', said)
            found[f'user|{k}|{method}'] = of_lists(scores, people.known, people.target)
    return found


SENTENCES = {  # what is read of a sentence: how the vector is made of its parts
    'as typed': lambda part, less: part['whole'],
    'written like a profile': lambda part, less: part['styled'],
    'what is wanted': lambda part, less: part['wanted'],
    'wanted, less what is not': lambda part, less: unit_rows(part['wanted']) - unit_rows(part['unwanted']),
    'as read_wish does': lambda part, less: unit_rows(part['wanted']) - less * unit_rows(part['unwanted']),
}


def disliked_share(world, people, scores):
    """How many of the first 20 have an attribute that the reader dislikes (bookshop)."""
    truth = world.whole.extras['truth']
    bad = (truth['user_dislikes'][people.ids] > 0).astype(int) @ (truth['item_attributes'] > 0).astype(int).T > 0
    tops = [np.argsort(-np.asarray(mine), kind='stable')[:TOP] for mine in scores]
    return np.array([bad[row, top].mean() for row, top in enumerate(tops)])


def measure_sentences(world, made, served, who):
    """'sentence|0|reading: method' -> (U, 2), and for the bookshop the share of disliked books."""
    people, found = visitors(world, who, 0), {}
    styles = ('whole', 'styled', 'wanted', 'unwanted', 'enjoys')
    parts = {style: made[f'{who}-0-{style}'] for style in styles if f'{who}-0-{style}' in made}
    if not parts:
        return {}
    popular = np.asarray(served.train.sum(0), np.float64).ravel()
    found['sentence|0|popularity'] = of_lists([popular] * len(people.ids), people.known, people.target)
    for reading, vector in SENTENCES.items():
        placed = vector(parts, UNWANTED)
        if not np.any(placed):
            continue
        for method in ('profile retrieval', 'nearest users', 'guest, profile'):
            scores = list(guests_of(served, people, placed, WAYS[method][0]))
            found[f'sentence|0|{reading}: {method}'] = of_lists(scores, people.known, people.target)
            if world.name == 'bookshop':
                found[f'disliked|0|{reading}: {method}'] = disliked_share(world, people, scores)[:, None]
    return found


def measure_items(world, made, served, who):
    """'item|where|method' -> (U, 2): warm users and the items that were kept out, among these and in the whole shop."""
    events = world.events[(world.events['who'] == 'warm') & (world.events['what'] == who)]
    new = np.flatnonzero(world.things == who)
    rows = np.searchsorted(world.ids, events['user'])
    users = np.unique(rows)
    target = [events['item'].to_numpy()[rows == user] for user in users]
    (su, si), (u, v) = served.vectors, served.ours.vectors
    trained = np.asarray(served.train.sum(0)).ravel() > 0
    history = unit_rows(np.asarray(served.train[users] @ unit_rows(si)))
    known = [served.train[[user]].indices for user in users]
    texts = {'profile retrieval': unit_rows(su[users]), 'retrieval by item texts': history}
    scores = {name: vector @ unit_rows(si).T for name, vector in texts.items()}
    made_up = {'add_items': 'both', 'nearest items': 'neighbours', 'ridge map': 'mapped'}
    for name, way in made_up.items():
        vectors = np.array(v)
        vectors[new] = item_vectors(si[new], si, v, trained, way)
        scores[name] = u[users] @ vectors.T
    scores['untrained'] = u[users] @ v.T
    scores['by chance'] = np.random.default_rng(0).random((len(users), len(si)))
    found, others = {}, np.flatnonzero(world.things != who)
    unseen = np.flatnonzero(~trained & (world.things != who))  # of no split: they are nobody's
    for name, table in scores.items():
        found[f'item|among the new|{name}'] = of_lists(table, [others] * len(users), target)
        if name not in texts and name != 'by chance':
            left_out = [np.concatenate([mine, unseen]) for mine in known]
            found[f'item|in the whole shop|{name}'] = of_lists(table, left_out, target)
    return found


LEFT_OUT = {  # name -> settings of the guest with both
    'guest, both, without popularity': {'popularity': 0},
    'guest, both, without text scores': {'text_share': 0},
    'guest, both, without like-minded users': {'profile_weight': 0},
}
GRID = {
    f'popularity {popularity}, texts {texts}, profile {profile}': {
        'popularity': popularity, 'text_share': texts, 'profile_weight': profile,
    }
    for popularity, texts, profile in product((0, 0.5, 1, 1.5, 2), (0, 0.2, 0.4, 0.6), (0, 0.5, 1))
}


def measure_variants(world, made, served, who, variants):
    """'user|k|variant' -> (U, 2): the guest with both, mixed in other ways."""
    found = {}
    for k in KNOWN:
        people = visitors(world, who, k)
        for name, settings in variants.items():
            served.settings = {'guest': settings}
            scores = guests_of(served, people, made[f'{who}-{k}'], 'auto')
            found[f'user|{k}|{name}'] = of_lists(scores, people.known, people.target)
    return found


def measured(world, made, seed, out, who, best=None):
    """All per-user values of one training; read where they are there."""
    path = out / f'{world.name}-{seed}-{who}.npz'
    if not path.exists():
        served = served_by(world, made, trained(world, made, seed, out), best)
        found = measure_users(world, made, served, who) | measure_sentences(world, made, served, who)
        found |= measure_items(world, made, served, who)
        np.savez(path, **found | measure_variants(world, made, served, who, LEFT_OUT))
    return np.load(path)


def choose(worlds, out, file):
    """What the weights of the default rest on: NDCG on validation users, first seed, beside the better of two parts."""
    rows = {}
    for name, (world, made) in worlds.items():
        path = out / f'{name}-grid.npz'
        if not path.exists():
            served = served_by(world, made, trained(world, made, SEEDS[0], out))
            np.savez(path, **measure_variants(world, made, served, 'valid', GRID))
        whole, parts = np.load(path), measured(world, made, SEEDS[0], out, 'valid')
        for key in whole.files:
            _, k, variant = key.split('|')
            usual = [parts[f'user|{k}|{part}'][:, 1].mean() for part in ('popularity', 'mean of the known items')]
            rows.setdefault(variant, {})[f'{name}, k = {k}'] = round(float(whole[key][:, 1].mean() / max(usual)), 4)
    means = {variant: round(float(np.mean(list(row.values()))), 4) for variant, row in rows.items()}
    order = sorted(rows, key=lambda variant: -means[variant])
    table = [{'variant': variant, 'mean': means[variant], **rows[variant]} for variant in order]
    told = 'NDCG@20 of the guest with both, beside the better of popularity and the mean of the known items'
    Path(file).write_text(json.dumps({'measure': told, 'part': 'valid', 'seed': SEEDS[0], 'rows': table}, indent=1))


# the table


def beside(ours, base):
    """Difference of two methods on the same users and trainings, with the two-level interval."""
    difference = np.stack(ours) - np.stack(base)  # both come from the same trainings: chance in them is shared
    table = two_level(np.zeros_like(difference[:1]), difference)
    names = ('difference', 'low', 'high', 'p')
    values = (difference.mean((0, 1)), table['method_low'], table['method_high'], table['method_p'])
    return dict(zip(names, (np.asarray(part).round(5).tolist() for part in values), strict=True))


def collect(worlds, out, file, seeds, who='test'):
    """Means of every method, and the guest beside each of the others."""
    result = {'command': 'python benchmarks/cold.py --data DATA_FOLDER --out runs/cold', 'part': who, 'seeds': seeds}
    result |= {'top': TOP, 'width': WIDTH, 'steam_users': STEAM_USERS, 'guest': GUEST, 'newcomers': NEWCOMERS}
    result |= {'unwanted': UNWANTED, 'versions': versions(), 'metrics': ['recall@20', 'ndcg@20'], 'data': {}}
    for name, (world, made) in worlds.items():
        runs = [measured(world, made, seed, out, who) for seed in seeds]
        rows = {}
        for key in runs[0].files:
            part, k, method = key.split('|')
            values = [run[key] for run in runs]
            row = {'mean': np.mean(values, (0, 1)).round(5).tolist(), 'users': len(values[0])}
            ours = {'user': 'guest, both', 'item': 'add_items'}.get(part)
            guests = 'guest, both', 'guest, items', 'guest, profile', *RECOMMENDED
            for against in {'user': guests, 'item': (ours,)}.get(part, ()):
                if against != method and f'{part}|{k}|{against}' in runs[0]:
                    row[f'{against} beside it'] = beside([run[f'{part}|{k}|{against}'] for run in runs], values)
            rows.setdefault(part, {}).setdefault(k, {})[method] = row
        best = json.loads((out / f'{name}-recommended.json').read_text(encoding='utf-8'))
        result['data'][name] = {'world': repr(world.train), 'recommended': best} | rows
    Path(file).write_text(json.dumps(result, indent=1, default=float))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', type=Path, help='folder with ml-100k, amazon-industrial, steam-sub, imdb-exp3rt')
    p.add_argument('--out', type=Path, default=Path('runs/cold'))
    p.add_argument('--only', nargs='+', default=list(NAMES), choices=NAMES)
    p.add_argument('--seeds', nargs='+', type=int, default=list(SEEDS))
    p.add_argument('--step', choices=('prepare', 'train', 'measure'), help='one step alone')
    p.add_argument('--who', choices=('test', 'valid'), default='test', help='whose numbers; choices were made on valid')
    p.add_argument('--choose', type=Path, help='measure the weights of the default on validation users, write it here')
    p.add_argument('--collect', type=Path, help='write the numbers here')
    a = p.parse_args()
    torch.set_num_threads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    worlds = {}
    for name in a.only:
        world = cold_world(name, a.data)
        worlds[name] = world, prepare(world, a.out)
        results = []
        for seed in a.seeds if a.step != 'prepare' else ():
            results.append(trained(*worlds[name], seed, a.out))
            print(name, seed, world.train, results[-1].best_epoch, results[-1].best_score, flush=True)
        wanted = [seed for seed in a.seeds if not (a.out / f'{name}-{seed}-{a.who}.npz').exists()]
        if wanted and a.step not in ('prepare', 'train') and not a.choose:
            best, runs = chosen_runs(*worlds[name], results, a.out)
            (a.out / f'{name}-recommended.json').write_text(json.dumps(best), encoding='utf-8')
            for seed, run in zip(a.seeds, runs, strict=True):
                measured(*worlds[name], seed, a.out, a.who, run)
    if a.choose:
        choose(worlds, a.out, a.choose)
    if a.collect:
        collect(worlds, a.out, a.collect, a.seeds, a.who)


if __name__ == '__main__':
    main()
