"""`ask`: answers are kept, aligned and paid for once; what goes wrong is a row with a reason."""

import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pandas as pd
import pytest
from stage import CANARY, Echo, flaky

from promax_nb.data.bookshop import toy_data
from promax_nb.profiles.ask import ask, store_frame
from promax_nb.profiles.llm import chat
from promax_nb.profiles.purse import Purse
from promax_nb.profiles.questions import open_answers
from promax_nb.profiles.replies import LLMError

COLUMNS = [
    'id',
    'prompt',
    'answer',
    'status',
    'error',
    'model',
    'key',
    'prompt_tokens',
    'completion_tokens',
    'finish',
    'cost',
    'cached',
]


# ---------------------------------------------------------------- alignment, duplicates, failures


def test_order_duplicates_and_failures_stay_aligned(tmp_path):
    rng = random.Random(0)
    prompts = [f'p{rng.randrange(60)}' for _ in range(300)]
    llm = Echo(wrong=lambda p: p.endswith('3'))
    out = ask(
        llm,
        pd.DataFrame({'id': range(1000, 1300), 'prompt': prompts}, index=range(300)[::-1]),
        tmp_path / 's.db',
        workers=7,
    )
    assert out.columns.tolist() == COLUMNS
    assert out['id'].tolist() == list(range(1000, 1300)) and out['prompt'].tolist() == prompts
    for p, a, s, e in zip(out['prompt'], out['answer'], out['status'], out['error'], strict=True):
        if p.endswith('3'):
            assert (a, s) == (None, 'failed') and e == f'no answer to {p}'
        else:
            assert (a, s, e) == (f'{p}!', 'ok', None)
    assert sorted(llm.asked) == sorted(set(prompts))  # each once
    ok = out['status'] == 'ok'
    assert (out['cached'] == (ok & out['prompt'].duplicated())).all()


def test_rerun_asks_only_what_is_missing_or_failed(tmp_path):
    store = tmp_path / 's.db'
    first = Echo(wrong=lambda p: p == 'b')
    ask(first, ['a', 'b', 'c'], store)
    second = Echo()
    out = ask(second, ['a', 'b', 'c', 'd'], store)
    assert sorted(second.asked) == ['b', 'd'] and out['cached'].tolist() == [True, False, True, False]
    assert out['answer'].tolist() == ['a!', 'b!', 'c!', 'd!'] and (out['status'] == 'ok').all()
    tried = store_frame(store, failures=True)
    assert tried['reason'].tolist() == ['no answer to b'] and tried['created'].notna().all()
    assert store_frame(store)['prompt'].tolist() == ['a', 'c', 'b', 'd'] or set(store_frame(store)['prompt']) == set(
        'abcd'
    )


def test_without_a_store_nothing_is_kept_but_repeats_are_asked_once():
    llm = Echo()
    out = ask(llm, ['x', 'y', 'x'])
    assert (
        sorted(llm.asked) == ['x', 'y']
        and out['answer'].tolist() == ['x!', 'y!', 'x!']
        and out['id'].tolist() == [0, 1, 2]
    )


def test_key_depends_on_model_prompt_params_and_sample(tmp_path):
    def frame(samples):
        return pd.DataFrame({'id': 0, 'prompt': 'p', 'sample': samples})

    llm = Echo()
    store = tmp_path / 's.db'
    out = ask(llm, frame([0, 1, 2]), store)
    assert (
        out['answer'].tolist() == ['p!', 'p!#1', 'p!#2']
        and out['sample'].tolist() == [0, 1, 2]
        and out['key'].nunique() == 3
    )
    assert ask(llm, frame([0, 1, 2, 3]), store)['cached'].tolist() == [True] * 3 + [False]
    hot = Echo()
    hot.params = {'max_tokens': 10, 'temperature': 1.0}
    assert not ask(hot, frame([0]), store)['cached'][0]
    named = Echo()
    named.name = 'other'
    assert not ask(named, frame([0]), store)['cached'][0]
    with pytest.raises(ValueError, match='whole numbers'):
        ask(llm, frame([0.0, 1.5]))


def test_plain_functions_and_names():
    def shout(prompt):
        return prompt.upper()

    out = ask(shout, ['a'])
    assert out['answer'][0] == 'A' and out['model'][0] == 'shout' and out['prompt_tokens'].isna().all()
    with pytest.raises(ValueError, match=r'no name.*f\.name'):
        ask(lambda p: p, ['a'])
    f = lambda p: p  # noqa: E731
    f.name = 'mine'
    assert ask(f, ['a'])['model'][0] == 'mine'
    with pytest.raises(ValueError, match='callable|function'):
        ask('gpt', ['a'])


@pytest.mark.parametrize(
    'value, reason', [(None, 'NoneType, not text'), ('', 'empty'), ('  ', 'empty'), (3, 'int, not text')]
)
def test_useless_answers_are_failures_with_a_reason(value, reason):
    def odd(prompt):
        return value

    out = ask(odd, ['a', 'b'])
    assert (out['status'] == 'failed').all() and reason in out['error'][0] and out['answer'][0] is None


def test_any_exception_is_a_row(tmp_path):
    def broken(prompt):
        raise KeyError('Bearer ' + 'abcdef123456')

    out = ask(broken, ['a'], tmp_path / 's.db')
    assert out['status'][0] == 'failed' and out['error'][0].startswith('KeyError') and 'abcdef' not in out['error'][0]


@pytest.mark.parametrize(
    'prompts, text',
    [
        ('one', 'single text'),
        (['a', None], 'row 1'),
        (['a', ' '], 'row 1'),
        (['a', 3], 'row 1'),
        (pd.DataFrame({'text': ['a']}), 'no column'),
    ],
)
def test_bad_prompts(prompts, text):
    with pytest.raises(ValueError, match=text):
        ask(Echo(), prompts)


def test_empty_list_of_prompts(tmp_path):
    out = ask(Echo(), [], tmp_path / 's.db')
    assert len(out) == 0 and out.columns.tolist() == COLUMNS


def test_many_workers_really_overlap():
    together, most, lock = 0, 0, threading.Lock()

    def slow(prompt):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.02)
        with lock:
            together -= 1
        return prompt

    ask(slow, [str(i) for i in range(24)], workers=6)
    assert 2 <= most <= 6
    with pytest.raises(ValueError, match='workers'):
        ask(slow, ['a'], workers=0)


# ---------------------------------------------------------------- checks


def test_check_cleans_and_failures_are_retried_later(tmp_path):
    store, says = tmp_path / 's.db', {'a': '4', 'b': 'four'}

    def model(prompt):
        return says[prompt]

    out = ask(model, ['a', 'b'], store, check=int)
    assert out['answer'][0] == 4 and out['status'].tolist() == ['ok', 'failed'] and out['error'][1].startswith('check')
    says['b'] = '5'
    again = ask(model, ['a', 'b'], store, check=int)
    assert again['answer'].tolist() == [4, 5] and again['cached'].tolist() == [True, False]
    assert ask(model, ['a', 'b'], store, choices=['4', '5'])[
        'cached'
    ].all()  # the raw answers are kept, whatever the check


def test_an_answer_that_fails_one_check_is_still_there_for_a_looser_one(tmp_path):
    llm = Echo()
    store = tmp_path / 's.db'
    assert ask(llm, ['a'], store, choices=['x', 'y'])['status'][0] == 'failed'
    assert ask(llm, ['a'], store)['cached'][0] and llm.asked == ['a']


def test_a_broken_check_loses_nothing(tmp_path):
    def check(answer):
        return {}['missing']

    out = ask(Echo(), ['a', 'b'], tmp_path / 's.db', check=check)
    assert out['error'].str.contains('KeyError').all() and len(store_frame(tmp_path / 's.db')) == 2
    with pytest.raises(ValueError, match='both'):
        ask(Echo(), ['a'], check=check, choices=['a', 'b'])


# ---------------------------------------------------------------- money


def test_dry_run_asks_nothing_and_counts(tmp_path):
    llm = Echo()
    store = tmp_path / 's.db'
    plan = ask(llm, ['a' * 40, 'b' * 80, 'a' * 40], store, dry_run=True, price=(1.0, 2.0))
    assert (
        plan['rows'] == 3
        and plan['to_ask'] == 2
        and plan['prompt_tokens'] == 30
        and plan['completion_tokens_at_most'] == 20
    )
    assert plan['cost_at_most'] == pytest.approx((30 * 1 + 20 * 2) / 1e6) and 'four characters' in plan['counted']
    assert not llm.asked and not store.exists()
    ask(llm, ['a' * 40], store)
    again = ask(llm, ['a' * 40, 'b' * 80], store, dry_run=True, count=lambda p: 7)
    assert (
        again['in_store'] == 1
        and again['prompt_tokens'] == 7
        and again['counted'] == 'by count'
        and again['cost_at_most'] is None
    )


def test_dry_run_needs_no_key(monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)
    assert ask(chat('m', base_url='https://example.invalid/v1'), ['a'], dry_run=True)['to_ask'] == 1


@pytest.mark.parametrize('workers', [1, 8])
def test_budget_is_never_exceeded_and_the_rest_are_rows(workers, tmp_path):
    llm = Echo()
    prompts = [f'{i:04d}' for i in range(200)]
    price = (1000.0, 1000.0)  # an answer costs 4 + 3 tokens = 0.007
    out = ask(llm, prompts, tmp_path / 's.db', workers=workers, price=price, budget=0.3)
    ok = out['status'] == 'ok'
    assert (
        out['cost'].sum() <= 0.3 and len(llm.asked) == ok.sum() and 0.3 - out['cost'].sum() < 0.06
    )  # worst case of one request is 0.046
    assert out.loc[~ok, 'error'].str.startswith('budget').all() and ok.any() and (~ok).any()
    rest = ask(llm, prompts, tmp_path / 's.db', workers=workers, price=price, budget=10.0)
    assert (rest['status'] == 'ok').all() and len(llm.asked) == 200


def test_budget_counts_failures_that_may_be_billed():
    llm = Echo(wrong=lambda p: True)
    out = ask(llm, [f'{i:04d}' for i in range(50)], price=(1000.0, 1000.0), budget=0.1, workers=4)
    assert len(llm.asked) == 2 and out['error'].str.startswith('budget').sum() == 48


def test_budget_of_zero_asks_nothing():
    llm = Echo()
    out = ask(llm, ['a'], price=(1.0, 1.0), budget=0.0)
    assert not llm.asked and out['error'][0].startswith('budget')


@pytest.mark.parametrize(
    'kw, text',
    [
        ({'budget': 1.0}, 'price'),
        ({'price': 3.0}, 'two numbers'),
        ({'price': (1, -1)}, 'two numbers'),
        ({'price': (1, 1), 'budget': -1.0}, 'budget'),
    ],
)
def test_money_arguments(kw, text):
    with pytest.raises(ValueError, match=text):
        ask(Echo(), ['a'], **kw)


def test_budget_needs_a_longest_answer():
    def model(prompt):
        return 'x'

    with pytest.raises(ValueError, match='max_tokens'):
        ask(model, ['a'], price=(1, 1), budget=1.0)
    model.params = {'max_tokens': 5}
    assert ask(model, ['a'], price=(1, 1), budget=1.0)['status'][0] == 'ok'


def test_max_failures_gives_up():
    llm = Echo(wrong=lambda p: True)
    out = ask(llm, [str(i) for i in range(50)], max_failures=3, workers=1)
    assert len(llm.asked) == 3 and len(out) == 50 and out['error'][49].startswith('not asked')


PRICE = (1000.0, 1000.0)  # the server of these tests charges 10 + 5 tokens for an answer: 0.015 USD


def test_a_second_start_with_the_same_budget_spends_the_rest_only(tmp_path):
    llm = Echo()
    prompts = [f'{i:04d}' for i in range(100)]
    spent = 0.0
    for _ in range(3):
        spent += ask(llm, prompts, tmp_path / 's.db', price=PRICE, budget=0.3)['cost'].sum()
    assert 0.25 < spent <= 0.3 and len(llm.asked) == len(set(llm.asked))
    more = ask(llm, prompts, tmp_path / 's.db', price=PRICE, budget=0.6)
    assert 0.25 < more['cost'].sum() <= 0.6 - spent + 1e-9
    why = more.loc[more['status'] != 'ok', 'error'].iloc[0]
    assert 'in earlier starts' in why and 'raise budget' in why


def test_one_purse_pays_for_items_users_and_ranking(tmp_path):
    llm, prompts = Echo(), [f'{i:04d}' for i in range(40)]
    with Purse(0.4, tmp_path / 's.db') as purse:
        for step in ('items', 'users', 'ranking'):
            ask(llm, [f'{step} {p}' for p in prompts], tmp_path / 's.db', price=PRICE, purse=purse)
        assert 0.3 < purse.spent <= 0.4 and purse.left == pytest.approx(0.4 - purse.spent)
        assert purse.bill().loc['echo', 'questions'] == len(llm.asked)
    with Purse(0.4, tmp_path / 's.db') as again, Purse(0.4, tmp_path / 's.db', 'another') as other:
        assert again.spent == pytest.approx(purse.before + 0.4 - again.left) and other.spent == 0
        with pytest.raises(ValueError, match='both given'):
            ask(llm, prompts, purse=again, price=PRICE, budget=1.0)
        with pytest.raises(ValueError, match='price'):
            ask(llm, prompts, purse=again)


def test_a_purse_is_never_overdrawn_by_threads():
    purse, most, lock = Purse(1.0), [], threading.Lock()

    def customer(k):
        number = purse.reserve(0.1, wait=True)
        with lock:
            most.append(purse.spent)
        if number is not None:
            purse.settle(number, 0.03)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(customer, range(100)))
    assert max(most) <= 1.0 and purse.left < 0.1 and not purse.under_way


def test_two_processes_never_take_the_last_cent_together(tmp_path):
    code = (
        'import sys; from promax_nb.profiles.purse import Purse\n'
        'purse = Purse(1.0, sys.argv[1]); print(sum(purse.reserve(0.125) is not None for _ in range(8)))'
    )
    command = [sys.executable, '-c', code, str(tmp_path / 's.db')]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sum(int(run.communicate()[0]) for run in runs) == 8


def test_what_was_reserved_and_never_settled_is_spent(tmp_path):
    with Purse(1.0, tmp_path / 's.db') as purse:
        assert purse.reserve(0.6) is not None
    with Purse(1.0, tmp_path / 's.db') as purse:
        assert purse.before == 0.6 and purse.reserve(0.5) is None and purse.reserve(0.4) is not None


def test_a_try_that_may_cost_again_is_paid_for_or_not_made(tmp_path):
    class Slow(Echo):
        def complete(self, prompt, sample=0, before_retry=None):
            for lost in range(4):
                answer = super().complete(prompt, sample)  # what the server charges for
                if lost == 3 or not before_retry():
                    break
            if lost < 3:
                raise LLMError('no answer in time', answer=None)
            return replace(answer, lost=lost)

    for budget in (0.04, 0.1, 0.2, 0.5, 1.0, 5.0):
        llm, store = Slow(), tmp_path / f'{budget}.db'
        out = ask(llm, [f'{i:04d}' for i in range(20)], store, price=PRICE, budget=budget, workers=5)
        with Purse(budget, store) as purse:
            assert len(llm.asked) * 0.007 <= purse.spent <= budget
            assert purse.spent == pytest.approx(out['cost'].sum())
            assert purse.store.frame('spending')['paid'].notna().all()
    assert (out['status'] == 'ok').all() and len(llm.asked) == 80


def test_spending_that_is_not_known_is_said(tmp_path):
    ask(Echo(), ['a', 'b'], tmp_path / 's.db')
    with pytest.warns(UserWarning, match='2 answers from runs that did not write down'):
        ask(Echo(), ['a', 'b', 'c'], tmp_path / 's.db', price=PRICE, budget=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        ask(Echo(), ['a', 'b', 'c'], tmp_path / 's.db', price=PRICE, budget=1.0)


SPENDER = '''
import sys
from promax_nb.profiles.ask import ask
from promax_nb.profiles.llm import chat
from promax_nb.profiles.purse import Purse
llm = chat('m', base_url=sys.argv[1], max_tokens=20)
with Purse(1.5, sys.argv[2]) as purse:
    for step in ('items', 'users', 'ranking'):
        rows = ask(llm, [f'{step} {i}' for i in range(30)], sys.argv[2], workers=6, price=(1000.0, 1000.0), purse=purse)
print('finished', flush=True)
'''


def test_killed_and_started_again_a_run_never_spends_more_than_its_budget(serve, tmp_path):
    server = serve(delay=0.02)
    command = [sys.executable, '-c', SPENDER, server.url, str(tmp_path / 's.db')]
    for enough in (5, 25, 45, 10**9):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while len(server.requests) < enough and child.poll() is None:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        told = child.communicate()[0]
        assert len(server.requests) * 0.015 <= 1.5
    assert 'finished' in told and len(server.requests) * 0.015 > 0.4
    spent = Purse(1.5, tmp_path / 's.db').spent
    assert len(server.requests) * 0.015 <= spent <= 1.5


@pytest.mark.skipif(not os.environ.get('PROMAX_FULL'), reason='long: set PROMAX_FULL=1')
def test_a_whole_run_with_ranking_keeps_to_its_budget_however_often_it_is_killed_full(serve, tmp_path):
    server = serve(delay=0.02)
    data = toy_data(40, 40, seed=0)
    data.events[['user', 'item', 'rating', 'time']].to_csv(tmp_path / 'events.csv', index=False)
    data.items.assign(item=range(40)).to_csv(tmp_path / 'items.csv', index=False)
    options = f"""run --events {tmp_path}/events.csv --items {tmp_path}/items.csv --out {tmp_path}/run --llm m
        --base-url {server.url} --price 1000,1000 --budget 60 --rerank --missing template --epochs 2 --min-steps 1
        --width 8 --dim 8 --kcore 0 --device cpu"""
    for enough in (20, 60, 85, 10**9):
        command = [sys.executable, '-m', 'promax_nb.cli', *options.split()]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while len(server.requests) < enough and child.poll() is None:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert len(server.requests) * 0.015 <= 60
    with Purse(60, tmp_path / 'run' / 'profiles.db') as purse:
        assert child.returncode == 0 and len(server.requests) * 0.015 <= purse.spent <= 60


# ---------------------------------------------------------------- giving up


@pytest.mark.parametrize('kw, most', [({}, 20), ({'max_failures': 5}, 5), ({'patience': 7}, 7)])
@pytest.mark.parametrize('workers', [1, 6])
def test_useless_answers_end_a_hopeless_run(kw, most, workers):
    for useless, check in (('', None), ('maybe', float), (7, None)):
        asked = []

        def model(prompt, useless=useless, asked=asked):
            asked.append(prompt)
            return useless

        out = ask(model, [str(i) for i in range(60)], workers=workers, check=check, **kw)
        assert most <= len(asked) <= most + workers - 1 and (out['status'] == 'failed').all()
        assert 'not asked' in out['error'][59] and 'the last one' in out['error'][59]


def test_patience_counts_failures_in_a_row():
    out = ask(Echo(wrong=lambda p: int(p) % 10), [str(i) for i in range(60)], workers=1)
    assert (out['status'] == 'ok').sum() == 6 and not out['error'].fillna('').str.startswith('not asked').any()
    endless = Echo(wrong=lambda p: True)
    ask(endless, [str(i) for i in range(60)], workers=1, patience=None)
    assert len(endless.asked) == 60


def test_a_deterministic_writer_is_asked_once_for_what_it_cannot_answer(tmp_path):
    class Sober(Echo):
        deterministic = True

        def complete(self, prompt, sample=0):
            answer = super().complete(prompt, sample)
            if prompt == 'empty':
                raise LLMError('the answer is empty', answer=replace(answer, text='', finish='length'))
            if prompt == 'dead':
                raise LLMError('no connection')
            return answer

    llm, prompts = Sober(), ['4', 'four', 'empty', 'dead']
    reading = {'check': lambda text: int(text[:-1])}
    first = ask(llm, prompts, tmp_path / 's.db', price=PRICE, **reading)
    assert first['status'].tolist() == ['ok', 'failed', 'failed', 'failed'] and first['cost'].min() > 0
    again = ask(llm, prompts, tmp_path / 's.db', price=PRICE, **reading)
    assert llm.asked[4:] == ['dead'] and again['cost'].tolist()[:3] == [0, 0, 0]
    assert again['cached'].tolist() == [True, True, True, False]
    for row, reason in ((1, 'check: invalid literal'), (2, 'the answer is empty')):
        assert again['error'][row].startswith(reason) and 'retry=True' in again['error'][row]
    plan = ask(llm, prompts, tmp_path / 's.db', dry_run=True, **reading)
    assert (plan['known_failures'], plan['to_ask'], plan['in_store']) == (2, 1, 1)
    assert ask(llm, prompts[:2], tmp_path / 's.db')['cached'].all()  # without the check, the same answers will do
    ask(llm, prompts, tmp_path / 's.db', retry=True, **reading)
    assert sorted(llm.asked[5:]) == ['dead', 'empty', 'four']
    moody = Echo()
    for _ in range(2):
        ask(moody, ['four'], tmp_path / 't.db', check=float)
    assert moody.asked == ['four', 'four']


# ---------------------------------------------------------------- what the server says beside the text


class Finishing(Echo):
    """A model whose answers end as the prompt says."""

    def complete(self, prompt, sample=0):
        return replace(super().complete(prompt, sample), finish=prompt.split()[-1])


def test_how_an_answer_ended_is_kept(tmp_path):
    llm, prompts = Finishing(), ['a stop', 'b length']
    for cached in (False, True):
        out = ask(llm, prompts, tmp_path / 's.db')
        assert out['finish'].tolist() == ['stop', 'length'] and (out['cached'] == cached).all()
    assert sorted(store_frame(tmp_path / 's.db')['finish']) == ['length', 'stop']
    whole = ask(llm, prompts, tmp_path / 's.db', whole=True)
    assert whole['status'].tolist() == ['ok', 'failed'] and 'raise max_tokens' in whole['error'][1]
    assert len(llm.asked) == 3
    failed = store_frame(tmp_path / 's.db', failures=True)
    assert failed['useless'].tolist() == [1] and failed['finish'].tolist() == ['length']


def test_prompts_that_were_read_in_part_are_said():
    class Short(Echo):
        def complete(self, prompt, sample=0):
            return replace(super().complete(prompt, sample), prompt_tokens=min(200, len(prompt) // 4))

    with pytest.warns(UserWarning, match=r'1 of 3 prompts \(33%\) are longer than what was read.*200 tokens.*2,500'):
        ask(Short(), ['a', 'b' * 1500, 'c ' * 5000])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        ask(Short(), ['a', 'b' * 700])
        ask(shout, ['a' * 5000])


def shout(prompt):
    return prompt.upper()


# ---------------------------------------------------------------- stores of an earlier version


OLD = '''
create table answers (key text primary key, model text not null, prompt text not null, params text not null,
    sample integer, answer text not null, prompt_tokens integer, completion_tokens integer, created real not null);
create table attempts (key text not null, model text not null, reason text not null, answer text,
    created real not null);
create index attempts_key on attempts (key);
pragma application_id = 1350061666;
'''


def old_store(path, *rows):
    """A store as version 0.1.0 wrote it; rows (prompt, params, answer) of the model echo."""
    with closing(sqlite3.connect(path)) as con:
        con.executescript(OLD)
        for prompt, params, answer in rows:
            text = json.dumps(['echo', prompt, params, None], sort_keys=True)
            key = hashlib.sha256(text.encode()).hexdigest()[:32]
            row = (key, 'echo', prompt, json.dumps(params), None, answer, 3, 4, 1.0)
            con.execute('insert into answers values (?,?,?,?,?,?,?,?,?)', row)
        con.execute("insert into attempts values ('k', 'echo', 'no line', null, 1.0)")
        con.commit()


def test_a_store_of_version_0_1_0_opens_and_is_used(tmp_path):
    old_store(tmp_path / 's.db', ('a', {'max_tokens': 10}, 'kept'))
    llm = Echo()
    out = ask(llm, ['a', 'b'], tmp_path / 's.db')
    assert out['answer'].tolist() == ['kept', 'b!'] and llm.asked == ['b']
    assert out['finish'].tolist() == ['stop', 'stop']
    assert store_frame(tmp_path / 's.db')['prompt'].tolist() == ['a', 'b']
    assert store_frame(tmp_path / 's.db', failures=True)['reason'].tolist() == ['no line']


def test_two_servers_with_one_model_name_do_not_share_answers(tmp_path):
    old_store(tmp_path / 's.db', ('a', {'max_tokens': 10}, 'from somewhere'))
    here, there = Echo(), Echo()
    here.server, there.server = 'http://127.0.0.1:1/v1', 'http://127.0.0.1:2/v1'
    plan = ask(here, ['a', 'b'], tmp_path / 's.db', dry_run=True)
    assert plan['to_ask'] == 2 and plan['of_earlier_version'] == 1
    said = r'1 of 2 questions from an earlier version.*costs at most 0\.\d+ USD.*earlier=True'
    with pytest.warns(UserWarning, match=said):
        out = ask(here, ['a', 'b'], tmp_path / 's.db', price=PRICE)
    assert out['answer'].tolist() == ['a!', 'b!'] and sorted(here.asked) == ['a', 'b']
    taken = ask(there, ['a', 'b'], tmp_path / 's.db', earlier=True)
    assert taken['answer'].tolist() == ['from somewhere', 'b!'] and there.asked == ['b']
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert ask(there, ['a', 'b'], tmp_path / 's.db')['cached'].all()
        assert ask(Echo(), ['a'], tmp_path / 's.db')['answer'][0] == 'from somewhere'  # no server


# ---------------------------------------------------------------- store


@pytest.mark.parametrize('content', [b'my diary', b'SQLite format 3\0' + b'x' * 200])
def test_a_file_that_is_no_store_is_left_alone(tmp_path, content):
    path = tmp_path / 'notes.db'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='notes.db'):
        ask(Echo(), ['a'], path)
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / 'shop.db'
    with sqlite3.connect(path) as con:
        con.execute('create table orders (n)')
    with pytest.raises(ValueError, match='something else'):
        ask(Echo(), ['a'], path)
    with pytest.raises(ValueError, match='something else'):
        store_frame(path)
    with sqlite3.connect(path) as con:
        assert [r[0] for r in con.execute('select name from sqlite_master')] == ['orders']


def test_store_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match='no store'):
        store_frame(tmp_path / 'none.db')
    with pytest.raises(ValueError, match='folder'):
        ask(Echo(), ['a'], tmp_path)
    ask(Echo(), ['a'], tmp_path / 'new' / 's.db')
    assert len(store_frame(tmp_path / 'new' / 's.db')) == 1
    (tmp_path / 'zero.db').touch()
    ask(Echo(), ['a'], tmp_path / 'zero.db')
    assert len(store_frame(tmp_path / 'zero.db')) == 1


def test_durable_settings(tmp_path):
    with open_answers(tmp_path / 's.db') as store:
        assert store.con.execute('pragma journal_mode').fetchone() == ('wal',)
        assert store.con.execute('pragma synchronous').fetchone() == (2,)


def test_an_answer_is_in_the_store_before_the_next_is_asked(tmp_path):
    """One worker: when prompt n is asked, prompt n-2 at the latest has been committed (n-1 may be on its way)."""
    store, lag = tmp_path / 's.db', []

    def model(prompt):
        if int(prompt):
            time.sleep(0.15)  # time for a commit, also on a busy machine
            lag.append(int(prompt) - len(store_frame(store)))
        return prompt

    ask(model, [str(i) for i in range(12)], store, workers=1)
    assert max(lag) <= 1 and min(lag) == 0


def test_several_threads_and_processes_share_a_store(tmp_path):
    store = tmp_path / 's.db'
    prompts = [f'p{i}' for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda k: ask(Echo(), prompts[k:] + prompts[:k], store, workers=3), range(0, 40, 10)))
    assert all((t['status'] == 'ok').all() for t in tables) and sorted(store_frame(store)['prompt']) == sorted(prompts)
    code = (
        'import sys; from promax_nb.profiles.ask import *\ndef f(p): return p\n'
        't = ask(f, [str(i) for i in range(150)], sys.argv[1])\nprint((t.status == "ok").sum())'
    )
    runs = [
        subprocess.Popen([sys.executable, '-c', code, str(tmp_path / 'both.db')], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [r.communicate()[0].strip() for r in runs] == ['150', '150']
    assert len(store_frame(tmp_path / 'both.db')) == 150


def test_a_new_store_may_be_opened_by_many_at_once(tmp_path):
    for r in range(15):
        with ThreadPoolExecutor(6) as pool:
            tables = list(pool.map(lambda k, r=r: ask(Echo(), ['a', 'b'], tmp_path / f'{r}.db'), range(6)))
        assert all((t['status'] == 'ok').all() for t in tables)


def test_odd_characters_survive(tmp_path):
    prompts = [
        'naïve – ☕ 日本語',
        'half \ud83d pair',
        'quote " \' ; drop table answers; --',
        'nul \x00 byte',
        'line\nbreak\ttab',
    ]
    out = ask(Echo(), prompts, tmp_path / 's.db')
    again = ask(Echo(wrong=lambda p: True), prompts, tmp_path / 's.db')
    assert (
        (out['status'] == 'ok').all() and again['answer'].tolist() == out['answer'].tolist() and again['cached'].all()
    )


# ---------------------------------------------------------------- being interrupted

CHILD = '''
import sys
from promax_nb.profiles.ask import ask
from promax_nb.profiles.llm import chat
llm = chat('m', base_url=sys.argv[1], max_retries=4)
out = ask(llm, [f'question {i}' for i in range(120)], sys.argv[2], workers=6)
out = ask(llm, [f'question {i}' for i in range(120)], sys.argv[2], workers=6)
print('finished', flush=True)
'''


def test_kill_9_asks_nothing_twice_and_ends_the_same(serve, tmp_path):
    server = serve(flaky, delay=0.01)
    store = tmp_path / 's.db'
    child = subprocess.Popen(
        [sys.executable, '-c', CHILD, server.url, str(store)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(server.served) < 40 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    told, err = child.communicate()
    assert 'finished' not in told and child.returncode == -signal.SIGKILL, err
    stored = set(store_frame(store)['prompt'])
    before = len(server.requests)
    assert 10 < len(stored) < 120
    prompts = [f'question {i}' for i in range(120)]
    llm = chat('m', base_url=server.url, max_retries=4)
    ask(llm, prompts, store, workers=6)
    table = ask(llm, prompts, store, workers=6)
    assert not stored & set(server.requests[before:])
    calm = ask(chat('m', base_url=serve().url), prompts, tmp_path / 'calm.db')
    same = ['id', 'prompt', 'answer', 'status', 'error', 'model', 'prompt_tokens', 'completion_tokens']
    pd.testing.assert_frame_equal(table[same], calm[same])
    assert not set(table['key']) & set(calm['key'])  # another server
    after = len(server.requests)
    ask(llm, prompts, store)
    assert len(server.requests) == after


def test_flaky_server_covers_all_troubles(serve, tmp_path):
    """The schedule of the test above really contains every kind of trouble, and all of it ends in rows."""
    kinds = {flaky(f'question {i}', 0) for i in range(120)}
    assert kinds == {'ok', '429', '500', 'cut', 'nothing'}
    out = ask(
        chat('m', base_url=serve(flaky).url, max_retries=0), [f'question {i}' for i in range(120)], tmp_path / 's.db'
    )
    for i in range(120):
        want = 'ok' if flaky(f'question {i}', 0) == 'ok' else 'failed'
        assert out['status'][i] == want and (want == 'ok') == (out['answer'][i] == f'answer to question {i}')


def test_ctrl_c_keeps_what_arrived(tmp_path):
    asked = []

    def model(prompt):
        asked.append(prompt)
        if prompt == '30':
            raise KeyboardInterrupt
        return prompt

    with pytest.raises(KeyboardInterrupt) as e:
        ask(model, [str(i) for i in range(200)], tmp_path / 's.db', workers=1)
    stored = set(store_frame(tmp_path / 's.db')['prompt'])
    assert stored == {str(i) for i in range(30)} and len(asked) == 31
    partial = e.value.answers
    assert len(partial) == 200 and partial['answer'][29] == '29' and partial['error'][199].startswith('interrupted')


def test_a_real_interrupt_signal(serve, tmp_path):
    server = serve(delay=0.05)
    store = tmp_path / 's.db'
    # a job started in the background inherits an ignored SIGINT: the child has to hear it
    child = subprocess.Popen(
        [sys.executable, '-c', CHILD, server.url, str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while len(server.served) < 20 and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    told, err = child.communicate(timeout=30)
    assert 'finished' not in told and 'KeyboardInterrupt' in err and CANARY not in err
    assert set(store_frame(store)['prompt']) == set(server.served)  # also what was on its way
