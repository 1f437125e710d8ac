"""The HTTP service: it says what the library says, to many at once, and refuses everything else in one sentence."""

import contextlib
import http.client
import json
import logging
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from promax_nb.recommend import service as room
from promax_nb.recommend.runs import open_recommender

SENTENCE = 'I love slow crime stories by the sea, no romance'


@pytest.fixture(scope='module')
def served(odd_run):
    return open_recommender(odd_run[0])


@pytest.fixture(scope='module')
def client(served):
    return TestClient(room.service(served))


def as_sent(value):
    return json.loads(json.dumps(value))


# what is asked ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('user', ['001', 'Zoë / 0'])
def test_a_list_is_that_of_the_library(client, served, user):
    said = client.get('/recommend', params={'user': user, 'n': 4})
    assert said.status_code == 200 and said.content.isascii()
    assert said.json() == {'rows': served.recommend(user, n=4).to_dict('records'), 'guest': False, 'popular': False}
    base = client.get('/recommend', params={'user': user, 'side': 'base'}).json()['rows']
    assert base == served.recommend(user, side='base').to_dict('records')


def test_a_stranger_gets_what_is_popular_by_choice(client, served):
    said = client.get('/recommend', params={'user': 'nobody', 'unknown': 'popular'}).json()
    assert said['popular'] and said['rows'] == served.recommend('nobody', unknown='popular').to_dict('records')


def test_guests(client, served):
    liked = served.items.item[:2].tolist()
    both = {'profile': SENTENCE, 'items': liked, 'disliked': ['B0005']}
    for known in ({'profile': SENTENCE}, {'items': liked}, both):
        guest, said = served.guest(**known), client.post('/recommend', json=known | {'n': 5})
        assert said.json() == {'how': guest.how, 'rows': guest.recommend(5).to_dict('records')}
    limits = {'where': {'genre': ['crime', 'history']}, 'block': [served.items.item[6]]}
    said = client.post('/recommend', json={'items': liked, **limits}).json()['rows']
    assert said == served.guest(items=liked).recommend(**limits).to_dict('records') and said
    assert not client.post('/recommend', json={'items': liked, 'allow': []}).json()['rows']


def test_alike_and_why(client, served):
    item, user = served.items.item[4], served.users.user[3]
    said = client.get('/similar', params={'item': item, 'n': 3}).json()
    assert said == {'space': 'model', 'rows': served.similar_items(item, 3).to_dict('records')}
    said = client.get('/similar', params={'user': user, 'space': 'profiles'}).json()
    assert said == {'space': 'profiles', 'rows': served.similar_users(user, space='profiles').to_dict('records')}
    why = served.explain(user, item)
    said = client.get('/explain', params={'user': user, 'item': item}).json()
    assert said == as_sent({'sentences': why.sentences(), **why.as_dict()})


def test_health_description_and_page(client, served):
    said = client.get('/health').json()
    assert said['status'] == 'ok' and (said['users'], said['items']) == served.shape and said['reads_sentences']
    paths = client.get('/openapi.json').json()['paths']
    asked = {(method.upper(), path) for method, path, *_ in room.QUESTIONS} | {('GET', '/health')}
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == asked
    page = client.get('/')
    assert all(f'{method} {path}' in page.text for method, path in asked)
    assert 'text/html' in page.headers['content-type']
    assert not re.search(r'https?://(?!127\.0\.0\.1)|<script|src=', page.text), 'it works offline'
    assert "default-src 'none'" in page.headers['content-security-policy']
    assert client.get('/docs').status_code == client.get('/redoc').status_code == 404


# what is refused ----------------------------------------------------------------------------------------------------


def refused(answer, status):
    """One sentence as JSON, and nothing of the inside."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ['error'] and answer.content.isascii()
    sentence = answer.json()['error']
    assert sentence and len(sentence) < 700 and '\n' not in sentence and '\x1b' not in sentence
    assert not re.search(r'Traceback|\.py|pydantic|site-packages', sentence)
    return sentence


@pytest.mark.parametrize('path, status, told', [
    ('/recommend?user=01', 404, "did you mean"),
    ('/recommend?user=a%0Ab%1B[31m%E2%80%AE', 404, 'no user is called'),
    ('/recommend?user=' + 'x' * 256, 404, 'no user is called'),
    ('/recommend?user=' + 'x' * 257, 422, 'user: '),
    ('/recommend', 422, 'user: Field required'),
    ('/recommend?user=', 422, 'user: '),
    ('/recommend?user=001&n=0', 422, 'n: '),
    ('/recommend?user=001&n=1001', 422, 'less than or equal to 1000'),
    ('/recommend?user=001&n=' + '9' * 5000, 422, 'n: '),
    ('/recommend?user=001&n=ten', 422, 'n: '),
    ('/recommend?user=001&side=dark', 422, 'side: '),
    ('/recommend?user=001&admin%1B=1', 422, 'admin\\x1b: '),
    ('/similar', 400, 'one of the two'),
    ('/similar?item=B0001&user=001', 400, 'one of the two'),
    ('/similar?item=B00011', 404, "'B0001'"),
    ('/explain?user=001&item=nothing', 404, 'no item is called'),
    ('/explain?user=001', 422, 'item: '),
    ('/nowhere/..%2f..%2fetc/passwd', 404, 'not found'),
    ('/health/', 404, 'not found'),
])  # fmt: skip
def test_wrong_questions(client, path, status, told):
    sentence = refused(client.get(path), status)
    assert told in sentence and 'unknown=' not in sentence


@pytest.mark.parametrize('body, status, told', [
    ({}, 400, 'nothing is known about this guest'),
    ({'profile': ' \n'}, 400, 'the profile is empty'),
    ({'profile': 'x' * 10_001}, 422, 'profile: '),
    ({'profile': 7}, 422, 'profile: '),
    ({'items': ['B0001'] * 1001}, 422, 'items: '),
    ({'items': 'B0001'}, 422, 'items: '),
    ({'items': ['x' * 300]}, 422, 'items.0: '),
    ({'items': ['B00011']}, 404, "'B0001'"),
    ({'items': ['\ud800']}, None, ''),
    ({'profile': '\ud800 crime'}, None, ''),
    ({'items': ['B0001'], 'where': {'gender': ['x']}}, 400, 'they have genre'),
    ({'items': ['B0001'], 'how': 'items'}, 422, 'how: Extra inputs'),
    ({'items': ['B0001'], 'x\x1b' * 40: 1}, 422, 'Extra inputs'),
    ([], 422, 'the request'),
    ('crime', 422, 'the request'),
])  # fmt: skip
def test_wrong_guests(client, body, status, told):
    answer = client.post('/recommend', content=json.dumps(body), headers={'content-type': 'application/json'})
    if status is None:
        assert answer.status_code in (200, 400, 404, 422)
        status = answer.status_code
    if status != 200:
        assert told in refused(answer, status)


NO_JSON = [b'', b'{', b'\xff\xfe', b'[' * 100_000, b'{"n": NaN}', b'{"n": ' + b'9' * 5000 + b'}']


@pytest.mark.parametrize('content', NO_JSON)
def test_bodies_that_are_no_json(client, content):
    answer = client.post('/recommend', content=content, headers={'content-type': 'application/json'})
    assert answer.status_code in (400, 422)
    refused(answer, answer.status_code)


def test_other_methods_and_forms(client):
    refused(client.delete('/recommend'), 405)
    refused(client.post('/recommend', data={'profile': 'x'}), 422)
    refused(client.post('/recommend', files={'profile': b'x'}), 422)


def test_a_body_that_is_too_large(client):
    refused(client.post('/recommend', content=b'x' * (room.LARGEST + 1)), 413)
    parts = (b'x' * 100_000 for _ in range(11))
    refused(client.post('/recommend', content=parts), 413)
    assert client.post('/recommend', content=b' ' * room.LARGEST).status_code == 422


def test_what_nobody_foresaw_stays_inside(served, monkeypatch, caplog):
    def broken(*args, **how):
        raise RuntimeError('secret of the house\n\x1b[31mforged')

    monkeypatch.setattr(type(served), 'recommend', broken)
    with caplog.at_level(logging.INFO, 'promax_nb.service'):
        sentence = refused(TestClient(room.service(served)).get('/recommend?user=001'), 500)
    assert 'secret' not in sentence
    (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert 'RuntimeError at line' in error and 'secret of the house\\n\\x1b[31mforged' in error


def test_the_log_holds_no_query_and_no_control_character(client, caplog):
    with caplog.at_level(logging.INFO, 'promax_nb.service'):
        client.get('/recommend?user=private-person')
        client.get('/a%0A2026 GET /forged%1B[31m')
        client.post('/recommend', json={'profile': 'private taste'})
    lines = [record.getMessage() for record in caplog.records]
    assert [line.rsplit(' ', 2)[0] for line in lines] == [
        'GET /recommend 404', r'GET /a\n2026 GET /forged\x1b[31m 404', 'POST /recommend 200',
    ]  # fmt: skip


def test_a_body_that_never_ends_arriving(served, monkeypatch):
    import asyncio

    monkeypatch.setattr(room, 'PATIENCE', 0.05)
    sent = []

    async def receive():
        await asyncio.sleep(5)

    async def send(message):
        sent.append(message)

    scope = {'type': 'http', 'method': 'POST', 'path': '/recommend', 'headers': [], 'query_string': b''}
    asyncio.run(room.service(served)(scope, receive, send))
    assert sent[0]['status'] == 408


def test_many_at_once_hear_what_one_hears(client, served):
    users, stop = served.users.user.tolist(), time.monotonic() + 2
    alone = {user: served.recommend(user).to_dict('records') for user in users}
    guest = served.guest(SENTENCE).recommend().to_dict('records')

    def ask(place):
        count = 0
        while time.monotonic() < stop:
            user = users[(place * 7 + count) % len(users)]
            assert client.get('/recommend', params={'user': user}).json()['rows'] == alone[user]
            if count % 5 == 0:
                assert client.post('/recommend', json={'profile': SENTENCE}).json()['rows'] == guest
            count += 1
        return count

    with ThreadPoolExecutor(8) as pool:
        assert min(pool.map(ask, range(8))) > 0


# a process ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(folder, *flags):
    """(process, port) of a real `promax serve`."""
    code = 'import sys; from promax_nb.cli import main; sys.exit(main())'
    command = [sys.executable, '-c', code, 'serve', str(folder), '--port', '0', *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        found = re.search(r'http://[^ ]+:(\d+) ', line)
        assert found, line + process.stderr.read()
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    connection.request(method, path, body, {'content-type': 'application/json'} if body else {})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_killed_and_started_again_it_says_the_same(served, tmp_path):
    folder = served.save(tmp_path / 'ship')
    user = urllib.parse.quote('Zoë / 0', safe='')
    questions = [
        ('GET', f'/recommend?user={user}'), ('GET', '/similar?item=B0001'), ('GET', f'/explain?user={user}&item=B0001'),
        ('POST', '/recommend', json.dumps({'profile': SENTENCE, 'items': ['B0001']})), ('GET', '/health'),
    ]  # fmt: skip
    with running(folder) as (process, port):
        first = [ask(port, *question) for question in questions]
        assert {status for status, _ in first} == {200} and first[4][1]['reads_sentences']
        assert ask(port, 'POST', '/recommend', b'x' * 3_000_000)[0] == 413, 'the refusal arrives'
        with socket.create_connection(('127.0.0.1', port), 5) as raw:
            raw.sendall(b'GET / HTTP/1.1\r\nx: ' + b'\x1b' * 100_000 + b'\r\n\r\n')
            assert raw.recv(100).startswith(b'HTTP/1.1 4')
        process.send_signal(signal.SIGKILL)
        process.wait()
    with running(shutil.copytree(folder, tmp_path / 'moved')) as (process, port):
        assert [ask(port, *question) for question in questions] == first
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    assert 'Traceback' not in log and log.count('GET /recommend 200') == 1 and 'user=' not in log


def test_what_cannot_be_served_is_told(odd_run, tmp_path, capsys, monkeypatch):
    from promax_nb.cli import main

    assert main(['serve', str(tmp_path / 'nowhere')]) == 2
    assert 'there is no folder' in capsys.readouterr().err
    monkeypatch.setattr(room, 'warm', lambda served: True)
    with socket.create_server(('127.0.0.1', 0)) as taken:
        assert main(['serve', str(odd_run[0]), '--port', str(taken.getsockname()[1])]) == 2
    assert 'give another --host or --port' in capsys.readouterr().err
    assert main(['serve', str(odd_run[0]), '--port', '70000']) == 2
    assert 'give another --host or --port' in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, 'fastapi', None)
    assert main(['serve', str(odd_run[0])]) == 2
    assert "pip install 'promax_nb[serve]'" in capsys.readouterr().err


def test_another_host_is_warned_about(odd_run, capsys, monkeypatch):
    from promax_nb.cli import main

    def stop(*args):
        raise ValueError('far enough')

    monkeypatch.setattr(room, 'warm', lambda served: True)
    monkeypatch.setattr(room, 'listening', stop)
    assert main(['serve', str(odd_run[0]), '--host', '0.0.0.0']) == 2
    assert 'no passwords and no encryption' in capsys.readouterr().err
    assert main(['serve', str(odd_run[0])]) == 2
    assert 'passwords' not in capsys.readouterr().err
