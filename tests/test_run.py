"""`make test` itself: what fails is what it ends with, nothing goes on after it, and the site is built once."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import built
import pytest
import run
from filelock import FileLock, Timeout

WELL = [sys.executable, '-c', 'print("1 passed")']
BAD = [sys.executable, '-c', 'print("1 failed"); raise SystemExit(3)']
CHILD = """
import sys, time
from pathlib import Path
from filelock import FileLock
held = FileLock(sys.argv[1] + '/held')
held.acquire()
Path(sys.argv[1], 'started').touch()
time.sleep(600)
"""
ENDLESS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2]])
time.sleep(600)
"""
WAITS = """
import sys, time
from pathlib import Path
while not Path(sys.argv[1], 'started').exists():
    time.sleep(0.05)
sys.exit(4)
"""
ALONE = """
import sys
from pathlib import Path
import run
run.LOG, run.PATIENCE = Path(sys.argv[1], 'browser.log'), 2
endless = [[sys.executable, '-c', sys.argv[2], sys.argv[3], folder] for folder in sys.argv[4:]]
sys.exit(run.main({'a': endless[0]}, endless[1]))
"""


def endless(folder: Path) -> list:
    """A step that never ends, with a process of its own that holds a lock in the folder as long as it lives."""
    return [sys.executable, '-c', ENDLESS, CHILD, str(folder)]


def has_started(folder: Path) -> bool:
    deadline = time.monotonic() + 60
    while not (folder / 'started').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return (folder / 'started').exists()


def is_over(folder: Path) -> bool:
    """Whether the process that a step had started is over, a few seconds given."""
    try:
        with FileLock(folder / 'held', timeout=10):
            return True
    except Timeout:
        return False


@pytest.fixture(autouse=True)
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(run, 'LOG', tmp_path / 'cache' / 'browser.log')
    monkeypatch.setattr(run, 'PATIENCE', 2)  # who ignores SIGINT, as what a background job starts does, is waited for


def test_all_well_ends_with_the_summary_of_the_browser(capfd):
    assert run.run({'a': WELL, 'b': WELL}, WELL) == 0
    assert capfd.readouterr().out.splitlines()[-1] == '1 passed'


def test_a_step_that_fails_stops_the_browser(tmp_path, capfd):
    assert run.run({'a': [sys.executable, '-c', WAITS, str(tmp_path)], 'b': WELL}, endless(tmp_path)) == 4
    assert is_over(tmp_path) and 'b:' not in capfd.readouterr().out


def test_a_browser_that_fails_stops_the_step(tmp_path, capfd):
    browser = [sys.executable, '-c', WAITS, str(tmp_path)]
    assert run.run({'a': endless(tmp_path), 'b': WELL}, browser) == 4
    assert is_over(tmp_path) and 'b:' not in capfd.readouterr().out
    assert run.run({'a': WELL}, BAD) == 3
    assert capfd.readouterr().out.splitlines()[-1] == '1 failed'


@pytest.mark.parametrize('sign', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_both(tmp_path, sign):
    folders = [tmp_path / 'step', tmp_path / 'browser']
    for folder in folders:
        folder.mkdir()
    arguments = [str(tmp_path), ENDLESS, CHILD, *map(str, folders)]
    process = subprocess.Popen(
        [sys.executable, '-c', ALONE, *arguments],
        cwd=run.ROOT / 'tests',
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job of a script may have it ignored
    )
    assert has_started(folders[0]) and has_started(folders[1])
    process.send_signal(sign)
    assert process.wait(60) == 130
    assert is_over(folders[0]) and is_over(folders[1])


def test_tests_that_want_the_site_at_once_get_one(tmp_path, monkeypatch):
    builds = []

    def build(tree):
        builds.append(tree)
        time.sleep(0.5)
        for name in ('quarto', 'offline'):
            (tree / name).mkdir()
        (tree / 'quarto.jsonl').touch()
        return 'said'

    def make_folder():
        folder = tmp_path / f'tree{time.monotonic_ns()}'
        folder.mkdir()
        return folder

    monkeypatch.setattr(built, 'ROOT', tmp_path)
    monkeypatch.setattr(built, 'fingerprint', lambda: 'same')
    monkeypatch.setattr(built, 'copy_tree', lambda folder: folder)
    monkeypatch.setattr(built, 'build', build)
    with ThreadPoolExecutor(2) as pool:
        kept = list(pool.map(built.sites, [make_folder, make_folder]))
    assert len(builds) == 1 and kept[0] == kept[1] and (kept[0] / 'offline').is_dir()
