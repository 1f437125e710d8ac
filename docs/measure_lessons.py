"""Time, memory and badges of the lessons: python docs/measure_lessons.py --measure nbs/lessons --badges nbs/lessons

How long a lesson runs is measured, not guessed: every lesson runs in a process of its own, and the seconds of processor
time and the most memory that this process used are written into measured.json. (Processor time rather than the clock on
the wall: it does not depend on what else the machine does.) --badges copies these numbers into the lessons, behind the
mark <!-- badge -->. A badge is plain text: it needs no service and shows everywhere.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import nbformat

BADGE = re.compile(r'(<!-- badge -->).*')
USED = '''import json, os, re, sys, time
_seconds, _most = time.process_time(), 0
try:
    import resource
    _used = resource.getrusage(resource.RUSAGE_SELF)
    _most = _used.ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10)
except ImportError:  # Windows
    pass
if os.path.exists('/proc/self/status'):  # ru_maxrss counts what the process that started this one held
    with open('/proc/self/status') as _status:
        _most = int(re.search(r'VmHWM:\\s*(\\d+) kB', _status.read())[1]) / 2**10
print(json.dumps({'seconds': round(_seconds, 1), 'memory_mb': round(_most)}))'''


def measure(path) -> dict:
    """Run one notebook in a kernel of its own, from its own folder: seconds (processor time), memory_mb (most held)."""
    from nbclient import NotebookClient

    book = nbformat.read(path, 4)
    book.cells.append(nbformat.v4.new_code_cell(USED))
    NotebookClient(book, timeout=1200, resources={'metadata': {'path': str(Path(path).parent)}}).execute()
    return json.loads(book.cells[-1].outputs[0].text)


def badge(measured: dict) -> str:
    """One line of Markdown."""
    seconds, memory = max(1, round(measured['seconds'])), measured['memory_mb']
    return f'`{seconds} s` of processor time, `{memory:,} MB` of memory; no network, no key.'


def refresh(folder) -> list:
    """Put the measured numbers into the badges of all lessons; the names of those whose badge changed."""
    folder, changed = Path(folder), []
    known = json.loads((folder / 'measured.json').read_text(encoding='utf-8'))
    for path in sorted(folder.glob('[0-9]*.ipynb')):
        if path.stem not in known:
            raise ValueError(
                f'{path.stem} was never measured: run `python docs/measure_lessons.py --measure {folder}` first.'
            )
        book, line = nbformat.read(path, 4), f'<!-- badge --> {badge(known[path.stem])}'
        before = [cell.source for cell in book.cells]
        for cell in book.cells:
            if cell.cell_type == 'markdown':
                cell.source = BADGE.sub(lambda found, line=line: line, cell.source)
        if before != [cell.source for cell in book.cells]:
            nbformat.write(book, path)
            changed.append(path.stem)
    return changed


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--measure', metavar='FOLDER', type=Path, help='run every lesson and write measured.json')
    told = 'copy the numbers of measured.json into the lessons'
    parser.add_argument('--badges', metavar='FOLDER', type=Path, help=told)
    told = 'measure the lessons whose file name begins like this, keep the other numbers'
    parser.add_argument('--only', default='', metavar='NAME', help=told)
    options = parser.parse_args(argv)
    if options.measure:
        file = options.measure / 'measured.json'
        known = json.loads(file.read_text(encoding='utf-8')) if file.exists() else {}
        for path in sorted(options.measure.glob(f'{options.only}*.ipynb')):
            known[path.stem] = measure(path)
            print(path.stem, known[path.stem], flush=True)
        file.write_text(json.dumps(dict(sorted(known.items())), indent=1) + '\n', encoding='utf-8')
    if options.badges:
        print('badges changed:', ', '.join(refresh(options.badges)) or 'none')
    return 0


if __name__ == '__main__':
    sys.exit(main())
