"""The scan for keys and the hooks that run it before a commit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from frame import ROOT, kept, keys
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

# in two halves, so that no scan takes these lines for keys that somebody lost
PLANTED = {
    'OpenAI': 'sk-' + 'proj-' + 'aB3' * 10,
    'Anthropic': 'sk-' + 'ant-api03-' + 'Zz9' * 12,
    'GitHub': 'gh' + 'p_' + 'a1B2' * 9,
    'Hugging Face': 'hf' + '_' + 'Qw4' * 11,
    'AWS': 'AK' + 'IA' + 'ABCDEFGH12345678',
    'Google': 'AI' + 'za' + 'Sy7' * 11 + 'ab',
    'address': 'http://me:' + 'hunter2hunter2@box.example/v1',
    'header': 'Authorization: Bearer ' + 'x1Y2' * 8,
    'private': '-----BEGIN ' + 'RSA PRIVATE KEY-----',
}


def book(path, **where):
    """A notebook with a text in its source, printed output, shown table, error or metadata."""
    cell = new_code_cell(where.get('source', '1 + 1'))
    if 'stream' in where:
        cell.outputs = [new_output('stream', text=where['stream'])]
    if 'shown' in where:
        cell.outputs = [new_output('execute_result', {'text/plain': 'x', 'text/html': f'<td>{where["shown"]}</td>'})]
    if 'error' in where:
        cell.outputs = [new_output('error', ename='E', evalue='no', traceback=['line 1', f'key={where["error"]}'])]
    if 'picture' in where:
        cell.outputs = [new_output('display_data', {'image/png': where['picture']})]
    nbformat.write(new_notebook(cells=[new_markdown_cell('# Title'), cell], metadata=where.get('metadata', {})), path)
    return path


@pytest.mark.parametrize('kind', PLANTED)
@pytest.mark.parametrize('place', ['source', 'stream', 'shown', 'error'])
def test_a_planted_key_is_found(tmp_path, kind, place):
    said = keys([book(tmp_path / 'b.ipynb', **{place: f'the key is {PLANTED[kind]} and more'})])
    assert said and all('cell 2' in s and ('source' if place == 'source' else 'outputs') in s for s in said)
    assert PLANTED[kind] not in ''.join(said), 'the message repeats the key'


def test_what_is_no_key_passes(tmp_path):
    source = 'llm = chat("gpt-4o-mini", api_key_env="OPENAI_API_KEY")'
    assert keys([book(tmp_path / 'a.ipynb', source=source, stream='task-force, sk-learn, hash 9698a11dcaf4')]) == []
    assert keys([book(tmp_path / 'b.ipynb', picture=PLANTED['AWS'])]) == []  # letters of a picture mean nothing


def test_the_frame_looks_at_all_that_is_kept():
    """`python tests/frame.py`, the first line of `make test`, fails on a key in any of these."""
    files = kept()
    assert len([f for f in files if f.suffix == '.ipynb']) >= 18 and ROOT / 'README.md' in files


def hooks():
    return {
        h['id']: h
        for r in yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text(encoding='utf-8'))['repos']
        for h in r['hooks']
    }


def test_the_hooks_are_local_and_run(tmp_path):
    """Every hook is a program of this environment; that for keys stops a planted key and lets a clean commit pass."""
    config = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text(encoding='utf-8'))
    assert {r['repo'] for r in config['repos']} == {'local'} and {'nbdev_clean', 'nbdev_export', 'keys'} <= set(hooks())
    for h in hooks().values():
        program = h['entry'].split()[0]
        assert (
            h['language'] == 'system' and (Path(sys.executable).parent / program).exists() or shutil.which(program)
        ), h
    program, *rest = hooks()['keys']['entry'].split()
    assert program == 'python'

    def hook(path):
        return subprocess.run([sys.executable, *rest, str(path)], cwd=ROOT, capture_output=True, text=True)

    bad, good = (
        hook(book(tmp_path / 'bad.ipynb', stream=PLANTED['OpenAI'])),
        hook(book(tmp_path / 'good.ipynb', stream='nothing')),
    )
    assert bad.returncode == 1 and 'looks like a key' in bad.stderr and good.returncode == 0
    assert json.loads((tmp_path / 'good.ipynb').read_text())['cells'], 'the scan changed a file'
