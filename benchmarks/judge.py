"""What a profile is worth to the built-in judges: four styles of writing in the generated world, and on ML-100K.

    python benchmarks/judge.py [ML_100K_FOLDER]

Judges are fitted on one half of the users (ML-100K: 60 %) and asked about the other. Writes
benchmarks/results/judge.json; two minutes on one thread.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from promax_nb.data.bookshop import toy_data
from promax_nb.data.loaders import from_atomic
from promax_nb.lettingo.builtin import fit_judge
from promax_nb.lettingo.claims import faithfulness, true_tastes
from promax_nb.lettingo.explore import explore
from promax_nb.lettingo.histories import _evidence, attribute_values, split_history, value_table
from promax_nb.lettingo.judge import judge, predictions, scores_of
from promax_nb.lettingo.pairs import make_pairs
from promax_nb.lettingo.panel import no_profile
from promax_nb.lettingo.reports import paired_difference, sentiment_report, transfer
from promax_nb.lettingo.styles import STYLES, _said, styled
from promax_nb.profiles.template import template


def hidden(data, users):
    """The readers' true tastes, written out."""
    t = true_tastes(data).set_index('user').loc[users]
    texts = [_said(sorted(a), sorted(b)) for a, b in zip(t['liked'], t['disliked'], strict=True)]
    return pd.DataFrame(
        {
            'user': users,
            'writer': 'hidden truth',
            'sample': 0,
            'prompt': '',
            'profile': texts,
            'status': 'ok',
            'reason': None,
        }
    )


def by_writer(p):
    return {
        w: {'accuracy': float((g['predicted'] == g['truth']).mean()), 'logp': float(g['logp'].mean())}
        for w, g in p.groupby('writer')
    }


def mean(runs):
    """Mean of nested dicts of numbers."""
    return {
        k: mean([r[k] for r in runs])
        if isinstance(runs[0][k], dict)
        else round(float(np.mean([r[k] for r in runs])), 4)
        for k in runs[0]
    }


def evidence(data, history):
    """Correlation of the evidence in the slots with the hidden weights, per reader."""
    A, values = value_table(data.items)
    truth = data.extras['truth']
    names = [a.split(': ', 1)[1] for a in truth['attributes']]
    users, felt, chosen, _ = _evidence(data, history[history['role'] == 'older'], A, 4.0)
    w = truth['user_weights'][users][:, [names.index(v) for v in values]]
    return {
        k: float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(x, w, strict=True)]))
        for k, x in (('felt', felt), ('chosen', chosen), ('both', felt + chosen))
    }


def world(seed, reveal, older, n_users):
    """One generated world: accuracies on unseen readers, by judge and writer."""
    data = toy_data(n_users=n_users, n_items=300, density='dense', reveal=reveal, split='temporal', seed=seed)
    train = np.arange(n_users // 2)
    history = split_history(data, recent=10, older=older, targets=7, dislike=3, like=5)
    rest = np.arange(n_users // 2, n_users)
    p = explore([styled(s) for s in STYLES], data, history, n=2, progress=False)
    unseen = pd.concat([p[p['user'].isin(rest)], no_profile(rest), hidden(data, rest)])
    true = p[p['writer'] == 'style:true']
    f = faithfulness(true, true_tastes(data))
    out = {
        'slots against the truth': {
            'correlation': evidence(data, history),
            'precision of true style': float(f['precision'].mean()),
            'recall of true style': float(f['recall'].mean()),
        }
    }
    fits = {
        'lexical, fitted on true': (true, 'lexical'),
        'lexical, fitted on the mixture': (p, 'lexical'),
        'vectors, fitted on true': (true, 'vectors'),
    }
    scores = {}
    for name, (table, kind) in fits.items():
        by = fit_judge(data, history, table, train, kind=kind, seed=seed)
        told = predictions(unseen, data, history, by)
        out[name] = by_writer(told)
        scores[name] = scores_of(told)
    own = p[p['user'].isin(rest)]
    pairs = make_pairs(own, scores['lexical, fitted on true'])
    out['pairs'] = {
        'pairs per user': len(pairs) / len(rest),
        'gap': pairs['gap'].mean(),
        'standard error of the gap': pairs['gap_se'].mean(),
        'kept by the second judge': transfer(
            *(scores[f'{k}, fitted on true'] for k in ('lexical', 'vectors')), pairs
        ).loc['pairs kept', 'value'],
    }
    return out


def speed():
    """Seconds for 12,000 profiles x 7 targets on this machine."""
    data = toy_data(n_users=1200, n_items=300, density='dense', split='temporal')
    history = split_history(data, older=90, dislike=3, like=5)
    p = explore([styled('true'), styled('invented')], data, history, n=5, progress=False)
    by = fit_judge(data, history, p[p['writer'] == 'style:true'], np.arange(600))
    began = time.perf_counter()
    judge(p, data, history, by, progress=False)
    return {'profiles': len(p), 'targets': 7, 'seconds': round(time.perf_counter() - began, 1)}


def ml100k(folder, older):
    """ML-100K, temporal split: accuracies on unseen users, and the smallest difference this number of users can
    show."""
    data = from_atomic(folder, split='temporal')
    history = split_history(data, recent=10, older=older, targets=7)
    users = np.unique(history['user'])
    values = attribute_values(data.items)
    few = np.sort(np.random.default_rng(0).permutation(users)[: int(0.6 * len(users))])
    rest = np.setdiff1d(users, few)
    p = explore([*(styled(s, values=values) for s in STYLES), template(seed=0)], data, history, n=2, progress=False)
    trusted = p[p['writer'].isin(['style:true', 'template'])]
    out = {'users': len(users), 'left out': history.attrs['left_out'], 'unseen': len(rest)}
    for kind in ('lexical', 'vectors'):
        told = predictions(
            pd.concat([p[p['user'].isin(rest)], no_profile(rest)]),
            data,
            history,
            fit_judge(data, history, trusted, few, kind=kind),
        )
        part = {w: told[told['writer'] == w] for w in told['writer'].unique()}
        row = {w: sentiment_report(t)['value'].round(4).to_dict() for w, t in part.items()}
        for w in ('style:true', 'template'):
            d = paired_difference(part['none'], part[w]).loc['accuracy']
            row[f'{w} minus none'] = d[['difference', 'low', 'high', 'p']].round(4).to_dict()
            row[f'{w} minus none']['smallest that could be seen'] = round(
                float(d['high'] - d['low']) / 2 * 1.43, 4
            )  # power .8
        out[kind] = row
    return out


def main():
    arg = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arg.add_argument('ml100k', nargs='?', help='folder with the ML-100K files')
    arg = arg.parse_args()
    out = {'speed': speed()}
    for reveal, older in ((0.9, 70), (0.9, 90), (0.95, 90)):
        out[f'bookshop, reveal {reveal}, {older} older'] = mean([world(s, reveal, older, 1000) for s in (3, 4, 5)]) | {
            'worlds': 3,
            'unseen': 500,
        }
        print(json.dumps(out[f'bookshop, reveal {reveal}, {older} older'], indent=1), flush=True)
    if arg.ml100k:
        out['ml-100k'] = {f'{k} older': ml100k(arg.ml100k, k) for k in (30, 50, 70)}
    (Path(__file__).parent / 'results' / 'judge.json').write_text(json.dumps(out, indent=1) + '\n')
    print(json.dumps(out.get('ml-100k', {}), indent=1), out['speed'])


if __name__ == '__main__':
    main()
