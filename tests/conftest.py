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


@pytest.fixture(scope='session')
def odd_run(tmp_path_factory):
    """A finished `promax run` of two seeds over a CSV pair with odd ids: (folder, arguments, what it said)."""
    import contextlib
    import io

    import numpy as np
    import pandas as pd

    from promax_nb.cli import main

    home, rng = tmp_path_factory.mktemp('odd'), np.random.default_rng(0)
    users = [f'{row:03d}' if row % 3 else f'Zoë / {row}' for row in range(40)]
    items = [f'B{row:04d}' if row % 4 else f'книга, {row}' for row in range(30)]
    kinds = ['crime', 'romance', 'history']
    rows = []
    for place, user in enumerate(users):
        liked = [row for row in range(30) if row % 3 == place % 3]
        chosen = {*rng.choice(liked, 7, replace=False), *rng.integers(0, 30, 3)}
        rows += [(user, items[row], 5 if row % 3 == place % 3 else 2) for row in sorted(chosen)]
    pd.DataFrame(rows, columns=['user', 'item', 'rating']).to_csv(home / 'events.csv', index=False)
    texts = [f'A {kinds[row % 3]} story of number {row}, slow and by the sea.' for row in range(30)]
    titles = [f'Book <b>{row}</b>' if row else 'Red\x1b[31m book' for row in range(30)]
    table = {'item': items, 'title': titles, 'text': texts, 'genre': [kinds[row % 3] for row in range(30)]}
    pd.DataFrame(table).to_csv(home / 'items.csv', index=False)
    short = '--kcore 0 --seeds 0,1 --base MF --dim 8 --width 8 --epochs 9 --batch 64 --lr .02 --min-steps 0'
    files = ['--events', str(home / 'events.csv'), '--items', str(home / 'items.csv')]
    args, said = [*files, *short.split(), '--out', str(home / 'R')], io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(['run', *args]) == 0
    return home / 'R', args, said.getvalue()
