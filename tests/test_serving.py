"""A real HTTP round trip: small models behind `transformers serve` on this machine, asked through `chat`."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from promax_nb.data.bookshop import toy_data
from promax_nb.lettingo.explore import explore
from promax_nb.lettingo.histories import SENTIMENTS, split_history
from promax_nb.lettingo.judge import judge, predictions
from promax_nb.lettingo.styles import styled
from promax_nb.profiles.ask import store_frame
from promax_nb.profiles.llm import chat

pytest.importorskip('fastapi', reason='the server needs the extra serve: pip install promax_nb[serve]')
ECHO = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def small_model(folder, words, allowed=None):
    """A GPT-2 with random weights and a tokenizer of whole words; `allowed`: the only words it can answer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed

    tok = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(['<pad>', '<eos>', '<unk>', *words])}, unk_token='<unk>')
    )
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok = PreTrainedTokenizerFast(tokenizer_object=tok, pad_token='<pad>', eos_token='<eos>', unk_token='<unk>')
    tok.chat_template = ECHO
    set_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tok),
            n_embd=32,
            n_layer=1,
            n_head=2,
            n_positions=2048,
            bos_token_id=1,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
    if allowed:
        model.generation_config.suppress_tokens = [i for w, i in tok.get_vocab().items() if w not in allowed]
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    """Serve a folder; yields a function folder -> base_url."""
    running = []

    def start(folder):
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            port = s.getsockname()[1]
        log = open(tmp_path_factory.mktemp('serve') / 'log', 'w+')
        argv = [
            sys.executable,
            '-m',
            'transformers.cli.transformers',
            'serve',
            folder,
            '--host',
            '127.0.0.1',
            '--port',
            str(port),
            '--device',
            'cpu',
        ]
        p = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {'HF_HUB_OFFLINE': '1'})
        running.append((p, log))
        for _ in range(240):
            try:
                with urllib.request.urlopen(f'http://127.0.0.1:{port}/health', timeout=2):
                    return f'http://127.0.0.1:{port}/v1'
            except OSError:
                if p.poll() is not None:
                    break
                time.sleep(0.5)
        log.seek(0)
        raise AssertionError(f'the server did not start:\n{log.read()[-3000:]}')

    yield start
    for p, log in running:
        p.terminate()
        p.wait(20)
        log.close()


@pytest.fixture(scope='module')
def world():
    data = toy_data(20, 250, density='dense', split='temporal')
    return data, split_history(data, targets=2, users=[0, 1, 2])


def test_judge_behind_a_server(world, served, tmp_path):
    data, history = world
    folder = small_model(tmp_path / 'judge', [*SENTIMENTS, 'enjoys', 'books'], SENTIMENTS)
    llm = chat(folder, base_url=served(folder), api_key_env=None, max_tokens=1)
    profiles = explore(styled('true'), data, history, n=1)
    made = predictions(profiles, data, history, llm, store=tmp_path / 'calls.db')
    assert len(made) == 6 and (made['status'] == 'ok').all() and set(made['predicted']) <= set(SENTIMENTS)
    assert len(store_frame(tmp_path / 'calls.db')) == 6
    scores = judge(profiles, data, history, llm, store=tmp_path / 'calls.db')
    assert (
        scores.attrs['computed'] == 0 and len(scores) == 3 and len(store_frame(tmp_path / 'calls.db')) == 6
    )  # nothing is asked twice


def test_judge_that_answers_outside_the_labels(world, served, tmp_path):
    data, history = world
    folder = small_model(tmp_path / 'poet', [*SENTIMENTS, 'enjoys', 'books'], ['books'])
    llm = chat(folder, base_url=served(folder), api_key_env=None, max_tokens=1)
    made = predictions(explore(styled('true'), data, history, n=1), data, history, llm)
    assert (made['status'] == 'failed').all() and made['reason'].str.contains('not one of like, neutral, dislike').all()
