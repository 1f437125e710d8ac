"""How quickly is a recommender of Amazon-book's size opened, and how quickly does it answer over HTTP?

    python benchmarks/serve.py --out runs/serve

Makes a run on generated data with as many users and items as Amazon-book (short trainings: the vectors only have to be
real, not good). Then opens its recommender in processes of their own, answers the three questions of the README from
the shell, and starts `promax serve` with eight clients that ask for a minute, each as soon as it was answered: lists,
sentences that nobody sent before, neighbours and reasons in turn. Writes benchmarks/results/serve.json.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd

from promax_nb.data.frames import from_frame
from promax_nb.experiment import experiment
from promax_nb.models.results import versions
from promax_nb.recommend.runs import open_recommender

SHAPE, EVENTS = (11_000, 9_332), 20
LOAD = """import json, sys, time
began = time.perf_counter()
from promax_nb.recommend.folder import load_recommender
imported = time.perf_counter()
served = load_recommender(sys.argv[1])
loaded = time.perf_counter()
served.recommend(served.users.user[7])
told = {'import': imported - began, 'load': loaded - imported, 'first list': time.perf_counter() - loaded}
told['imported'] = [name for name in ('torch', 'promax_nb.models.train') if name in sys.modules]
print(json.dumps(told))"""
COMMAND = [sys.executable, '-c', 'import sys; from promax_nb.cli import main; sys.exit(main())']
TASTES = ('slow crime', 'history', 'fantasy', 'comic', 'horror', 'romance', 'travel', 'science')
PLACES = ('by the sea', 'in the mountains', 'in a big city', 'in space', 'at school', 'on a farm', 'in the desert')


def shop(n_users, n_items, seed=0):
    """A shop of generated events: one genre a reader, popular books read more often, every book with a text."""
    draw = np.random.default_rng(seed)
    genre, place = draw.integers(len(TASTES), size=n_items), draw.integers(len(PLACES), size=n_items)
    popularity = 1 / np.sqrt(1 + draw.permutation(n_items))
    rows = []
    for user in range(n_users):
        chance = popularity * np.where(genre == user % len(TASTES), 20, 1)
        read = draw.choice(n_items, EVENTS, replace=False, p=chance / chance.sum())
        rows.append(pd.DataFrame({'user': f'reader {user}', 'item': [f'b{item}' for item in read]}))
    events = pd.concat(rows, ignore_index=True)
    items = pd.DataFrame({'item': [f'b{item}' for item in range(n_items)]})
    items['title'] = [f'The book {item}' for item in range(n_items)]
    items['genre'], items['place'] = np.array(TASTES)[genre], np.array(PLACES)[place]
    items['text'] = 'A ' + items.genre + ' story ' + items.place + ', from the house of ' + items.title + '.'
    return from_frame(events, items=items, split='random', seed=seed)


def loads(folder, times):
    """Seconds of every part, each in a new process; the first, whose files may be cold, is left out."""
    rows = []
    for _ in range(times + 1):
        done = subprocess.run([sys.executable, '-c', LOAD, str(folder)], check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    parts = {part: [row[part] for row in rows[1:]] for part in ('import', 'load', 'first list')}
    medians = {part: float(np.median(seconds)) for part, seconds in parts.items()}
    size = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
    return medians | {'most, load': max(parts['load']), 'imported': rows[0]['imported'], 'MB': size / 1e6}


def from_the_shell(run, user, item):
    """Seconds of a whole command, in a new process."""
    questions = {
        'recommend --user': ('recommend', run, '--user', user),
        'similar --item': ('similar', run, '--item', item),
        'recommend --profile': ('recommend', run, '--profile', 'slow crime stories by the sea, no romance'),
    }
    seconds = {}
    for name, words in questions.items():
        began = time.perf_counter()
        subprocess.run([*COMMAND, *map(str, words)], check=True, capture_output=True)
        seconds[name] = time.perf_counter() - began
    return seconds


class Client(threading.Thread):
    """Asks until the time is over, each question as soon as the last one was answered."""

    def __init__(self, address, served, seed, until):
        super().__init__()
        self.address, self.until, self.draw = address, until, np.random.default_rng(seed)
        self.users, self.items = served.users.user.to_numpy(), served.items.item.to_numpy()
        self.seconds: dict = {}
        self.wrong: list = []

    def question(self, kind):
        """(path, body) of a question of a kind."""
        user, item = self.draw.choice(self.users), self.draw.choice(self.items)
        if kind == 'sentence':
            words = [self.draw.choice(words) for words in (TASTES, PLACES)]
            told = f'I love {words[0]} stories {words[1]}, number {self.draw.integers(10**9)}.'
            return '/recommend', json.dumps({'profile': told}).encode()
        asked = {'list': {'user': user}, 'neighbours': {'item': item}, 'reasons': {'user': user, 'item': item}}
        path = {'list': '/recommend', 'neighbours': '/similar', 'reasons': '/explain'}[kind]
        return f'{path}?{urllib.parse.urlencode(asked[kind])}', None

    def run(self):
        kinds = ('list', 'sentence', 'neighbours', 'reasons')
        number = 0
        while time.monotonic() < self.until:
            kind = kinds[number % len(kinds)]
            number += 1
            path, body = self.question(kind)
            asked = urllib.request.Request(self.address + path, body, {'Content-Type': 'application/json'})
            began = time.perf_counter()
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:
                    json.load(answer)
            except (OSError, ValueError) as error:
                self.wrong.append(f'{path}: {error}')
            self.seconds.setdefault(kind, []).append(time.perf_counter() - began)


def served_for(run, clients, seconds):
    """Latencies of every kind of question under so many clients, from asking to the whole answer."""
    with open(run.with_suffix('.log'), 'w', encoding='utf-8') as log:
        service = subprocess.Popen(
            [*COMMAND, 'serve', str(run), '--port', '0'], stdout=subprocess.PIPE, stderr=log, text=True
        )
        began = time.monotonic()
        try:
            line = service.stdout.readline()
            address = next(word for word in line.split() if word.startswith('http://'))
            ready, recommender = time.monotonic() - began, open_recommender(run)
            until = time.monotonic() + seconds
            asking = [Client(address, recommender, seed, until) for seed in range(clients)]
            for client in asking:
                client.start()
            for client in asking:
                client.join()
        finally:
            service.terminate()
            service.wait(20)
    wrong = [error for client in asking for error in client.wrong]
    rows = {}
    for kind in asking[0].seconds:
        spent = 1000 * np.concatenate([client.seconds[kind] for client in asking])
        p50, p99 = np.percentile(spent, [50, 99])
        rows[kind] = {'questions': len(spent), 'p50 ms': p50, 'p99 ms': p99, 'most ms': spent.max()}
    told = {'clients': clients, 'seconds': seconds, 'ready after, seconds': ready, 'errors': wrong[:5]}
    return told | {'wrong': len(wrong), 'latency': rows}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, default=Path('runs/serve'), help='where the run is made, or lies')
    p.add_argument('--clients', type=int, default=8)
    p.add_argument('--seconds', type=float, default=60)
    p.add_argument('--loads', type=int, default=9, help='processes that open the recommender')
    a = p.parse_args()
    if not (a.out / 'metrics.json').exists():
        experiment(shop(*SHAPE), a.out, epochs=6, sdr=1.0, s2dr=0.01, memory=2.0)
    served = open_recommender(a.out)
    result = {
        'users': served.shape[0],
        'items': served.shape[1],
        'width': served.ours.vectors[0].shape[1],
        'cores': os.cpu_count(),
        'load': loads(a.out / 'recommender', a.loads),
        'shell, seconds': from_the_shell(a.out, served.users.user[7], served.items.item[9]),
        'service': served_for(a.out, a.clients, a.seconds),
        'versions': versions(),
    }
    target = Path(__file__).parent / 'results' / 'serve.json'
    target.write_text(json.dumps(result, indent=1), encoding='utf-8')
    print(target.read_text(encoding='utf-8'))


if __name__ == '__main__':
    main()
