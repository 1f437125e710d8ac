"""How long does an epoch of ProMax take beside one busy process, against a quiet machine?

    python benchmarks/beside.py [--ways plain,torch-first,notebook,run,demo] [--house FOLDER] [--out FILE]

Every way is a fresh process with the machine's own number of threads and nothing said about how they wait: plain
Python that imports `promax_nb` first, plain Python that imports torch first, a notebook kernel (torch first, in a cell
of its own), `promax run` on files of the bookshop, and the whole `promax demo` (all its seconds, from nothing). Each
is timed quiet and then beside a process that keeps one core busy; an epoch is the median over the trained epochs but
the first. `--house` measures another checkout of the house, with this same script.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

DECIDED = ('OMP_WAIT_POLICY', 'KMP_BLOCKTIME', 'GOMP_SPINCOUNT', 'KMP_LIBRARY', 'OMP_NUM_THREADS')
WAYS = ('plain', 'torch-first', 'notebook', 'run', 'demo')
TRAIN = """
import json, warnings
import numpy as np, scipy.sparse as sp
from types import SimpleNamespace
from promax_nb.models.bases import LightGCN
from promax_nb.models.objectives import ProMax
from promax_nb.models.train import fit
warnings.simplefilter('ignore')
rng = np.random.default_rng(0)
users, items = 3300, 3500
def draw(count):
    cells = rng.integers(users, size=count), rng.integers(items, size=count)
    drawn = sp.csr_matrix((np.ones(count, np.float32), cells), (users, items))
    drawn.data[:] = 1
    return drawn
train, valid, added = draw(13_000), draw(3_000), draw(5_000)
added = sp.csr_matrix(added - added.multiply(train))
data = SimpleNamespace(train=train, valid=sp.csr_matrix(valid - valid.multiply(train)), name='drawn', meta={})
su, si = (rng.normal(size=(count, 32)).astype(np.float32) for count in (users, items))
fitted = fit(LightGCN(train), ProMax(su, si, added), data, epochs=6, batch=1024, eval_every=6, progress=False)
print('SECONDS', json.dumps(fitted.history.seconds.tolist()))
"""


def environment(house: Path) -> dict:
    """What a person's process sees who has set nothing."""
    kept = {name: value for name, value in os.environ.items() if name not in DECIDED}
    return kept | {'PYTHONPATH': str(house), 'HF_HUB_OFFLINE': '1'}


def epochs_said(text: str) -> float:
    """The median epoch of a process, without the first."""
    said = next(line for line in text.splitlines() if line.startswith('SECONDS'))
    return float(np.median(json.loads(said.removeprefix('SECONDS'))[1:]))


def python(code: str, house: Path) -> float:
    """Seconds of an epoch in plain Python."""
    call = [sys.executable, '-c', code]
    done = subprocess.run(call, env=environment(house), cwd=house, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return epochs_said(done.stdout)


def notebook(house: Path) -> float:
    """Seconds of an epoch in a kernel, torch imported one cell earlier."""
    code = f'''
import nbclient, nbformat
cells = [nbformat.v4.new_code_cell(source) for source in ('import torch', {TRAIN!r})]
book = nbformat.v4.new_notebook(cells=cells)
nbclient.NotebookClient(book, timeout=600, kernel_name='python3').execute()
print([output.text for output in book.cells[1].outputs if output.get('name') == 'stdout'][0])
'''
    return python(code, house)


def shop(folder: Path):
    """The bookshop as files that `promax run` reads."""
    from promax_nb.data.bookshop import toy_data

    data = toy_data(600, 400)
    events = data.train + data.valid + data.test
    cells = events.tocoo()
    pd.DataFrame({'user': cells.row, 'item': cells.col}).to_csv(folder / 'events.csv', index=False)
    items = {'item': range(events.shape[1]), 'title': data.items.title, 'text': data.items.text}
    pd.DataFrame(items).to_csv(folder / 'items.csv', index=False)


def command(house: Path, *words) -> float:
    """Seconds of a `promax` command."""
    began = time.perf_counter()
    call = [sys.executable, '-c', 'from promax_nb.cli import main; main()', *map(str, words)]
    done = subprocess.run(call, env=environment(house), cwd=house, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - began


def run(house: Path) -> float:
    """Seconds of an epoch of ProMax in `promax run`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shop(folder)
        files = ('--events', folder / 'events.csv', '--items', folder / 'items.csv', '--out', folder / 'out')
        command(house, 'run', *files, '--epochs', 30, '--batch', 512, '--seeds', 0, '--width', 64)
        histories = [path for path in sorted((folder / 'out').rglob('history.parquet'))]
        tables = [pd.read_parquet(path) for path in histories]
        reshaped = next(table for table in tables if 'sdr' in table.columns)
        return float(reshaped.seconds[1:].median())


def demo(house: Path) -> float:
    """Seconds of the whole demo, into a new folder."""
    with tempfile.TemporaryDirectory() as name:
        return command(house, 'demo', '--out', Path(name) / 'demo')


def busy():
    """A process that keeps one core busy as long as this one lives."""
    return subprocess.Popen([sys.executable, '-c', f'import os\nwhile os.getppid() == {os.getpid()}: sum(range(9999))'])


def measured(way: str, house: Path) -> dict:
    """One way, quiet and beside a busy process."""
    call = {
        'plain': lambda: python('import promax_nb\n' + TRAIN, house),
        'torch-first': lambda: python('import torch\ntorch.ones(1 << 20).add_(1)\n' + TRAIN, house),
        'notebook': lambda: notebook(house),
        'run': lambda: run(house),
        'demo': lambda: demo(house),
    }[way]
    quiet = call()
    other = busy()
    try:
        beside = call()
    finally:
        other.kill()
        other.wait()
    return {'quiet': quiet, 'beside': beside, 'ratio': beside / quiet}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--ways', default=','.join(WAYS), help='comma-separated, of ' + ', '.join(WAYS))
    here = Path(__file__).resolve().parent.parent
    parser.add_argument('--house', type=Path, default=here, help='the checkout to measure')
    parser.add_argument('--name', default='now', help='what this house is called in the results')
    parser.add_argument('--out', type=Path, help='JSON; what it holds of other ways and houses is kept')
    options = parser.parse_args()
    kept = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    kept |= {'cores': os.cpu_count(), 'machine': platform.machine()}
    for way in options.ways.split(','):
        kept.setdefault(options.name, {})[way] = measured(way, options.house.resolve())
        print(options.name, way, kept[options.name][way], flush=True)
        if options.out:
            options.out.write_text(json.dumps(kept, indent=1) + '\n')


if __name__ == '__main__':
    main()
