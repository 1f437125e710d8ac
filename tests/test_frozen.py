"""Behaviour is that of tests/frozen.json: the same seeds, the same numbers; the same help and signatures.

Where a change is meant: say it in CHANGELOG, then `python tests/frozen.py --write --only PART`.
"""
import json
import os
import subprocess
import sys

import frozen
import pytest

FULL = pytest.mark.skipif(not os.environ.get('PROMAX_FULL'), reason='long: set PROMAX_FULL=1')


def differences(tmp_path, *parts):
    """What a fresh process computes otherwise than is kept; on another processor, what is not even nearly the same."""
    file = tmp_path / 'now.json'
    command = [sys.executable, frozen.__file__, '--only', ','.join(parts), '--write', str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=frozen.ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = (json.loads(f.read_text(encoding='utf-8')) for f in (frozen.FROZEN, file))
    assert set(after['parts']) == set(parts) <= set(before['parts'])
    return frozen.differing(before, after, exactly=before['about'] == after['about'])


def same_python():
    """argparse and inspect write a little differently in every Python."""
    kept = json.loads(frozen.FROZEN.read_text(encoding='utf-8'))['about']['python']
    return kept == '.'.join(map(str, sys.version_info[:2]))


def test_bases(tmp_path):
    assert differences(tmp_path, 'bases') == []


@pytest.mark.skipif(not same_python(), reason='help and signatures are kept for another Python')
def test_help_and_signatures():
    kept = json.loads(frozen.FROZEN.read_text(encoding='utf-8'))
    after = {'parts': {name: frozen.PARTS[name]() for name in ('help', 'signatures')}}
    assert frozen.differing(kept, after) == []
    assert 'environ(' not in frozen.FROZEN.read_text(encoding='utf-8'), 'a default that shows the environment'


@FULL
@pytest.mark.parametrize('part', ['demo', 'lettingo'])
def test_full(part, tmp_path):
    assert differences(tmp_path, part) == []


def test_a_difference_is_seen():
    """One digit, one hash, one entry more or less; and what another processor may do."""
    before = {'parts': {'bases': {'loss': .25, 'users': 'ab12', 'count': 3}, 'help': {'promax': 'usage'}}}
    for entries in ({'loss': .25 + 2**-53}, {'users': 'ab13'}, {'count': 4}, {'count': 3.}, {'new': 1}):
        after = {'parts': {'bases': before['parts']['bases'] | entries}}
        assert [row[1] for row in frozen.differing(before, after)] == list(entries)
        assert frozen.comparison(before, after).count('| no |') == 1
    assert frozen.differing(before, before) == [] and '| no |' not in frozen.comparison(before, before)
    gone = {'parts': {'bases': {'loss': .25, 'users': 'ab12'}}}
    for exactly in (True, False):
        assert [row[1] for row in frozen.differing(before, gone, exactly)] == ['count']
    near, far = ({'parts': {'bases': before['parts']['bases'] | {'loss': x, 'users': 'cd34'}}} for x in (.255, .35))
    assert frozen.differing(before, near, False) == []
    assert [row[1] for row in frozen.differing(before, far, False)] == ['loss']
    assert frozen.differing(before, {'parts': {'help': {'promax': 'Usage'}}}, False)  # words are words everywhere


def test_words_do_not_move_numbers_to_another_processor():
    here, there = ({'python': '3.11', 'processor': name} for name in ('a', 'b'))
    before = {'about': there, 'parts': {'demo': {'x': 1}, 'bases': {'y': 2}, 'help': {'promax': 'usage'}}}
    words = frozen.together(before, {'about': here, 'parts': {'help': {'promax': 'new'}}})
    assert words['about'] == there and words['parts'] == before['parts'] | {'help': {'promax': 'new'}}
    with pytest.raises(SystemExit, match='computed elsewhere'):
        frozen.together(before, {'about': here, 'parts': {'bases': {'y': 3}}})
    numbers = {'about': here, 'parts': {'demo': {'x': 4}, 'bases': {'y': 3}}}
    assert frozen.together(before, numbers)['about'] == here


def test_names_are_found_wherever_they_live():
    assert frozen.find('toy_data').__name__ == 'toy_data' and callable(frozen.command())
    with pytest.raises(LookupError, match='no room of promax_nb lists nowhere_at_all'):
        frozen.find('nowhere_at_all')
