"""What RecTools says of the lists in a folder. Runs in its own environment: see tests/outside.py."""

import inspect
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from rectools.dataset import Dataset
from rectools.metrics import (
    MRR,
    NDCG,
    AvgRecPopularity,
    CatalogCoverage,
    HitRate,
    IntraListDiversity,
    MeanInvUserFreq,
    PairwiseDistanceCalculator,
    Precision,
    Recall,
    calc_metrics,
)
from rectools.model_selection import LastNSplitter, TimeRangeSplitter
from rectools.models import PopularModel, load_model
from rectools.models.base import ModelBase

folder = Path(sys.argv[1])
ids = {'user_id': str, 'item_id': str}
reco, test, train, vectors = (
    pd.read_csv(folder / f'{name}.csv', dtype=ids, keep_default_na=False)
    for name in ('lists', 'test', 'train', 'vectors')
)
asked = json.loads((folder / 'asked.json').read_text(encoding='utf-8'))


class Angle(PairwiseDistanceCalculator):
    """1 - cosine of the items' vectors."""

    def __init__(self, table):
        units = table.set_index('item_id')
        self.units = units.div(np.sqrt((units**2).sum(axis=1)), axis=0)

    def _get_distances_for_item_pairs(self, items_0, items_1):
        return 1 - (self.units.loc[items_0].to_numpy() * self.units.loc[items_1].to_numpy()).sum(axis=1)


def of_users(values):
    """In the order asked for; None where RecTools says nothing."""
    return [None if pd.isna(value) else float(value) for value in values.reindex(asked['users'])]


catalog = vectors['item_id']
per_user, overall = {}, {}
for k in asked['ks']:
    right = {
        'Recall': Recall(k),
        'NDCG': NDCG(k),
        'NDCG(divide_by_achievable=True)': NDCG(k, divide_by_achievable=True),
        'MRR': MRR(k),
    }
    for name, metric in right.items():
        per_user[f'{name}@{k}'] = of_users(metric.calc_per_user(reco, test))
    counted = {
        'Precision': Precision(k),
        'Precision(r_precision=True)': Precision(k, r_precision=True),
        'HitRate': HitRate(k),
    }
    for name, metric in counted.items():
        per_user[f'{name}@{k}'] = of_users(metric.calc_per_user(reco, test))
    per_user[f'MeanInvUserFreq@{k}'] = of_users(MeanInvUserFreq(k).calc_per_user(reco, train))
    per_user[f'AvgRecPopularity@{k}'] = of_users(AvgRecPopularity(k).calc_per_user(reco, train))
    per_user[f'IntraListDiversity@{k}'] = of_users(IntraListDiversity(k, Angle(vectors)).calc_per_user(reco))
    overall[f'CatalogCoverage(normalize=True)@{k}'] = CatalogCoverage(k, normalize=True).calc(reco, catalog)

def its_own(n=10):
    """Lists of a model of RecTools, asked as people do."""
    data = Dataset.construct(train)
    model = PopularModel().fit(data)
    return model.recommend(train['user_id'].unique(), dataset=data, k=n, filter_viewed=True)


table = its_own()
own = {'lists': table.groupby('user_id')['item_id'].agg(list).to_dict()}
own['NDCG(divide_by_achievable=True)@10'] = of_users(NDCG(10, divide_by_achievable=True).calc_per_user(table, test))
asked_by = {
    'Dataset.construct': Dataset.construct,
    'ModelBase.fit': ModelBase.fit,
    'ModelBase.recommend': ModelBase.recommend,
    'ModelBase.recommend_to_items': ModelBase.recommend_to_items,
    'ModelBase.save': ModelBase.save,
    'load_model': load_model,
    'calc_metrics': calc_metrics,
    'TimeRangeSplitter': TimeRangeSplitter,
    'LastNSplitter': LastNSplitter,
}
calls = {name: list(inspect.signature(call).parameters) for name, call in asked_by.items()}
versions = {name: version(name) for name in ('rectools', 'numpy', 'pandas')}
said = {'versions': versions, 'users': asked['users'], 'per_user': per_user, 'overall': overall}
said |= {'own': own, 'calls': calls}
(folder / 'said.json').write_text(json.dumps(said), encoding='utf-8')
