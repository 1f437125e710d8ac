"""What RecBole says of the lists in a folder. Runs in its own environment: see tests/outside.py."""

import json
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from recbole.evaluator import metrics as theirs
from recbole.evaluator.collector import DataStruct

folder = Path(sys.argv[1])
ids = {'user_id': str, 'item_id': str}
reco, test, train, vectors = (
    pd.read_csv(folder / f'{name}.csv', dtype=ids, keep_default_na=False)
    for name in ('lists', 'test', 'train', 'vectors')
)
asked = json.loads((folder / 'asked.json').read_text(encoding='utf-8'))
longest = max(asked['ks'])
token = {item: number for number, item in enumerate(vectors['item_id'], 1)}  # 0 is RecBole's padding
reco = reco[reco['rank'] <= longest].assign(number=reco['item_id'].map(token))
right = test.groupby('user_id')['item_id'].agg(set)
config = {'topk': asked['ks'], 'metric_decimal_place': 15}


def table_of(users):
    """(U, longest) item numbers, 0 where a list ends."""
    table = np.zeros((len(users), longest), dtype=np.int64)
    row = {user: number for number, user in enumerate(users)}
    listed = reco[reco['user_id'].isin(row)]
    table[listed['user_id'].map(row), listed['rank'] - 1] = listed['number']
    return table


users = asked['users']
numbers = [{token[item] for item in right[user]} for user in users]
hits = np.array([[item in of_user for item in row] for row, of_user in zip(table_of(users), numbers, strict=True)])
n_right = np.array([len(of_user) for of_user in numbers])
per_user, overall = {}, {}
for name in ('Recall', 'NDCG', 'Precision', 'MRR', 'Hit'):
    metric = getattr(theirs, name)(config)
    values = metric.metric_info(hits, n_right) if name in ('Recall', 'NDCG') else metric.metric_info(hits)
    for k in asked['ks']:
        per_user[f'{name}@{k}'] = [float(value) for value in values[:, k - 1]]

said = DataStruct()  # RecBole always fills a list up: the lists that are long enough
said.set('rec.items', torch.as_tensor(table_of(asked['full'])))
said.set('data.num_items', len(token) + 1)  # as dataset.num(item_id) counts them: with the padding
said.set('data.count_items', Counter(train['item_id'].map(token)))
for name in ('ItemCoverage', 'AveragePopularity', 'GiniIndex'):
    for key, value in getattr(theirs, name)(config).calculate_metric(said).items():
        overall[f'{name}@{key.split("@")[1]}'] = float(value)
versions = {name: version(name) for name in ('recbole', 'numpy', 'pandas', 'torch')}
told = {'versions': versions, 'users': users, 'per_user': per_user, 'overall': overall}
(folder / 'said.json').write_text(json.dumps(told), encoding='utf-8')
