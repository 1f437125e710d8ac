"""Threads that wait quietly, whoever imports first, and a word about other work."""

import os
import subprocess
import sys

import pytest

from promax_nb.data import threads

QUIET_LIBRARY = """
import os, sys
{first}
import promax_nb
from promax_nb.data import threads
print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules, promax_nb.data.threads.wait_quietly(os.environ))
"""


def said(first: str, **environment) -> list:
    """What a fresh process says after `first` and `import promax_nb`."""
    kept = {name: value for name, value in os.environ.items() if name not in threads.DECIDED}
    call = [sys.executable, '-c', QUIET_LIBRARY.format(first=first)]
    out = subprocess.run(call, capture_output=True, text=True, env=kept | environment)
    assert not out.returncode, out.stderr
    return out.stdout.split(maxsplit=2)


def test_the_house_sets_it_before_torch_is_there():
    assert said('')[:2] == ['PASSIVE', 'False']


def test_what_the_user_set_stays():
    assert said('', OMP_WAIT_POLICY='ACTIVE')[0] == 'ACTIVE'
    assert said('', GOMP_SPINCOUNT='100')[0] == 'None'


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='only Linux says which libraries are loaded')
def test_an_openmp_that_was_loaded_first_is_crowded():
    paths = threads.loaded_openmp()  # torch or faiss came with the other tests, or here
    if not paths:
        import torch  # noqa: F401

        paths = threads.loaded_openmp()
    if not paths:
        pytest.skip('this torch brings no libgomp')
    before = len(os.listdir('/proc/self/task'))
    environment = {}
    assert threads.wait_quietly(environment) == 'crowded' and environment == threads.QUIET
    cores = len(os.sched_getaffinity(0))
    assert len(os.listdir('/proc/self/task')) == before + len(paths) * (cores + 1)
    assert threads.wait_quietly(environment) == 'as the user said'  # once is enough


def test_waiting_is_told_from_the_kernels_count_and_from_the_clock(monkeypatch):
    waits, clock, busy = iter([1.0, 1.6, None, None]), iter([0.0, 1.0, 2.0, 3.0]), iter([0.0, 0.4, 0.5, 0.8])
    monkeypatch.setattr(threads, 'waited_seconds', lambda: next(waits))
    monkeypatch.setattr(threads.time, 'perf_counter', lambda: next(clock))
    monkeypatch.setattr(threads.time, 'process_time', lambda: next(busy))
    meter = threads.Contention()
    assert meter.waiting() == pytest.approx(0.6)  # 0.6 s of one second in the queue
    meter.waiting()  # the count ends here
    assert meter.waiting() == pytest.approx(0.7)  # no count: 0.3 s of work in a second


def test_a_little_waiting_is_not_worth_a_word():
    assert threads.contention_words(0.1) == {}
    assert threads.contention_words(0.5) == {'waiting for a core': '50%'}


def test_the_bar_of_a_training_names_other_work(monkeypatch, capsys):
    from promax_nb.data.bookshop import toy_data
    from promax_nb.models import train
    from promax_nb.models.bases import MF
    from promax_nb.models.objectives import BPR

    monkeypatch.setattr(train.Contention, 'waiting', lambda meter: 0.42)
    data = toy_data(60, 40)
    train.fit(MF(data, dim=4), BPR(), data, epochs=1, eval_every=1, progress=True)
    assert 'waiting for a core=42%' in capsys.readouterr().err


@pytest.mark.parametrize('asked', [None, '0'])
def test_torch_asks_for_large_pages_unless_told_otherwise(asked):
    """Set when the package is imported, before torch is there."""
    known = {name: value for name, value in os.environ.items() if name != 'THP_MEM_ALLOC_ENABLE'}
    known |= {} if asked is None else {'THP_MEM_ALLOC_ENABLE': asked}
    code = "import os, sys, promax_nb; print(os.environ['THP_MEM_ALLOC_ENABLE'], 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, '-c', code], env=known, capture_output=True, text=True, check=True).stdout
    assert told.split() == [asked or '1', 'False']


def test_a_small_training_takes_one_thread(monkeypatch):
    """Several would wait for each other; who said how many gets as many, and afterwards all is as it was."""
    import torch

    from promax_nb.data.bookshop import toy_data
    from promax_nb.models import train
    from promax_nb.models.bases import MF
    from promax_nb.models.objectives import BPR

    seen, validate = [], train._validate
    monkeypatch.setattr(train, '_validate', lambda *a: seen.append(torch.get_num_threads()) or validate(*a))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for said in (None, '2'):
            monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
            if said:
                monkeypatch.setenv('OMP_NUM_THREADS', said)
            data = toy_data(80, 50)
            train.fit(MF(data, dim=4), BPR(), data, epochs=1, eval_every=1, progress=False)
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]
