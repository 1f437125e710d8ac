"""New users and new items: which representation of somebody unknown makes the best list? Resumable.

    python benchmarks/cold.py --data DATA_FOLDER --out runs/cold [--only bookshop imdb-exp3rt] [--collect FILE]

Of each data set 10 % of the users (and another 10 %, on which everything is chosen) and as many of the items are kept
out of the training altogether. What a guest is known by are the k earliest liked items (k = 1, 3, 5) and a profile
that is written from exactly these, or, for k = 0, a text of another source. Every finished training is kept.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from promax_nb.data.bookshop import toy_data
from promax_nb.data.frames import from_frame
from promax_nb.data.interactions import assemble
from promax_nb.data.loaders import from_atomic
from promax_nb.models.bases import LightGCN
from promax_nb.models.objectives import ProMax
from promax_nb.models.results import load_fit
from promax_nb.models.train import TrainConfig, fit
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.template import template
from promax_nb.profiles.write import write
from promax_nb.retrieval.augment import augment
from promax_nb.retrieval.embed import encode, whitening

WIDTH = 64
SEEDS = (0, 1, 2)
STEAM_USERS = 6000


def frame_world(folder, **options):
    """RecData of a folder of CSV files; every event counts, nothing is held out yet."""
    name = folder.name
    events = next(folder.glob('*events.csv'))
    items = pd.read_csv(next(folder.glob('*items.csv')), dtype={'item': str})
    events = pd.read_csv(events, dtype={'user': str, 'item': str})
    events = events.drop(columns=['split', 'rlmrec_split'], errors='ignore')
    if name == 'steam-sub':
        people = events['user'].unique()
        kept = np.random.default_rng(0).choice(people, STEAM_USERS, replace=False)
        events = events[events['user'].isin(kept)]
    users = pd.read_csv(folder / 'users.csv', dtype={'user': str}) if (folder / 'users.csv').exists() else None
    return from_frame(events, items, users, kcore=0, split='random', name=name, allow_cold=True, **options)


def load_world(name, data):
    """RecData of one data set."""
    if name == 'bookshop':
        return toy_data(1000, 500)
    if name == 'ml-100k':
        return from_atomic(data / name, split='random')
    return frame_world(data / name)


def likings(whole):
    """Liked events in the order in which they came: user, item, place; by chance where no order is known."""
    liked = (whole.train + whole.valid + whole.test).tocsr()
    events = whole.events[np.asarray(liked[whole.events['user'], whole.events['item']]).ravel() > 0]
    events = events.assign(chance=np.random.default_rng(0).random(len(events)))
    events = events.sort_values(['user', 'time', 'chance'], kind='stable')
    return events.assign(place=events.groupby('user').cumcount())[['user', 'item', 'place']]


def roles(n, seed, eligible=None):
    """'test' and 'valid' for a tenth each of those who may be kept out, 'warm' for the others."""
    found = np.full(n, 'warm', dtype=object)
    pool = np.arange(n) if eligible is None else np.flatnonzero(eligible)
    drawn = np.random.default_rng(seed).permutation(pool)
    tenth = len(pool) // 10
    found[drawn[:tenth]] = 'test'
    found[drawn[tenth : 2 * tenth]] = 'valid'
    return found


def cold_world(name, data):
    """What is trained on, and who and what is kept out."""
    whole = load_world(name, data)
    events = likings(whole)
    counts = np.bincount(events['user'], minlength=whole.n_users)
    people, things = roles(whole.n_users, 0, counts >= 2), roles(whole.n_items, 1)
    events = events.assign(who=people[events['user']], what=things[events['item']])
    warm = events[(events['who'] == 'warm') & (events['what'] == 'warm')].copy()
    ids = np.unique(warm['user'])
    row_of = pd.Series(np.arange(len(ids)), index=ids)
    chance = np.random.default_rng(2).random(len(warm))
    first = ~warm.sample(frac=1, random_state=0)['user'].duplicated().reindex(warm.index)
    warm['split'] = np.where(first | (chance > 0.12), 'train', np.where(chance > 0.02, 'valid', 'test'))
    diary = warm.assign(user=row_of[warm['user']].to_numpy(), rating=np.nan, time=np.nan, positive=True)
    diary = diary[['user', 'item', 'rating', 'time', 'split', 'positive']]
    train = assemble(diary, whole.users.iloc[ids].reset_index(drop=True), whole.items, name=name)
    return SimpleNamespace(whole=whole, events=events, train=train, people=people, things=things, rows=ids)


def profiles(world, out):
    """Texts, raw vectors and placed vectors of everybody who is trained on and of all items."""
    store, cache = out / 'profiles.db', out / 'vectors.db'
    items = write(template(), item_prompts(world.train), store=store)
    users = write(template(), user_prompts(world.train, items), store=store)
    raw_users, raw_items = (encode(table['profile'].tolist(), cache=cache, empty='zero') for table in (users, items))
    known = world.things == 'warm'
    place = whitening(np.concatenate([raw_users, raw_items[known]]), WIDTH)
    return SimpleNamespace(users=users, items=items, su=place(raw_users), si=place(raw_items), place=place)


def config_of(name):
    """How long each is trained."""
    if name in ('bookshop', 'imdb-exp3rt'):
        return TrainConfig(batch=512, lr=3e-3, min_steps=300, patience=8, device='cpu')
    return TrainConfig(batch=2048, lr=3e-3, min_steps=400, patience=8, device='cpu')


def trained(name, world, made, seed, out):
    """LightGCN with ProMax; read where it is there."""
    folder = out / f'{name}-{seed}'
    if not (folder / 'card.json').exists():
        si = np.where((world.things == 'warm')[:, None], made.si, 0)  # kept out of the teacher, too
        added = augment(world.train, made.su, si)[0]
        objective = ProMax(made.su, si, added, 0.5, 0.05)
        fit(LightGCN(world.train, dim=32, seed=seed), objective, world.train, config_of(name), folder).save(folder)
    return load_fit(folder)


NAMES = ('bookshop', 'imdb-exp3rt', 'amazon-industrial', 'ml-100k', 'steam-sub')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', type=Path, help='folder with ml-100k, amazon-industrial, steam-sub, imdb-exp3rt')
    p.add_argument('--out', type=Path, default=Path('runs/cold'))
    p.add_argument('--only', nargs='+', default=list(NAMES), choices=NAMES)
    p.add_argument('--collect', type=Path)
    a = p.parse_args()
    torch.set_num_threads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS:
        for name in a.only:
            world = cold_world(name, a.data)
            made = profiles(world, a.out)
            result = trained(name, world, made, seed, a.out)
            print(name, seed, world.train, result.best_epoch, result.best_score, flush=True)


if __name__ == '__main__':
    main()
