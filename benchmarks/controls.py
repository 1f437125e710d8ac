"""What texts add to the strongest line without a training, beside controls that know no text.

    python benchmarks/controls.py DATA --work FOLDER [--only NAME ...] [--splits 0,1,2] [--out FILE]

DATA holds ml-100k, amazon-industrial, imdb-exp3rt and steam-sub. FOLDER keeps vectors and one JSON a data set and
split: a run that was stopped goes on. Everything is chosen on validation data (settings of the line, weights, scale);
test is read once, by the last step of a row, and the row says when. Kinds of split: 'given' (by calendar where it is),
0, 1, 2: random within each user, by seed.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from promax_nb.data.frames import from_frame
from promax_nb.data.loaders import from_atomic
from promax_nb.data.storage import write_json
from promax_nb.methods import cheap_methods
from promax_nb.models.closed import popularity, tuned_line
from promax_nb.models.controls import svd_vectors
from promax_nb.models.evaluate import per_user
from promax_nb.models.gate import spaces_of
from promax_nb.models.inference import interval, resampled
from promax_nb.models.reshape import choose_alphas, history_guide, profile_guide, reshape
from promax_nb.models.scorers import Scorer, as_scorer
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.template import template
from promax_nb.profiles.write import write
from promax_nb.retrieval.embed import encode

METRICS = ('recall@20', 'ndcg@20')
WIDTH = 64  # of the SVD


def industrial(folder: Path, split):
    """A shop of office supplies; its calendar, or at random."""
    events = pd.read_csv(folder / 'amazon-industrial' / 'industrial-events.csv')
    items = pd.read_csv(folder / 'amazon-industrial' / 'industrial-items.csv')
    how = dict(split='split') if split == 'given' else dict(split='random', seed=split)
    return from_frame(events, items, time=None, kcore=0, allow_cold=True, name='amazon-industrial', **how)


def movies(folder: Path, split):
    """MovieLens 100K; the last of each user, or at random."""
    how = dict(split='temporal') if split == 'given' else dict(split='random', seed=split)
    return from_atomic(folder / 'ml-100k', **how)


def imdb(folder: Path, split):
    """IMDb reviews with real LLM profiles; its own test, or at random."""
    tables = [pd.read_csv(folder / 'imdb-exp3rt' / f'{name}.csv') for name in ('events', 'items', 'users')]
    how = dict(split='split') if split == 'given' else dict(split='random', seed=split)
    brought = dict(user_profile='profile', item_profile='text', profile_source='reviews, by gpt-3.5-turbo-1106')
    return from_frame(*tables, kcore=0, allow_cold=True, name='imdb-exp3rt', **brought, **how)


def steam(folder: Path, split):
    """Games; at random."""
    events, items = (pd.read_csv(folder / 'steam-sub' / f'{name}.csv') for name in ('events', 'items'))
    how = dict(split='random', ratios=(0.6, 0.2, 0.2), seed=0 if split == 'given' else split)
    return from_frame(events, items, kcore=0, allow_cold=True, name='steam-sub', **how)


WORLDS = {'imdb-exp3rt': imdb, 'ml-100k': movies, 'amazon-industrial': industrial, 'steam-sub': steam}


def texts_of(data) -> tuple:
    """Profiles of users (None where there would be too many to read) and of items, and who wrote them."""
    writer = 'template'
    if 'item_profiles' in data.extras:
        items = pd.DataFrame({'id': range(data.n_items), 'profile': data.extras['item_profiles']})
        writer = 'came with the data'
    else:
        items = write(template(), item_prompts(data))
    if 'user_profiles' in data.extras:
        users = data.extras['user_profiles']
    else:
        users = write(template(), user_prompts(data, items)).profile.tolist() if data.n_users < 10_000 else None
    return users, items.profile.tolist(), writer


def vectors_of(data, cache: Path) -> tuple:
    """Vectors of these profiles, and who wrote them."""
    *texts, writer = texts_of(data)
    return *(None if side is None else encode(side, cache=cache, empty='zero') for side in texts), writer


def mean_texts(data, items):
    """The mean of the texts of what everybody had: stands for profiles where there are too many people to read."""
    counts = np.maximum(np.diff(data.train.indptr), 1)[:, None]
    return np.asarray(data.train @ items / counts, np.float32)


def ranks(scores) -> np.ndarray:
    """Places from 1, the best first."""
    order = np.argsort(-scores, axis=1, kind='stable')
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(1, scores.shape[1] + 1)[None], 1)
    return places


def fused(one, other, shape, k: int = 60) -> Scorer:
    """Reciprocal rank fusion (Cormack et al., SIGIR 2009): no scores, no weight."""

    def scores(rows):
        return sum(1 / (k + ranks(np.asarray(scorer.array(rows), np.float64))) for scorer in (one, other))

    return Scorer(scores, shape)


def guides_for(data, users, items) -> dict:
    """Name of a row -> guides that are added to the line."""
    train, draws = data.train, np.random.default_rng(0)
    spaces = spaces_of((users if users is not None else items[:1], items))
    clicks, popular = svd_vectors(train, WIDTH), popularity(train)
    texts = {name: history_guide(train, space[1]) for name, space in spaces.items()}
    found = {
        '+ history texts, raw': {'texts': texts['raw']},
        '+ history texts, centred': {'texts': texts['centred']},
        '+ texts of the wrong items': {'texts': history_guide(train, draws.permutation(spaces['centred'][1]))},
        '+ popularity': {'popularity': popular},
        '+ popularity + history texts': {'popularity': popular, 'texts': texts['centred']},
        '+ SVD of the history': {'svd': history_guide(train, clicks[1])},
        '+ SVD of the user': {'svd': profile_guide(*clicks)},
        '+ SVD of the history + texts': {'svd': history_guide(train, clicks[1]), 'texts': texts['centred']},
    }
    if users is not None:
        found['+ user profile, raw'] = {'profile': profile_guide(*spaces['raw'])}
        found['+ user profile, centred'] = {'profile': profile_guide(*spaces['centred'])}
        found['+ history texts + user profile'] = {
            'texts': texts['centred'],
            'profile': profile_guide(*spaces['centred']),
        }
    return found


def with_side(data, items, best: dict) -> tuple:
    """EASE with item texts as further people, and what validation chose."""
    regs = [best['reg'] * factor for factor in (0.4, 1.0, 2.5)]
    trials = [{'reg': reg, 'side_weight': weight} for reg in regs for weight in (1.0, 5.0, 20.0)]
    side = spaces_of((items[:1], items))['centred'][1]
    return tuned_line('EASE', data.train, data.valid, trials, side=side)


def cold_part(data):
    """What is held out of items that nobody has in training."""
    unseen = np.asarray(data.train.sum(0)).ravel() == 0
    cold = sp.csr_matrix(data.test.multiply(unseen[None].astype(np.float32)))
    cold.eliminate_zeros()
    return cold


def measured(scorer, data, truth) -> pd.DataFrame:
    """The metrics of every user on test."""
    return per_user(scorer, truth, data.train + data.valid, (20,))[list(METRICS)]


def row_of(table, before) -> dict:
    """Means, and the difference to the line with its interval over users."""
    row = {'users': len(table)}
    for metric in METRICS:
        difference = (table[metric] - before[metric]).to_numpy()
        low, high = interval(resampled(difference))
        row[metric] = float(table[metric].mean())
        row[f'{metric} - line'] = [float(difference.mean()), float(low), float(high)]
    return row


def one_split(name: str, split, data_folder: Path, work: Path) -> dict:
    """Every row of one data set and split."""
    began = time.monotonic()
    data = WORLDS[name](data_folder, split)
    users, items, writer = vectors_of(data, work / f'{name}.db')
    print(f'{name} {split}: {data!r}, vectors after {time.monotonic() - began:.0f} s', flush=True)
    others = cheap_methods(data, None if users is None else (users, items))
    closed = {method.name: method for method in others.methods if method.name in ('EASE', 'ItemKNN')}
    best = max(closed.values(), key=lambda method: method.valid.mean())
    line, shape = as_scorer(best.runs[0], data.shape), data.shape
    guides = guides_for(data, users, items)
    chosen = {row: choose_alphas(line, guide, data.valid, data.train) for row, guide in guides.items()}
    known = data.train + data.valid
    scorers = {method.name: as_scorer(method.runs[0], shape) for method in others.methods if not method.texts}
    for row, guide in guides.items():
        scorers[f'{best.name} {row}'] = as_scorer(reshape(line, guide, chosen[row].alphas, known, chosen[row].form))
        if len(guide) == 1:
            scorers[f'{row.removeprefix("+ ")}, alone'] = next(iter(guide.values()))
    weights = {row: {'form': found.form, **found.alphas, 'valid': found.value} for row, found in chosen.items()}
    if 'EASE' in closed:
        inside, tried = with_side(data, items, closed['EASE'].settings)
        scorers['EASE with item texts inside'] = as_scorer(inside, shape)
        weights['EASE with item texts inside'] = max(tried, key=lambda trial: trial['ndcg@20'])
    texts = guides['+ history texts, centred']['texts']
    scorers[f'{best.name} + history texts, by rank fusion'] = fused(line, texts, shape)
    cold, rows = cold_part(data), {}
    read = time.strftime('%Y-%m-%dT%H:%M:%S')
    before = measured(line, data, data.test)
    cold_before = measured(line, data, cold) if cold.nnz else None
    for row, scorer in scorers.items():
        rows[row] = row_of(measured(scorer, data, data.test), before)
        if cold_before is not None:
            rows[row]['cold'] = row_of(measured(scorer, data, cold), cold_before)
    gate = None if others.gate is None else others.gate.facts()
    facts = dict(line=best.name, settings=best.settings, writer=writer, weights=weights, gate=gate, test_read=read)
    return {'data': repr(data), **facts, 'rows': rows, 'seconds': round(time.monotonic() - began, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--work', type=Path, required=True)
    parser.add_argument('--only', nargs='*', choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument('--splits', default='given,0,1,2')
    parser.add_argument('--out', type=Path, help='JSON of all that is in the work folder')
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter('ignore')
    for name in options.only:
        for split in (part if part == 'given' else int(part) for part in options.splits.split(',')):
            file = options.work / f'{name}-{split}.json'
            if file.exists() or (name == 'steam-sub' and split == 'given'):
                continue
            found = one_split(name, split, options.data, options.work)
            write_json(file, json.loads(json.dumps(found, default=float)))
            for row, numbers in found['rows'].items():
                difference = numbers['ndcg@20 - line']
                print(f'  {row:<45} {numbers["recall@20"]:.4f} {numbers["ndcg@20"]:.4f}', end=' ')
                print('[{1:+.4f}, {2:+.4f}]'.format(*difference), flush=True)
    if options.out:
        kept = {file.stem: json.loads(file.read_text()) for file in sorted(options.work.glob('*.json'))}
        options.out.write_text(json.dumps(kept, indent=1) + '\n')


if __name__ == '__main__':
    main()
