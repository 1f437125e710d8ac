"""Does a command that is killed over and over end where an undisturbed one ends?

    python benchmarks/kills.py FOLDER --file result.json --leave seconds settings [--out FILE] -- COMMAND ... {}

{} stands for the folder of a run. One run is left alone. Another one is killed (kill -9) each time it has written
something, up to a few seconds after it, and started again, until it ends by itself. Told are the kills, the stages
during which they fell (by the files that were there), and what differs between the two in FILE (numbers compared to
twelve digits; keys of --leave, at any depth, are left out).
"""

import argparse
import json
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path


def written(folder: Path) -> dict:
    """File -> when it was changed last."""
    found = {}
    for file in folder.rglob('*'):
        try:
            if file.is_file():
                found[str(file.relative_to(folder))] = file.stat().st_mtime_ns
        except OSError:  # it went away meanwhile
            continue
    return found


def until_it_ends(command: list, folder: Path, wait: float, most: int) -> list:
    """Start it, kill it after it has written something, start it again: what was new at each kill."""
    chance, kills, usual = random.Random(0), [], wait
    while len(kills) < most:
        before = written(folder)
        with open(folder.parent / 'log', 'a') as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            while child.poll() is None and written(folder) == before:
                time.sleep(0.1)
            began, rest = time.monotonic(), chance.uniform(0, wait)
            while child.poll() is None and time.monotonic() - began < rest:
                time.sleep(0.05)
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
            if child.wait() != -signal.SIGKILL:
                if child.returncode:
                    sys.exit(f'it ended with {child.returncode}: see {folder.parent / "log"}')
                return kills
        now = written(folder)
        wait = usual if set(now) - set(before) else 1.5 * wait  # a stage without stops needs some time in one piece
        kills.append(sorted(name for name in now if now[name] != before.get(name)))
        print(f'kill {len(kills)}: {", ".join(kills[-1][:4])}', flush=True)
    sys.exit(f'not ended after {most} kills')


def differences(a, b, leave, place='') -> list:
    """Where two JSON values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = (set(a) | set(b)) - set(leave)
        return [d for key in sorted(keys) for d in differences(a.get(key), b.get(key), leave, f'{place}/{key}')]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for k, pair in enumerate(zip(a, b, strict=True)) for d in differences(*pair, leave, f'{place}/{k}')]
    same = a == b or (a != a and b != b)
    if isinstance(a, float) and isinstance(b, float):
        same = same or math.isclose(a, b, rel_tol=1e-12)
    return [] if same else [f'{place}: {str(a)[:60]} | {str(b)[:60]}']


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path)
    p.add_argument('--file', default='result.json', help='what is compared')
    p.add_argument('--leave', nargs='*', default=['seconds', 'settings'])
    p.add_argument('--wait', type=float, default=4.0, help='at most so many seconds between something new and the kill')
    p.add_argument('--most', type=int, default=200, help='kills')
    p.add_argument('--out', type=Path)
    given = sys.argv[1:]
    if '--' not in given:
        p.error('the command comes after --')
    a, command = p.parse_args(given[: given.index('--')]), given[given.index('--') + 1 :]
    found, kills = {}, []
    for name in ('alone', 'killed'):
        folder = a.folder / name / 'run'
        folder.mkdir(parents=True, exist_ok=True)
        call = [str(folder) if part == '{}' else part for part in command]
        if name == 'alone' and not (folder / a.file).exists():
            subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
        elif name == 'killed':
            kills = until_it_ends(call, folder, a.wait, a.most)
        found[name] = json.loads((folder / a.file).read_text(encoding='utf-8'))
    differ = differences(*found.values(), a.leave)
    told = {'command': ' '.join(command), 'kills': len(kills), 'new at each kill': kills, 'differences': differ}
    print(f'{len(kills)} kills, {len(differ)} differences', *differ[:20], sep='\n')
    if a.out:
        a.out.write_text(json.dumps(told, indent=1) + '\n')


if __name__ == '__main__':
    main()
