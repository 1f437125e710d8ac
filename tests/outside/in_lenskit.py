"""What LensKit says of the lists in a folder. Runs in its own environment: see tests/outside.py."""

import inspect
import json
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from lenskit import recommend, score
from lenskit.basic import PopScorer, UnratedTrainingItemsCandidateSelector
from lenskit.batch import recommend as recommend_to_all
from lenskit.data import ItemListCollection, RecQuery, UserIDKey, from_interactions_df
from lenskit.metrics import (
    NDCG,
    Hit,
    ListGini,
    LogRankWeight,
    Precision,
    Recall,
    RecipRank,
    RunAnalysis,
    rank_biased_overlap,
)
from lenskit.pipeline import Pipeline, topn_pipeline
from lenskit.splitting import LastN, crossfold_users, split_global_time

folder = Path(sys.argv[1])
ids = {'user_id': str, 'item_id': str}
reco, other, test, train, vectors = (
    pd.read_csv(folder / f'{name}.csv', dtype=ids, keep_default_na=False)
    for name in ('lists', 'other', 'test', 'train', 'vectors')
)
asked = json.loads((folder / 'asked.json').read_text(encoding='utf-8'))


def lists_of(table):
    """Item lists by user."""
    return ItemListCollection.from_df(table, UserIDKey)


def in_order(values):
    """In the order asked for; None where LensKit says nothing."""
    return [None if pd.isna(value) else float(value) for value in values.reindex(asked['users'])]


def measured(lists, right, k):
    """Numbers of each user, and of all together."""
    analysis = RunAnalysis()
    metrics = {
        'Recall': Recall(k),
        'Precision': Precision(k),
        'RecipRank': RecipRank(k),
        'Hit': Hit(k),
        'NDCG': NDCG(k),
        'NDCG(weight=LogRankWeight(offset=1))': NDCG(k, weight=LogRankWeight(offset=1)),
    }
    for name, metric in metrics.items():
        analysis.add_metric(metric, label=name)
    analysis.add_metric(ListGini(k, items=len(vectors)), label='ListGini')
    found = analysis.measure(lists, right)
    table = found.list_metrics()
    users = {f'{name}@{k}': in_order(table[name]) for name in metrics}
    return users, {f'ListGini@{k}': float(found.global_metrics()['ListGini'])}


def overlaps(lists, others, k):
    """Rank-biased overlap of two lists of each user, where both have k places."""
    found = {}
    for (user,), one in lists.items():
        two = others.lookup(user)
        if two is not None and min(len(one), len(two)) >= k:
            found[user] = rank_biased_overlap(one, two, n=k)
    return pd.Series(found)


def its_own(n=10):
    """A model of LensKit: trained, asked for one user as people do, then for all."""
    data = from_interactions_df(train[['user_id', 'item_id']])
    pipe = topn_pipeline(PopScorer(), n=n)
    pipe.train(data)
    one = recommend(pipe, asked['users'][0], n)
    table = recommend_to_all(pipe, data.users.ids(), n, n_jobs=1).to_df()
    assert table[table['user_id'] == asked['users'][0]]['item_id'].tolist() == one.ids().tolist()
    return table


lists, right = lists_of(reco), lists_of(test[['user_id', 'item_id']])
per_user, overall = {}, {}
for k in asked['ks']:
    users, everybody = measured(lists, right, k)
    per_user |= users | {f'rank_biased_overlap@{k}': in_order(overlaps(lists, lists_of(other), k))}
    overall |= everybody
table = its_own()
own = {'lists': table.groupby('user_id')['item_id'].agg(list).to_dict()}
name = 'NDCG(weight=LogRankWeight(offset=1))@10'
own[name] = measured(lists_of(table), right, 10)[0][name]
asked_by = {
    'from_interactions_df': from_interactions_df,
    'topn_pipeline': topn_pipeline,
    'Pipeline.train': Pipeline.train,
    'recommend': recommend,
    'batch.recommend': recommend_to_all,
    'score': score,
    'ItemListCollection.from_df': ItemListCollection.from_df,
    'RunAnalysis.measure': RunAnalysis.measure,
    'RecQuery': RecQuery,
    'UnratedTrainingItemsCandidateSelector': UnratedTrainingItemsCandidateSelector,
    'LastN': LastN,
    'crossfold_users': crossfold_users,
    'split_global_time': split_global_time,
}
calls = {name: list(inspect.signature(call).parameters) for name, call in asked_by.items()}
versions = {name: version(name) for name in ('lenskit', 'numpy', 'pandas', 'torch')}
said = {'versions': versions, 'users': asked['users'], 'per_user': per_user, 'overall': overall}
said |= {'own': own, 'calls': calls}
(folder / 'said.json').write_text(json.dumps(said), encoding='utf-8')
