"""What was tried to make the static encoder as good as the full text model: validation data of amazon-industrial.

    python benchmarks/static.py DATA_FOLDER --out runs/encoders [--collect benchmarks/results/static.json]

Tables of word vectors instead of the one in use (`static`: the input table, weighted by Zipf's law): the input table
weighted by inverse document frequency; the model's output for every word piece alone, weighted in both ways, with and
without its first principal component (as Model2Vec distils). Recall@20 of profiles alone, nothing trained: user profile
beside items (`profile`), mean of the history's items beside items (`history`), whitened as a run does it (`whitened`);
each also with the mean and the first principal component of all texts taken off. Vectors of the full model are kept in
--out, the rest is made anew.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from promax_nb.data.frames import from_frame
from promax_nb.models.evaluate import per_user
from promax_nb.models.results import versions
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.write import write
from promax_nb.retrieval.embed import encode, whiten
from promax_nb.retrieval.encoders import find_encoder, load_encoder
from promax_nb.retrieval.vectors import unit_rows
from promax_nb.retrieval.wordvectors import StaticEncoder, word_table, zipf_weights


def without_first(table):
    """Rows without their mean and their first principal component."""
    table = table - table.mean(0)
    first = np.linalg.eigh(table.T @ table)[1][:, -1:]
    return table - (table @ first) @ first.T


def alone(model):
    """The model's output for every word piece between its two marks: (pieces, d)."""
    inner = model[0].auto_model if hasattr(model[0], 'auto_model') else model[0].model
    rows = []
    with torch.inference_mode():
        for pieces in torch.arange(len(model.tokenizer)).split(1024):
            first = torch.full_like(pieces, model.tokenizer.cls_token_id)
            last = torch.full_like(pieces, model.tokenizer.sep_token_id)
            rows.append(inner(input_ids=torch.stack([first, pieces, last], 1)).last_hidden_state[:, 1])
    return torch.cat(rows).numpy()


def candidates(texts, kept):
    """Name -> vectors of all texts."""
    static, model = StaticEncoder(find_encoder().where), load_encoder(find_encoder(device='cpu'))
    vocabulary = static.pieces.get_vocab()
    words = sorted(vocabulary, key=vocabulary.get)
    counts = sp.lil_matrix((len(texts), len(words)), dtype=np.float32)
    for row, ids in enumerate(static.tokenizer(texts)['input_ids']):
        pieces, often = np.unique(ids, return_counts=True)
        counts[row, pieces] = often
    counts = counts.tocsr()
    rare = np.log((len(texts) + 1) / (counts.getnnz(0) + 1)).astype(np.float32)[:, None]
    zipf, table, output = zipf_weights(words)[:, None], word_table(static.folder), alone(model)
    tables = {
        'static': table * zipf,
        'static, by document frequency': table * rare,
        'distilled': output * zipf,
        'distilled, by document frequency': output * rare,
        'distilled without its first component': without_first(output) * zipf,
    }
    full = {'full': encode(texts, cache=kept, device='cpu')}
    return full | {name: counts @ rows for name, rows in tables.items()}


def recall(data, vectors):
    """Recall@20 on validation, three ways."""
    users, items = np.split(unit_rows(vectors), [data.train.shape[0]])
    history = unit_rows(data.train.astype(np.float32) @ items)
    ways = {'profile': (users, items), 'history': (history, items), 'whitened': whiten(users, items, dim=64)}
    found = {}
    for name, (left, right) in ways.items():
        metrics = per_user(left.astype(np.float32), right.astype(np.float32), data.valid, data.train, ks=(20,))
        found[name] = round(float(metrics['recall@20'].mean()), 5)
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', type=Path, help='folder with amazon-industrial')
    p.add_argument('--out', type=Path, default=Path('runs/encoders'), help='where vectors are kept')
    p.add_argument('--collect', type=Path, help='JSON file to write')
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    files = [args.data / 'amazon-industrial' / f'industrial-{name}.csv' for name in ('events', 'items')]
    data = from_frame(*[pd.read_csv(file, dtype=str) for file in files], split='split', kcore=0)
    items = write(None, item_prompts(data), progress=False)
    users = write(None, user_prompts(data, items), progress=False)
    result = {'command': 'python benchmarks/static.py DATA_FOLDER', 'versions': versions(), 'recall@20': {}}
    vectors = candidates(users.profile.tolist() + items.profile.tolist(), args.out / 'vectors-full.db')
    for name, rows in vectors.items():
        usual, less = recall(data, rows), recall(data, without_first(unit_rows(rows)))
        result['recall@20'][name] = usual | {f'{way}, first component off': value for way, value in less.items()}
        print(name, result['recall@20'][name], flush=True)
    if args.collect:
        args.collect.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
