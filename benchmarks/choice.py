"""Data without ratings: can a text tell what was taken from what was not, at the same popularity?

    python benchmarks/choice.py DATA [--people 600] [--cache FILE] [--out FILE]

Two training interactions of each person are asked about, each beside an item as popular among the others
(`choice_questions`); the template writes from what remains. Beside it: the profile of somebody else, and the mean of
the item texts. Three random splits of amazon-industrial, and steam-sub where DATA holds it; test is never read.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from controls import industrial, steam
from support import read_items

from promax_nb.data.storage import write_json
from promax_nb.lettingo.choice import (
    choice_judge,
    choice_questions,
    fit_sharpness,
    need_good_judge,
    right_by_mean,
    without_taken,
)
from promax_nb.models.inference import interval, resampled
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.template import template
from promax_nb.profiles.write import write


def measured(data, people, seed, cache) -> dict:
    """Shares of right answers, with intervals over people."""

    questions = choice_questions(data, seed=seed)
    some = np.random.default_rng(seed).permutation(questions['user'].unique())[:people]
    few = questions[questions['user'].isin(some)].reset_index(drop=True)
    shown = without_taken(data, questions)
    read, vectors = read_items(data, cache)
    sharpness = fit_sharpness(questions, shown, vectors)
    own = write(template(), user_prompts(shown, write(template(), item_prompts(data))))['profile']
    users = np.sort(some)
    told = pd.DataFrame({'user': users, 'profile': own.iloc[users].to_numpy()}).assign(writer='template', sample=0)
    dealt = told.assign(writer='of somebody else', profile=np.roll(told['profile'], 7))
    scores = choice_judge(pd.concat([told, dealt], ignore_index=True), few, vectors, read, sharpness)
    right = {name: part.set_index('user')['correct'] for name, part in scores.groupby('writer')}
    right['mean of item texts'] = right_by_mean(few, shown, vectors)
    rows = {}
    for name, values in right.items():
        low, high = interval(resampled(values.to_numpy()[:, None]))[:, 0]
        rows[name] = {'right': float(values.mean()), 'low': float(low), 'high': float(high)}
    facts = {'people': len(users), 'questions': len(few), 'by popularity': questions.attrs['by popularity']}
    print(need_good_judge(scores[scores['writer'] == 'template'], facts['by popularity']), flush=True)
    return facts | {'sharpness': sharpness, 'rows': rows}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path)
    parser.add_argument('--people', type=int, default=600)
    parser.add_argument('--cache', type=Path, default=Path('runs/choice.db'), help='vectors that were read')
    parser.add_argument('--out', type=Path)
    o = parser.parse_args(argv)
    o.cache.parent.mkdir(parents=True, exist_ok=True)
    found = {}
    for seed in (0, 1, 2):
        found[f'amazon-industrial, split {seed}'] = measured(industrial(o.data, seed), o.people, seed, o.cache)
    if (o.data / 'steam-sub').is_dir():
        found['steam-sub'] = measured(steam(o.data, 'given'), o.people, 0, o.cache)
    for name, row in found.items():
        print(name, {key: round(one['right'], 3) for key, one in row['rows'].items()}, row['by popularity'])
    if o.out:
        write_json(o.out, found)


if __name__ == '__main__':
    main()
