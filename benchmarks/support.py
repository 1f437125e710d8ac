"""How often is a claim of free prose judged rightly by meaning alone? Phrases whose truth the attributes tell.

    python benchmarks/support.py [DATA] [--out FILE]

Values that stand out among what somebody liked are true of them, values that stand out among what they disliked are
not; `support` sees neither, only the texts of the items. The generated bookshop (three seeds, a blurb that explains
nearly all of a taste, and one that explains half), and ML-100K with its plots where DATA holds it.
"""

import argparse
from pathlib import Path

import numpy as np

from promax_nb.data.bookshop import toy_data
from promax_nb.data.loaders import from_atomic
from promax_nb.data.storage import write_json
from promax_nb.lettingo.histories import history_prompts, split_history
from promax_nb.lettingo.support import labelled_tastes, support_error
from promax_nb.retrieval.embed import encode


def read_items(data, cache) -> tuple:
    """A reader of texts that reads each once, and the vectors of the items' titles and texts."""

    def read(texts):
        return encode(list(texts), cache=cache)

    titles, texts = data.items['title'].astype(str), data.items['text'].fillna('')
    return read, read([f'{title}. {text}' for title, text in zip(titles, texts, strict=True)])


def measured(data, history, cache) -> dict:
    """The error of `support` on one data set, and with labels dealt anew."""

    seen = history[(history['role'] != 'target') & (history['sentiment'] == 'like')]
    liked = seen.groupby('user')['item'].agg(list).to_dict()
    labelled = labelled_tastes(history_prompts(data, history, 'slots'))
    read, vectors = read_items(data, cache)
    dealt = labelled.assign(truth=np.random.default_rng(0).permutation(labelled['truth']))
    return (
        {'people': len(liked)}
        | support_error(labelled, liked, vectors, read)
        | {'auc, labels dealt anew': support_error(dealt, liked, vectors, read)['auc']}
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, nargs='?')
    parser.add_argument('--cache', type=Path, default=Path('runs/support.db'), help='vectors that were read')
    parser.add_argument('--out', type=Path)
    o = parser.parse_args(argv)
    o.cache.parent.mkdir(parents=True, exist_ok=True)
    found = {}
    for seed in (0, 1, 2):
        for name, reveal in (('bookshop', 0.95), ('bookshop, half told', 0.5)):
            data = toy_data(300, 400, seed=seed, density='dense', reveal=reveal, split='temporal', noise=0.25)
            found[f'{name}, seed {seed}'] = measured(data, split_history(data, 10, 100, 40, 3, 5), o.cache)
    if o.data:
        data = from_atomic(o.data / 'ml-100k', threshold=None, kcore=0, split='temporal', ratios=(0.8, 0.1, 0.1))
        found['ml-100k'] = measured(data, split_history(data, 10, 30, 20, 2.0, 4.0), o.cache)
    for name, row in found.items():
        print(f'{name:30}', {key: round(float(value), 3) for key, value in row.items()})
    if o.out:
        write_json(o.out, {name: {key: float(value) for key, value in row.items()} for name, row in found.items()})


if __name__ == '__main__':
    main()
