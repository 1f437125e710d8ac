"""What a faster reader of profiles costs in quality: the full text model, the same in 8 bits, its word vectors alone.

    python benchmarks/encoders.py DATA_FOLDER --out runs/encoders [--collect benchmarks/results/encoders.json]

Profiles are written by the template from the training part; vectors are whitened as a run does it (64 wide, shared
basis), and the lists of every user come from them alone: nothing is trained. Quality on validation and on test stands
beside the full model's, with an interval over users. Seconds are those of the same 1,000 texts, one encoder after the
other in one process, and then once more in the other order; the smaller time counts. Vectors of the full model are
kept in --out, so that a second start needs seconds.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import pandas as pd
import torch

from promax_nb.data.bookshop import toy_data
from promax_nb.data.frames import from_frame
from promax_nb.data.loaders import from_atomic
from promax_nb.models.evaluate import per_user
from promax_nb.models.inference import paired
from promax_nb.models.results import versions
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.write import write
from promax_nb.retrieval.embed import encode, whiten
from promax_nb.retrieval.encoders import find_encoder, load_encoder, read_texts

METRICS = ['recall@20', 'ndcg@20']
WIDTH = 64


def worlds(folder):
    """Name -> RecData."""
    files = [folder / 'amazon-industrial' / f'industrial-{name}.csv' for name in ('events', 'items')]
    tables = [pd.read_csv(file, dtype=str) for file in files]
    return {
        'bookshop': toy_data(),
        'ml-100k': from_atomic(folder / 'ml-100k', split='random'),
        'amazon-industrial': from_frame(*tables, split='split', kcore=0, name='amazon-industrial'),
    }


class EightBits:
    """The built-in model with the products of its layers in 8 bits (torch's dynamic quantisation)."""

    name = 'the built-in model in 8 bits'

    def __init__(self):
        import copy

        whole = load_encoder(find_encoder(device='cpu'))
        self.model = copy.deepcopy(whole)
        with warnings.catch_warnings(action='ignore'):
            quantise = torch.ao.quantization.quantize_dynamic
            self.model[0].model = quantise(self.model[0].model, {torch.nn.Linear}, dtype=torch.qint8)

    def encode(self, texts, batch_size=16):
        return self.model.encode(texts, batch_size=batch_size, show_progress_bar=False)


def readers():
    """Name -> what `encode` takes as a model."""
    return {'full': None, '8 bits': EightBits(), 'static': 'static'}


def measured(data, vectors):
    """Metrics by user of profiles alone, on validation and on test."""
    users, items = whiten(*vectors, dim=WIDTH)
    parts = {'valid': (data.valid, data.train), 'test': (data.test, data.train + data.valid)}
    return {part: per_user(users, items, truth, seen, ks=(20,))[METRICS] for part, (truth, seen) in parts.items()}


def seconds(texts):
    """Reader -> seconds for the same texts, side by side."""
    models = {name: find_encoder(model, device='cpu') for name, model in readers().items()}
    texts = sorted(texts, key=len, reverse=True)
    taken = {name: [] for name in models}
    for names in (list(models), list(models)[::-1]):
        for name in names:
            read_texts(models[name], texts[:32])
            began = time.perf_counter()
            read_texts(models[name], texts)
            taken[name].append(time.perf_counter() - began)
    return {name: round(min(times), 3) for name, times in taken.items()}


def table(data, texts, out):
    """Part -> reader -> metric -> values beside the full model's."""
    metrics = {}
    for name, model in readers().items():
        cache = out / f'vectors-{name}.db'
        metrics[name] = measured(data, [encode(side, model, cache=cache, device='cpu') for side in texts])
    rows = {}
    for part in ('valid', 'test'):
        for name in metrics:
            beside = paired(metrics['full'][part], metrics[name][part])
            rows[f'{part}: {name}'] = json.loads(beside.round(5).to_json(orient='index'))
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', type=Path, help='folder with ml-100k and amazon-industrial')
    p.add_argument('--out', type=Path, default=Path('runs/encoders'), help='where vectors are kept')
    p.add_argument('--collect', type=Path, help='JSON file to write')
    p.add_argument('--time', action='store_true', help='the seconds alone, on a quiet machine')
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kept = args.out / 'encoders.json'
    result = json.loads(kept.read_text()) if kept.exists() else {}
    for name, data in worlds(args.data).items():
        if args.time and name != 'bookshop':
            continue
        items = write(None, item_prompts(data), progress=False)
        users = write(None, user_prompts(data, items), progress=False)
        texts = [users.profile.tolist(), items.profile.tolist()]
        if args.time:
            about = {'texts': len(texts[0] + texts[1]), 'of': name, 'threads': torch.get_num_threads()}
            result['seconds'] = about | seconds(texts[0] + texts[1])
            print(result['seconds'])
        else:
            result[name] = table(data, texts, args.out)
            print(name, {row: values['recall@20'] for row, values in result[name].items()}, flush=True)
        kept.write_text(json.dumps(result, indent=1))
    if args.collect:
        about = {'command': 'python benchmarks/encoders.py DATA_FOLDER', 'width': WIDTH, 'versions': versions()}
        about['cpu'] = torch.backends.cpu.get_cpu_capability()
        args.collect.write_text(json.dumps(about | result, indent=1) + '\n')


if __name__ == '__main__':
    main()
