"""A writer rewarded by the ranking: what its texts find alone, and beside the mean of the item texts, in the bookshop.

    python benchmarks/rank.py --work FOLDER [--seeds 0,1,2] [--users 300] [--unseen 400] [--out FILE]

The small writer with the habits of a pretrained one (as in modes.py) learns by GRPO from four rewards: how far up its
text moves held-out books (`rank`), how much further up beside the mean of the history's item texts (`beside`), the rank
together with what is true of the claims, and the judge together with the same. Greedy texts about unseen readers are
then used for what they were written for: alone, beside EASE, and beside EASE and the mean of the item texts, weights by
validation, test read once. Trainings and vectors are kept in FOLDER.
"""

import time

import numpy as np
import pandas as pd
from modes import arguments, each_seed, over_seeds, world

from promax_nb.data.storage import write_json
from promax_nb.lettingo.ablation import only_users
from promax_nb.lettingo.align import align, load_align
from promax_nb.lettingo.builtin import fit_judge
from promax_nb.lettingo.explore import explore
from promax_nb.lettingo.histories import history_prompts
from promax_nb.lettingo.rewards import claims_reward, held_out_of, judge_reward, length_reward, rank_reward
from promax_nb.lettingo.styles import styled
from promax_nb.lettingo.tiny import tiny_lm, with_habits, writer
from promax_nb.models.closed import tuned_line
from promax_nb.models.evaluate import per_user
from promax_nb.models.inference import interval, resampled
from promax_nb.models.reshape import centred, choose_alphas, history_guide, profile_guide, reshape
from promax_nb.models.scorers import as_scorer
from promax_nb.profiles.template import template
from promax_nb.retrieval.embed import encode

METRICS = ['recall@20', 'ndcg@20']


def reader(work):
    """Texts to vectors, each read once."""
    return lambda texts: encode(list(texts), cache=work / 'vectors.db', empty='zero')


def trained(base, asked, rewards, out, seed) -> dict:
    """A writer for every reward; name -> (model, tokenizer)."""
    how = dict(method='grpo', batch=64, rollouts=4, max_new=40, epochs=3, lr=3e-4, log_steps=5, max_ratio=9.0)
    found = {}
    for name, reward in rewards.items():
        began, folder = time.monotonic(), out / name.replace(' ', '-')
        kept, told = (folder / 'card.json').exists(), dict(out=folder, reward=reward, seed=seed, progress=False)
        one = load_align(folder) if kept else align(base, asked, **told, **how)
        found[name] = one.model, one.tokenizer
        print(f'{name}: {time.monotonic() - began:.0f} s, alarms {len(one.alarms)}', flush=True)
    return found


def said(nets, data, history, unseen, seed, store) -> pd.DataFrame:
    """Greedy texts of every writer about the unseen readers, and those of two writers without a model."""
    mine, asked = only_users(history, unseen), dict(n=1, store=store, progress=False)
    parts = [
        explore(writer(*net, f'GRPO {name}' if name != 'as is' else name, 0.0), data, mine, form='slots', **asked)
        for name, net in nets.items()
    ]
    parts.append(explore(styled('true', seed), data, mine, form='slots', **asked).assign(writer='full and true'))
    parts.append(explore(template(), data, mine, form='full', **asked).assign(writer='template'))
    return pd.concat(parts, ignore_index=True)


def chain(data, texts, unseen, read) -> dict:
    """Per-user metrics of the unseen readers: name -> DataFrame."""
    space = centred(read(data.items['text'].fillna('').tolist()))
    line, _ = tuned_line('EASE', data.train, data.valid)
    scorer, known = as_scorer(line, data.shape), data.train + data.valid
    mean = history_guide(data.train, space)
    guides = {'mean of item texts': {'mean': mean}}
    for name, own in texts.groupby('writer', sort=False):
        vectors = np.zeros((data.n_users, space.shape[1]), np.float32)
        vectors[own['user']] = read(own['profile'].fillna('').tolist())
        vectors[own['user']] = centred(vectors[own['user']])
        guides[name] = {'text': profile_guide(vectors, space)}
        guides[f'mean and {name}'] = {'mean': mean} | guides[name]
    values, weights = {'EASE': per_user(scorer, data.test, known, (20,))}, {}
    for name, guide in guides.items():
        found = choose_alphas(scorer, guide, data.valid, data.train, users=unseen)
        weights[name] = found.alphas
        both = as_scorer(reshape(scorer, guide, found.alphas, known, found.form))
        values[f'EASE + {name}'] = per_user(both, data.test, known, (20,))
        if len(guide) == 1:
            values[f'{name}, alone'] = per_user(next(iter(guide.values())), data.test, known, (20,))
    return {name: table.loc[table.index.isin(unseen), METRICS] for name, table in values.items()} | {'weights': weights}


def compared(table, pairs) -> list:
    """Differences over readers, with intervals."""
    rows = []
    for base, ours in pairs:
        difference = (table[ours] - table[base]).dropna()
        low, high = interval(resampled(difference.to_numpy()))
        for k, name in enumerate(difference):
            row = {'from': base, 'to': ours, 'measure': name, 'difference': float(difference[name].mean())}
            rows.append(row | {'low': float(low[k]), 'high': float(high[k])})
    return rows


def one_seed(o, seed) -> dict:
    """Everything of one seed."""
    work = o.work / f'seed-{seed}'
    read = reader(o.work)
    data, history, unseen, train, _ = world(seed, o.users, o.unseen)
    base = with_habits(*tiny_lm(), path=o.work / 'writer')
    seen = only_users(history, train)
    honest = explore(styled('true', seed), data, seen, n=1, form='slots', progress=False)
    by_judge = judge_reward(data, history, fit_judge(data, history, honest, train, seed=seed))
    truth = [claims_reward(), claims_reward('recall'), length_reward(24)]
    heldout, shown = held_out_of(history)
    items = read(data.items['text'].fillna('').tolist())
    rank, beside = (rank_reward(items, read, heldout, shown, beside_mean=one) for one in (False, True))
    rewards = {
        'rank': [rank, length_reward(24)],
        'beside': [beside, length_reward(24)],
        'rank and truth': [rank, *truth],
        'judge and truth': [by_judge, *truth],
    }
    asked = history_prompts(data, only_users(seen, list(heldout)), 'slots').rename(columns={'id': 'user'})
    nets = {'as is': base} | trained(base, asked[['user', 'prompt']], rewards, work / 'writers', seed)
    texts = said(nets, data, history, unseen, seed, work / 'texts.db')
    able = texts[texts['user'].isin(set(heldout)) & (texts['status'] == 'ok')].reset_index(drop=True)
    for name, reward in (('rank', rank), ('beside', beside)):
        able[name] = reward(able['prompt'], able['profile'].tolist(), able['user'].tolist())
    moved = {name: own.set_index('user')[['rank', 'beside']] for name, own in able.groupby('writer', sort=False)}
    values = chain(data, texts, unseen, read)
    weights = values.pop('weights')
    names = list(moved)
    pairs = [('as is', name) for name in names if name != 'as is']
    rows = compared(moved, pairs)
    pairs = [('EASE', 'EASE + mean of item texts')]
    pairs += [('EASE', f'EASE + {name}') for name in names]
    pairs += [('EASE + mean of item texts', f'EASE + mean and {name}') for name in names]
    pairs += [('as is, alone', f'{name}, alone') for name in names if name != 'as is']
    rows += compared(values, pairs)
    means = {name: table.mean().to_dict() for name, table in values.items()}
    examples = {name: own['profile'].iloc[:3].tolist() for name, own in texts.groupby('writer', sort=False)}
    facts = {'users': [len(train), len(unseen)], 'weights': weights, 'examples': examples, 'means': means}
    return facts | {'ranks': {name: table.mean().to_dict() for name, table in moved.items()}, 'compared': rows}


def main(argv=None):
    o = arguments(__doc__, argv, users=300, unseen=400)
    kept = {}
    for seed, facts in each_seed(o, one_seed):
        kept[seed] = facts
        for name, row in facts['ranks'].items():
            print(f'{name:<24} rank {row["rank"]:.4f} beside the mean {row["beside"]:+.4f}')
    across = over_seeds(kept)
    print(f'over {len(kept)} trainings, each with readers of its own:')
    for row in across:
        if row['measure'] in ('rank', 'beside', 'ndcg@20'):
            print('{to} against {from}, {measure}: {difference:+.4f} [{low:+.4f}, {high:+.4f}]'.format(**row))
    if o.out:
        write_json(o.out, {'over trainings': across, 'seeds': kept})


if __name__ == '__main__':
    main()
