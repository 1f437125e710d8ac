"""A bookshop writer whose likeliest text is not the most useful: what SFT, DPO, KTO and GRPO teach it, greedy too.

    python benchmarks/modes.py --work FOLDER [--seeds 0,1,2] [--users 300] [--unseen 400] [--out FILE]

The small writer, which can read, was then taught how often a pretrained model that is asked plainly writes in which
style (`styles.COUNTED`): mostly what is popular, whoever is asked about. Trained on the first judge; the second shares
neither features nor texts nor users with it. Every writer writes greedily and, at temperature 1, twice; beside them
stand the best of four drawn texts by its claims, and the untrained writer at the temperature that gives it the entropy
of the one after DPO. Seconds and tokens of each training stand beside; trainings and texts are kept in FOLDER.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from promax_nb.data.bookshop import toy_data
from promax_nb.data.storage import write_json
from promax_nb.lettingo.ablation import only_users
from promax_nb.lettingo.align import align, load_align
from promax_nb.lettingo.builtin import fit_judge
from promax_nb.lettingo.claims import faithfulness
from promax_nb.lettingo.explore import explore
from promax_nb.lettingo.histories import history_prompts, split_history
from promax_nb.lettingo.judge import judge, predictions
from promax_nb.lettingo.pairs import best_profiles, make_pairs, shuffle_preferences, single_texts
from promax_nb.lettingo.panel import no_profile
from promax_nb.lettingo.rewards import claims_reward, judge_reward, length_reward, with_rewards
from promax_nb.lettingo.styles import COUNTED, styled
from promax_nb.lettingo.tiny import tiny_lm, with_habits, writer
from promax_nb.models.inference import interval, resampled

MEASURES = ('accuracy', 'second', 'precision', 'recall')
TEMPERATURES = (0.2, 0.35, 0.5, 0.65, 0.8)


def world(seed, users, unseen):
    """A shop, its histories, and users apart: for training, for the second judge, unseen."""
    data = toy_data(2 * users + unseen, 400, seed=seed, density='dense', reveal=0.95, split='temporal', noise=0.25)
    history = split_history(data, 10, 100, 40, 3, 5)
    order = np.random.default_rng([seed, 11]).permutation(history['user'].unique())
    return data, history, *(np.sort(part) for part in np.split(order, [unseen, unseen + users]))


def judges(data, history, first, second, seed):
    """Two judges without a user, a text or a feature in common."""
    found = []
    for users, kind, number in ((first, 'lexical', seed), (second, 'vectors', seed + 100)):
        honest = explore(styled('true', number), data, only_users(history, users), n=1, form='slots', progress=False)
        found.append(fit_judge(data, history, honest, users, kind=kind, seed=seed))
    return found


def entropy(net, tok, table) -> float:
    """Nats a token of what the writer might have said next, along its own texts."""
    import torch

    total = count = 0.0
    table = table[table['status'] == 'ok']
    with torch.inference_mode():
        for prompt, text in zip(table['prompt'], table['profile'], strict=True):
            start = tok(tok.bos_token + prompt, add_special_tokens=False)['input_ids']
            said = tok(' ' + text, add_special_tokens=False)['input_ids']
            logits = net(torch.tensor([start + said])).logits[0, len(start) - 1 : -1]
            total += float(
                torch.distributions.Categorical(logits=logits / table.attrs.get('heat', 1.0)).entropy().sum()
            )
            count += len(said)
    return total / count


def trainings(base, tables, asked, rewards, out, seed) -> dict:
    """Every training; name -> result. GRPO writes as many texts as were explored for the others."""
    same = dict(seed=seed, lr=5e-4, batch=16, max_ratio=9.0, progress=False)
    dpo = same | dict(loss='sigmoid+sft', sft_weight=0.3, beta=0.5, epochs=3)
    grpo = same | dict(method='grpo', batch=64, rollouts=4, max_new=40, epochs=3, lr=3e-4, log_steps=5)
    jobs = {}
    for name, (pairs, best, single) in tables.items():
        jobs[f'SFT{name}'] = (best, same | dict(method='sft', epochs=3))
        jobs[f'DPO{name}'] = (pairs, dpo)
        jobs[f'KTO{name}'] = (single, same | dict(method='kto', epochs=2, beta=0.5))
        jobs[f'GRPO{name}'] = (asked, grpo | dict(reward=rewards[name]))
    jobs['DPO, shuffled'] = (shuffle_preferences(tables[''][0], seed), dpo)
    done = {}
    for name, (table, how) in jobs.items():
        began, folder = time.monotonic(), out / name.lower().replace(', ', '-').replace(' ', '-')
        done[name] = load_align(folder) if (folder / 'card.json').exists() else align(base, table, out=folder, **how)
        print(f'{name}: {time.monotonic() - began:.0f} s, alarms {len(done[name].alarms)}', flush=True)
    return done


def texts_of(nets, data, history, unseen, seed, store) -> pd.DataFrame:
    """Greedy and drawn texts of every writer, and the controls."""
    asked = dict(form='slots', store=store, progress=False)
    mine, parts = only_users(history, unseen), []
    for name, (net, tok) in nets.items():
        parts.append(explore(writer(net, tok, f'{name}, greedy', temperature=0.0), data, mine, n=1, **asked))
        parts.append(explore(writer(net, tok, name, seed=seed), data, mine, n=4 if name == 'as is' else 2, **asked))
    wide = pd.concat(parts, ignore_index=True)
    pool = wide[wide['writer'] == 'as is']
    worth = pool['prompt'].to_numpy(), pool['profile'].fillna('').tolist(), pool['user'].to_numpy()
    pool = pool.assign(worth=claims_reward()(*worth) + claims_reward('recall')(*worth))
    best = pool.sort_values(['user', 'worth', 'sample'], ascending=[True, False, True]).drop_duplicates('user')
    parts = [wide[(wide['writer'] != 'as is') | (wide['sample'] < 2)], best.assign(writer='best of 4 by claims')]
    net, tok = nets['DPO']
    goal, heats = entropy(net, tok, wide[(wide['writer'] == 'DPO') & (wide['sample'] == 0)]), {}
    for heat in TEMPERATURES:
        cold = explore(writer(*nets['as is'], f'as is at {heat}', heat, seed), data, mine, n=2, **asked)
        one = cold[cold['sample'] == 0]
        one.attrs = {'heat': heat}
        heats[heat] = (entropy(*nets['as is'], one), cold)
    near = min(heats, key=lambda heat: abs(heats[heat][0] - goal))
    parts.append(heats[near][1].assign(writer='as is, entropy of DPO'))
    parts.append(explore(styled('true', seed), data, mine, n=1, **asked).assign(writer='full and true'))
    out = pd.concat([no_profile(unseen), *parts], ignore_index=True)
    out.attrs = {'entropy of DPO': goal, 'temperature': near, 'its entropy': heats[near][0]}
    return out


def measured(said, data, history, first, second) -> pd.DataFrame:
    """Accuracy by both judges, precision and recall of claims: one row a writer and user."""
    found = {}
    for name, by in (('accuracy', first), ('second', second)):
        answers = predictions(said, data, history, by, progress=False)
        answers[name] = (answers['predicted'] == answers['truth']).astype(float)
        found[name] = answers.groupby(['writer', 'user'])[name].mean()
    told = said[(said['writer'] != 'none') & (said['status'] == 'ok')].reset_index(drop=True)
    faith = faithfulness(told).assign(precision=lambda t: t['precision'].fillna(0.0))
    return pd.DataFrame(found).join(faith.groupby(['writer', 'user'])[['precision', 'recall']].mean())


def examples(said, users) -> list:
    """The same five readers in every run: what was asked, and the likeliest text of each writer."""
    rows, likeliest = [], said[said['writer'].str.endswith(', greedy')]
    for user in users:
        own = likeliest[likeliest['user'] == user]
        texts = dict(zip(own['writer'], own['profile'].fillna(''), strict=True))
        rows.append({'user': int(user), 'prompt': own['prompt'].iloc[0], 'said': texts})
    return rows


def compared(table, pairs) -> list:
    """Differences over users, with intervals."""
    rows = []
    for base, ours in pairs:
        difference = (table.loc[ours] - table.loc[base]).dropna(how='all')
        low, high = interval(resampled(difference.fillna(0.0).to_numpy()))
        for k, name in enumerate(table):
            row = {'from': base, 'to': ours, 'measure': name, 'difference': float(difference[name].mean())}
            rows.append(row | {'low': float(low[k]), 'high': float(high[k])})
    return rows


def over_seeds(kept) -> list:
    """Differences over trainings, each with readers of its own: a t interval of their means."""
    from scipy.stats import t

    rows = pd.DataFrame([row | {'seed': seed} for seed, one in kept.items() for row in one['compared']])
    found = []
    for (base, ours, measure), part in rows.groupby(['from', 'to', 'measure'], sort=False):
        values, n = part['difference'].to_numpy(), len(part)
        half = t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5 if n > 1 else float('nan')
        row = {'from': base, 'to': ours, 'measure': measure, 'trainings': n, 'difference': float(values.mean())}
        found.append(row | {'low': float(values.mean() - half), 'high': float(values.mean() + half)})
    return found


def one_seed(o, seed) -> dict:
    """Everything of one seed."""
    work = o.work / f'seed-{seed}'
    base = with_habits(*tiny_lm(), path=o.work / 'writer')
    data, history, unseen, train, other = world(seed, o.users, o.unseen)
    first, second = judges(data, history, train, other, seed)
    seen = only_users(history, train)
    texts = explore(writer(*base, 'tiny', seed=seed), data, seen, n=o.samples, form='slots', store=work / 'texts.db')
    scores = judge(texts, data, history, first, progress=False)
    prompts = history_prompts(data, seen, 'slots')
    by_judge, truth = judge_reward(data, history, first), [claims_reward(), claims_reward('recall'), length_reward(24)]
    rewards, tables = {'': [by_judge, *truth], ', judge alone': [by_judge, length_reward(24)]}, {}
    for name, judged, margin in (
        ('', with_rewards(scores, texts, truth), 0.5),
        (', judge alone', scores, 0.2),
    ):
        pairs = make_pairs(texts, judged, margin=margin, cap=4, seed=seed, prompts=prompts)
        best = best_profiles(texts, judged, prompts=prompts)
        tables[name] = pairs, best, single_texts(texts, judged, margin=margin / 4, prompts=prompts)
        print(f'seed {seed}{name}: {len(pairs)} pairs, {len(tables[name][2])} single texts', flush=True)
    asked = prompts.rename(columns={'id': 'user'})[['user', 'prompt']]
    done = trainings(base, tables, asked, rewards, work / 'writers', seed)
    nets = {'as is': base} | {name: (result.model, result.tokenizer) for name, result in done.items()}
    said = texts_of(nets, data, history, unseen, seed, work / 'unseen.db')
    table = measured(said, data, history, first, second)
    trained = [name for name in nets if name != 'as is']
    against = [('as is, greedy', f'{name}, greedy') for name in trained] + [('as is', name) for name in trained]
    against += [('SFT, greedy', f'{name}, greedy') for name in trained if name != 'SFT']
    against += [('DPO, greedy', 'GRPO, greedy')]
    against += [('none', 'as is, greedy'), ('as is, entropy of DPO', 'DPO'), ('DPO, shuffled, greedy', 'DPO, greedy')]
    against += [('as is', 'best of 4 by claims'), ('as is, greedy', 'best of 4 by claims')]
    costs = {name: {part: one.card[part] for part in ('seconds', 'tokens', 'steps')} for name, one in done.items()}
    facts = {'users': [len(train), len(other), len(unseen)], 'judges': [first.card, second.card], 'costs': costs}
    facts |= said.attrs | {'examples': examples(said, unseen[:5])}
    return facts | {'means': table.groupby('writer').mean().to_dict('index'), 'compared': compared(table, against)}


def arguments(about, argv, **sizes):
    """What a benchmark over seeds is told: folder, seeds, sizes, and where the result goes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work', type=Path, required=True)
    parser.add_argument('--seeds', default='0,1,2')
    for name, value in sizes.items():
        parser.add_argument(f'--{name}', type=int, default=value)
    parser.add_argument('--out', type=Path)
    warnings.simplefilter('ignore')
    return parser.parse_args(argv)


def each_seed(o, measure):
    """The facts of every seed, measured once and kept: pairs (seed, facts)."""
    for seed in map(int, o.seeds.split(',')):
        file = o.work / f'seed-{seed}.json'
        if not file.exists():
            write_json(file, json.loads(json.dumps(measure(o, seed), default=float)))
        yield str(seed), json.loads(file.read_text())


def main(argv=None):
    o = arguments(__doc__, argv, users=300, unseen=400, samples=12)
    kept = {}
    for seed, facts in each_seed(o, one_seed):
        kept[seed] = facts
        for name, row in facts['means'].items():
            print(f'{name:<26}', ' '.join(f'{measure} {row[measure]:.3f}' for measure in MEASURES))
        for row in facts['compared']:
            if row['measure'] in ('accuracy', 'second'):
                print('{to} against {from}, {measure}: {difference:+.3f} [{low:+.3f}, {high:+.3f}]'.format(**row))
    across = over_seeds(kept)
    print(f'over {len(kept)} trainings, each with readers of its own:')
    for row in across:
        if row['measure'] in ('accuracy', 'second') and 'greedy' in row['to']:
            print('{to} against {from}, {measure}: {difference:+.3f} [{low:+.3f}, {high:+.3f}]'.format(**row))
    if o.out:
        write_json(o.out, {'styles': COUNTED, 'over trainings': across, 'seeds': kept})


if __name__ == '__main__':
    main()
