"""The chain of a run: whose folder it is, who pays, and what makes one run differ from another."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from promax_nb.cli import main
from promax_nb.data.bookshop import toy_data
from promax_nb.data.settings import checked
from promax_nb.experiment import DataConfig, RunConfig, claim, experiment, load_data, make_writer
from promax_nb.models.results import load_fit

QUICK = dict(base='MF', dim=8, epochs=3, batch=256, lr=0.01, min_steps=0, width=8, encoder='static')


def quiet(line):
    pass


def refused(folder, data, config) -> str:
    """What the claim of a folder says to other inputs."""
    with pytest.raises(ValueError) as error:
        claim(folder, data, config)
    return str(error.value)


# whose folder -------------------------------------------------------------------------------------------------------


def test_a_changed_input_is_refused_by_name(tmp_path):
    shop, config = toy_data(30, 40), RunConfig()
    claim(tmp_path / 'R', shop, config)
    free = dict(epochs=7, device='cpu', workers=2, budget=3.0, price=(1, 2))
    claim(tmp_path / 'R', shop, dataclasses.replace(config, **free))
    (tmp_path / 'R' / 'fits').mkdir()
    retold = shop.items.assign(text=['another text', *shop.items.text[1:]])
    renamed = shop.users.assign(user=[f'x{user}' for user in shop.users.user])
    swapped = shop.events.split.map({'train': 'train', 'valid': 'test', 'test': 'valid', '': ''})
    moved = shop.events.assign(split=swapped.fillna(shop.events.split))
    moved = dataclasses.replace(shop, valid=shop.test, test=shop.valid, events=moved)
    brought = dataclasses.replace(shop, extras=shop.extras | {'augmented': shop.test})
    kcore = dataclasses.replace(shop, meta=shop.meta | {'kcore': 9})
    told = {
        'item texts': dataclasses.replace(shop, items=retold),
        'user table': dataclasses.replace(shop, users=renamed),
        'interactions': moved,
        'what came with the data': brought,
        'data options.kcore': kcore,
    }
    for name, other in told.items():
        sentence = refused(tmp_path / 'R', other, config)
        assert re.search(rf'other inputs: {re.escape(name)}( \([^)]*\))?\. Use another', sentence), sentence
    for setting, value in (('sdr', 0.9), ('seeds', (1,)), ('temperature', 0.7), ('llm_options', {'top_p': 0.5})):
        sentence = refused(tmp_path / 'R', shop, dataclasses.replace(config, **{setting: value}))
        assert f'other inputs: settings.{setting} (' in sentence, sentence


def test_settings_can_be_put_right_until_something_is_trained(tmp_path):
    """A setting that turns out to be impossible after the profiles were paid for does not cost them."""
    shop = toy_data(30, 40)
    with pytest.raises(ValueError, match='use width <= 384'):
        experiment(shop, tmp_path / 'R', say=quiet, **(QUICK | dict(width=500)))
    assert refused(tmp_path / 'R', dataclasses.replace(shop, meta=shop.meta | {'kcore': 9}), RunConfig(**QUICK))
    experiment(shop, tmp_path / 'R', say=quiet, **QUICK)
    assert json.loads((tmp_path / 'R' / 'settings.json').read_text())['width'] == QUICK['width']
    assert 'settings.width (8 -> 4)' in refused(tmp_path / 'R', shop, RunConfig(**(QUICK | dict(width=4))))


def test_a_folder_that_is_no_run_or_is_broken(tmp_path):
    (tmp_path / 'settings.json').write_text('{"sdr": ')
    assert 'cannot be read' in refused(tmp_path, toy_data(30, 40), RunConfig())
    (tmp_path / 'settings.json').unlink()
    (tmp_path / 'thesis.txt').write_text('mine')
    assert 'nothing in it is overwritten' in refused(tmp_path, toy_data(30, 40), RunConfig())


def trained(folder) -> list:
    """The vectors of all trainings of a run."""
    return [load_fit(path).users for path in sorted((folder / 'fits').iterdir())]


def test_runs_that_differ_in_one_thing_differ(tmp_path):
    """Only the seed; only the added interactions, as many as before; only one profile vector."""
    shop, rng = toy_data(60, 40), np.random.default_rng(0)
    vectors = rng.normal(size=(60, 12)).astype(np.float32), rng.normal(size=(40, 12)).astype(np.float32)
    free = np.argwhere((shop.train + shop.valid + shop.test).toarray() == 0)

    def added(first):
        rows, columns = free[first : first + 40].T
        return shop.train + sp.csr_matrix((np.ones(40, np.float32), (rows, columns)), shop.shape)

    first = added(0)

    def with_extras(users=vectors[0], augmented=first):
        texts = dict(user_profiles=['reads'] * 60, item_profiles=['is read'] * 40)
        brought = dict(user_vectors=users, item_vectors=vectors[1], augmented=augmented, **texts)
        return dataclasses.replace(shop, extras=brought)

    turned = vectors[0].copy()
    turned[3] *= -1
    runs = {
        'one': (with_extras(), (0,)),
        'same': (with_extras(), (0,)),
        'seed': (with_extras(), (1,)),
        'added': (with_extras(augmented=added(40)), (0,)),
        'vector': (with_extras(users=turned), (0,)),
    }
    found = {}
    for name, (data, seeds) in runs.items():
        experiment(data, tmp_path / name, augment='published', seeds=seeds, say=quiet, **QUICK)
        found[name] = trained(tmp_path / name)[-1]
    np.testing.assert_array_equal(found['one'], found['same'])
    for name in ('seed', 'added', 'vector'):
        assert not np.array_equal(found['one'], found[name]), f'another {name}, and the same result'
        data, seeds = runs[name]
        with pytest.raises(ValueError, match='other inputs'):
            experiment(data, tmp_path / 'one', augment='published', seeds=seeds, say=quiet, **QUICK)


# settings -----------------------------------------------------------------------------------------------------------


def test_settings_are_read_in_python_as_in_a_file(tmp_path):
    with pytest.raises(ValueError, match="epochs = 'many': give a whole number of at least 1"):
        experiment(toy_data(30, 40), tmp_path / 'R', epochs='many')
    with pytest.raises(ValueError, match='seeds'):
        experiment(toy_data(30, 40), tmp_path / 'R', seeds=())
    with pytest.raises(ValueError, match='kcore'):
        load_data(DataConfig(events='x.csv', kcore=-1))
    assert not (tmp_path / 'R').exists()
    told = checked(RunConfig(seeds=np.arange(3), dim=np.int64(8), lr=np.float32(0.5), price=np.array([1, 2.0])))
    assert told.seeds == (0, 1, 2) and type(told.dim) is int and told.lr == 0.5 and told.price == (1.0, 2.0)
    assert checked(RunConfig(seeds=range(2))).seeds == (0, 1)
    with pytest.raises(ValueError, match='ratios'):
        checked(DataConfig(ratios=np.array([0.5, 0.5])))


def test_what_a_writer_can_be_told():
    told = dict(temperature=0.5, max_tokens=99, timeout=7, llm_options={'reasoning_effort': 'low', 'seed': None})
    llm = make_writer(RunConfig(llm='m', base_url='http://127.0.0.1:9/v1', api_key_env=None, **told))
    assert llm.params['temperature'] == 0.5 and llm.params['max_tokens'] == 99
    assert llm.params['reasoning_effort'] == 'low' and 'seed' not in llm.params
    bare = make_writer(RunConfig(llm='m', base_url='http://127.0.0.1:9/v1', temperature=None, max_tokens=None))
    assert 'temperature' not in bare.params and 'max_tokens' not in bare.params
    usual = make_writer(RunConfig(llm='m', base_url='http://127.0.0.1:9/v1'))
    assert usual.params['max_tokens'] == 512 and usual.params['temperature'] == 0.0


def test_profiles_that_are_all_the_same_are_said(tmp_path):
    shop, lines = toy_data(30, 40), []
    same = dict(user_profiles=['Enjoys books.'] * 30, item_profiles=['Enjoys books.'] * 40)
    result = experiment(dataclasses.replace(shop, extras=same), tmp_path / 'R', say=lines.append, **QUICK)
    assert any('ALL PROFILES ARE THE SAME' in line for line in lines)
    assert (result.compare.difference == 0).all(), 'without a profile ProMax is its base'


# money --------------------------------------------------------------------------------------------------------------


class Server:
    """An OpenAI-compatible server that counts what it sold."""

    def __init__(self, price, stop_after=None):
        self.price, self.spent, self.asked, self.victim, self.stop_after = price, 0.0, 0, None, stop_after
        self.turn = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                question = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
                body = json.dumps(server.sell(question['messages'][-1]['content'])).encode()
                self.send_response(200)
                self.send_header('Content-Type', 'application/json')
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words):
                pass

        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.http.handle_error = lambda *request: None  # who was killed does not read the last answers
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f'http://127.0.0.1:{self.http.server_port}/v1'

    def sell(self, prompt) -> dict:
        """An answer, paid for; the process that asks is killed in the middle of the question `stop_after`."""
        read, written = len(prompt) // 4, 20
        with self.turn:
            self.asked += 1
            self.spent += (read * self.price[0] + written * self.price[1]) / 1e6
            if self.victim is not None and self.asked == self.stop_after:
                os.kill(self.victim.pid, signal.SIGKILL)
            number = self.asked
        text = '2, 1, 3' if 'Which ' in prompt[-400:] else f'Enjoys stories of the kind {number % 7} and {number % 5}.'
        choice = {'index': 0, 'finish_reason': 'stop', 'message': {'role': 'assistant', 'content': text}}
        usage = {'prompt_tokens': read, 'completion_tokens': written, 'total_tokens': read + written}
        return {'id': 'x', 'object': 'chat.completion', 'created': 0, 'model': 'm', 'choices': [choice], 'usage': usage}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A small bookshop as files."""
    folder, shop = tmp_path_factory.mktemp('files'), toy_data(24, 40)
    names = dict(user=shop.users.user.to_numpy()[shop.events.user], item=shop.items.item.to_numpy()[shop.events.item])
    shop.events.assign(**names).drop(columns='split').to_csv(folder / 'events.csv', index=False)
    shop.items[['item', 'title', 'text']].to_csv(folder / 'items.csv', index=False)
    return folder


def command(files, server, out, budget) -> list:
    """`promax run` with re-ranking."""
    return f"""run --events {files}/events.csv --items {files}/items.csv --kcore 0
        --llm m --base-url {server.url} --api-key-env none --price 1000,1000 --max-tokens 40 --budget {budget} --rerank
        --base MF --dim 4 --width 4 --epochs 2 --batch 256 --min-steps 0 --workers 3 --out {out}""".split()


def test_a_budget_holds_for_a_whole_run_killed_and_started_again(files, tmp_path, capsys):
    server, out = Server((1000, 1000), stop_after=12), tmp_path / 'R'
    words = [sys.executable, '-m', 'promax_nb.cli', *command(files, server, out, budget=6)]
    server.victim = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert server.victim.wait(300) == -signal.SIGKILL and server.asked >= 12
    server.victim = None

    def again(budget):
        code = main(command(files, server, out, budget))
        return code, capsys.readouterr().err

    before = server.spent
    code, said = again(budget=6)
    assert code == 2 and 'budget: 6 USD could be exceeded' in said and 'Traceback' not in said, said
    assert before < server.spent <= 6, f'{server.spent} of 6 USD'
    code, said = again(budget=6)
    assert code == 2 and server.spent <= 6, 'a third start asks nothing that could cost more'
    code, said = again(budget=500)  # more money: the rest is asked, re-ranking too
    assert code == 0 and server.spent <= 500, said
    provenance = pd.read_parquet(tmp_path / 'R' / 'augmentation.parquet')
    assert len(provenance) and not provenance.fallback.all(), 'nothing was re-ranked'
    told = json.loads((tmp_path / 'R' / 'card.json').read_text())['augmentation']
    assert told == provenance.attrs['summary'] and told['index'] == 'exact' and told['index_recall'] == 1
    asked = server.asked
    assert again(budget=500)[0] == 0 and server.asked == asked, 'nothing is asked twice'
