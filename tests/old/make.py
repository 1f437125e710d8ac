"""What a person has on disk from version 0.1.0, made small: once, by that version, and only opened since.

At the commit that added this file: `python tests/old/make.py`. The writers and settings below are also what
`tests/test_old.py` opens the folders with.
"""
import hashlib
import json
import shutil
import sqlite3
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

HERE = Path(__file__).resolve().parent
if __name__ == '__main__':  # inside a test the path is already right
    sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent)]

from frozen import command, find, settle  # noqa: E402

PORT = 48210  # where the server of the run was; nobody listens there any more
RUN = ['run', '--events', str(HERE / 'events.csv'), '--items', str(HERE / 'items.csv'), '--llm', 'clerk',
       '--base-url', f'http://127.0.0.1:{PORT}/v1', '--price', '1,2', '--budget', '5', '--rerank', '--kcore', '0',
       '--base', 'MF', '--dim', '4', '--width', '8', '--epochs', '6', '--batch', '64', '--lr', '.01',
       '--min-steps', '0', '--device', 'cpu']
TRAIN = dict(batch=64, lr=.01, min_steps=0, device='cpu', progress=False)


TASTES = ['witty', 'tender', 'eerie', 'mystery', 'horror']
TINY = dict(steps=3, batch=8, slots=2, width=32, layers=1)
ALIGN = dict(max_steps=2, batch=4, max_ratio=9., min_users=2, log_steps=1, progress=False, device='cpu')


def answer(prompt: str, sample: int = 0) -> str:
    """The same words for the same question, always."""
    if 'Which ' in prompt[-300:]:  # of numbered candidates
        return '2, 1'
    words = hashlib.sha256(f'{sample} {prompt}'.encode()).hexdigest()
    return f'Enjoys witty and tender books, and number {int(words[:4], 16)}.'


class Clerk:
    """A writer that counts what it is asked."""
    name, params = 'clerk', {'temperature': .5, 'version': 1}

    def __init__(self):
        self.asked = []

    def complete(self, prompt, sample=0):
        self.asked.append(prompt)
        return find('Answer')(answer(prompt, sample or 0), 10, 5)

    def __call__(self, prompt):
        return self.complete(prompt).text


class Critic(Clerk):
    """A judge that counts what it is asked."""
    name, params = 'critic', {}

    def complete(self, prompt, sample=0):
        self.asked.append(prompt)
        return find('Answer')(('like', 'neutral', 'dislike')[len(prompt) % 3], 10, 1)


class Encoder:
    """A text encoder that counts what it encodes."""
    name = 'lengths'

    def __init__(self):
        self.seen = []

    def encode(self, texts, **options):
        self.seen += list(texts)
        return np.array([[len(t), t.count('e'), t.count('a'), 1] for t in texts], np.float32)


TEXTS = ['Enjoys witty books.', 'Avoids horror, and tender books too.', 'Knows nothing.']


def world():
    """Readers whose histories can be cut in time, and some extras of every kind that a save keeps."""
    data = find('toy_data')(11, 40, split='temporal')
    data.extras |= {'note': 'from 0.1.0', 'matrix': sp.csr_matrix(np.eye(3)), 'table': np.arange(6.).reshape(2, 3)}
    return data


def history_of(data):
    return find('split_history')(data, recent=1, older=2, targets=2)


def objective(data):
    """ProMax over vectors and added interactions that follow from the data alone."""
    rng, (m, n) = np.random.default_rng(0), data.train.shape
    su, si = rng.normal(size=(m, 4)).astype(np.float32), rng.normal(size=(n, 4)).astype(np.float32)
    places = np.arange(m), np.arange(m) * 2
    added = sp.csr_matrix((np.ones(m), places), shape=(m, n))
    added = added - added.multiply(data.train)
    added.eliminate_zeros()
    return find('ProMax')(su, si, added)


def preferences():
    """Pairs for a small writer: what is true of a reader, and what is true of the opposite."""
    prompt, honest = find('slot_prompt'), find('styled')('true', values=TASTES)
    tastes = [(liked, hated) for liked in TASTES for hated in TASTES if liked != hated]
    prompts = [prompt([liked], [], [hated], slots=2) for liked, hated in tastes]
    turned = [prompt([hated], [], [liked], slots=2) for liked, hated in tastes]
    return pd.DataFrame({'user': range(len(prompts)), 'prompt': prompts, 'chosen': [honest(p) for p in prompts],
                         'rejected': [honest(p) for p in turned]})


def base(data):
    return find('LightGCN')(data, dim=4, seed=0)


def ask_everything(data, history, clerk, critic, store):
    """Profiles, texts about histories, a judge's words, a judge's numbers: (items, users, texts, scores, numbers)."""
    write, item_prompts, user_prompts, ask = find('write', 'item_prompts', 'user_prompts', 'ask')
    explore, judge, fit_judge, styled = find('explore', 'judge', 'fit_judge', 'styled')
    items = write(clerk, item_prompts(data).head(6), store=store, progress=False)
    users = write(clerk, user_prompts(data).head(4), store=store, progress=False)
    texts = explore(clerk, data, history, n=2, store=store, form='full', progress=False)
    few = texts[texts['user'] < 4]
    scores = judge(few, data, history, critic, store=store, progress=False)
    honest = explore(styled('true'), data, history, n=1, form='slots', progress=False)
    numbers = judge(few, data, history, fit_judge(data, history, honest), store=store, progress=False)
    ask(clerk, ['What is refused?'], store, check=refuse, progress=False)
    return items, users, texts, scores, numbers


def refuse(text):
    raise ValueError('this answer is of no use')


class Server:
    """A chat-completions server on this machine that answers as above."""

    def __init__(self):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
                message = {'role': 'assistant', 'content': answer(body['messages'][0]['content'])}
                reply = json.dumps({'id': 'x', 'object': 'chat.completion', 'created': 0, 'model': body['model'],
                                    'choices': [{'index': 0, 'message': message, 'finish_reason': 'stop'}],
                                    'usage': {'prompt_tokens': 10, 'completion_tokens': 5, 'total_tokens': 15}})
                self.send_response(200)
                self.send_header('Content-Type', 'application/json')
                self.end_headers()
                self.wfile.write(reply.encode())

            def log_message(self, *args):
                pass
        self.httpd = ThreadingHTTPServer(('127.0.0.1', PORT), Handler)
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()


def tables(folder):
    """The files that the run was given."""
    rng = np.random.default_rng(0)
    moods, genres = ['witty', 'tender', 'eerie'], ['mystery', 'romance', 'horror', 'comedy']
    items = pd.DataFrame({'item': [f'b{i}' for i in range(12)], 'title': [f'Book {i}' for i in range(12)],
                          'genre': [genres[i % 4] for i in range(12)], 'mood': [moods[i % 3] for i in range(12)]})
    items['text'] = 'A ' + items.mood + ' ' + items.genre + '.'
    rows = [(f'r{u}', f'b{i}', rng.integers(3, 6)) for u in range(10) for i in rng.permutation(12)[:8]]
    pd.DataFrame(rows, columns=['user', 'item', 'rating']).to_csv(folder / 'events.csv', index=False)
    items.to_csv(folder / 'items.csv', index=False)


def make(folder):
    """Everything, beside this file."""
    for name in ('run', 'data', 'pairs', 'cache', 'fit', 'writer', 'aligned'):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / 'answers.sqlite').unlink(missing_ok=True)
    save, fit, encode = find('save', 'fit', 'encode')
    make_pairs, save_pairs, tiny_lm, align = find('make_pairs', 'save_pairs', 'tiny_lm', 'align')
    tables(folder)
    Server()
    assert command()([*RUN, '--out', str(folder / 'run')]) == 0
    (folder / 'run' / 'report.html').unlink()  # the largest file, and made anew by every call
    data = world()
    save(data, folder / 'data')
    history = history_of(data)
    *_, texts, scores, _ = ask_everything(data, history, Clerk(), Critic(), folder / 'answers.sqlite')
    save_pairs(make_pairs(texts, scores, by='correct', margin=.1), folder / 'pairs')
    encode(TEXTS, Encoder(), cache=folder / 'cache')
    fit(base(data), objective(data), data, folder=folder / 'fit', epochs=3, **TRAIN).save(folder / 'fit')


    small = tiny_lm(TASTES, path=folder / 'writer', **TINY)
    align(small, preferences(), out=folder / 'aligned', **ALIGN)
    (folder / 'aligned' / 'model' / 'training_args.bin').unlink(missing_ok=True)  # a pickle that nobody reads
    for store in (folder / 'answers.sqlite', folder / 'cache' / 'vectors.sqlite', *(folder / 'run').glob('*.db')):
        with closing(sqlite3.connect(store)) as connection:
            connection.execute('vacuum')


if __name__ == '__main__':
    settle()
    make(HERE)
