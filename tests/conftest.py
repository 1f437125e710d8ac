"""Fixtures shared by all tests: one thread, no network, real data where it is."""

import os
import socket
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
os.environ.setdefault('HF_HUB_OFFLINE', '1')

import pytest
from stage import CANARY, Server

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch):
    """Whoever opens a connection beyond this machine fails the test."""
    connect = socket.socket.connect

    def guarded(self, address, *args):
        host = address[0] if isinstance(address, tuple) else 'localhost'
        if host not in ('127.0.0.1', '::1', 'localhost'):
            raise AssertionError(f'a test tried to reach {host}: tests use no network.')
        return connect(self, address, *args)

    monkeypatch.setattr(socket.socket, 'connect', guarded)


def _shared():
    """The folder with real data, or None."""
    places = [os.environ.get('PROMAX_DATA'), ROOT.parent / 'shared' / 'data']
    return next((Path(p) for p in places if p and Path(p).is_dir()), None)


@pytest.fixture(scope='session')
def needed():
    """What a test needs. Absent: a loud skip for a person, a failure where the environment variable is set."""

    def check(found, variable, why):
        if found is None:
            (pytest.fail if os.environ.get(variable) else pytest.skip)(f'REDUCED RUN: {why}')
        return found

    return check


@pytest.fixture(scope='session')
def shared_data(needed):
    """Real data (ml-100k, amazon-book)."""
    return needed(
        _shared(),
        'PROMAX_REQUIRE_DATA',
        'real data not found; set PROMAX_DATA to a folder with ml-100k/ and amazon-book/ to run this test.',
    )


@pytest.fixture(scope='session')
def real(needed):
    """The folder of one set of real data, by name: amazon-industrial, steam-sub, imdb-exp3rt, ml-100k ..."""

    def folder(name):
        found = _shared()
        return needed(
            found / name if found and (found / name).is_dir() else None,
            'PROMAX_REQUIRE_DATA',
            f'{name} not found; set PROMAX_DATA to a folder with {name}/ to run this test.',
        )

    return folder


@pytest.fixture
def serve(monkeypatch):
    """Start servers that are closed afterwards; a canary key is in the environment."""
    monkeypatch.setenv('OPENAI_API_KEY', CANARY)
    monkeypatch.delenv('OPENAI_BASE_URL', raising=False)
    servers = []

    def start(*args, **kw):
        servers.append(Server(*args, **kw))
        return servers[-1]

    yield start
    for s in servers:
        s.close()
