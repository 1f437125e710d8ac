"""Every notebook, the tests, and beside both the tests in a browser, which mostly wait: what `make test` runs.

The first step that fails stops the others. What the browser's tests say goes to .cache/browser.log and is printed
at the end.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / '.cache' / 'browser.log'
# imported once before anything runs: in a new environment Python compiles at the first import, else each process would
IMPORTS = 'torch, sentence_transformers, sklearn, umap, plotly.graph_objects, faiss, trl.trainer.dpo_trainer, peft'
FIRST = [sys.executable, '-c', f'import {IMPORTS}']
PYTEST = [sys.executable, '-m', 'pytest', '-q']
NOTEBOOKS = [Path(sys.executable).with_name('nbdev_test'), '--n_workers', '2', '--skip_file_re', '^([_.]|story)']
TESTS = [*PYTEST, '-n', '3', '--dist', 'worksteal', 'tests', '--ignore', 'tests/browser']
IN_BROWSER = [*PYTEST, 'tests/browser']
PATIENCE = 20  # seconds that a step has to close its servers and browsers when it is stopped


def start(command: list, output=None) -> subprocess.Popen:
    """A step, in a session of its own: it can be ended with everything that it started."""
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=output, stderr=output and subprocess.STDOUT, start_new_session=True
    )


def stop(step: subprocess.Popen):
    """End a step as Ctrl-C would, then whatever is left of it."""
    if step.poll() is None:
        step.send_signal(signal.SIGINT)
        try:
            step.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(step.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # nothing is left
        pass
    step.wait()


def finish(step: subprocess.Popen, beside: subprocess.Popen) -> int:
    """Wait for a step; the exit code of the first of the two that fails, 0 when the step is over and well."""
    while step.poll() is None:
        if beside.poll():
            return beside.returncode
        time.sleep(0.2)
    return step.returncode


def interrupted(*_):
    """What Ctrl-C does."""
    raise KeyboardInterrupt


def run(steps: dict, beside: list) -> int:
    """The steps one after another while `beside` runs; 0 when all went well, else the exit code of what did not."""
    started = [time.monotonic()]
    LOG.parent.mkdir(exist_ok=True)
    code, running = 0, []
    with LOG.open('w', encoding='utf-8') as log:
        try:
            in_browser = start(beside, log)
            running.append(in_browser)
            for name, command in steps.items():
                started.append(time.monotonic())
                running.append(start(command))
                code = finish(running[-1], in_browser)
                print(f'{name}: {time.monotonic() - started[-1]:.0f} s, exit code {code}', flush=True)
                if code:
                    break
            code = code or in_browser.wait()
        except KeyboardInterrupt:
            code = 130
        finally:
            for step in running:
                stop(step)
    print(f'all, with the browser beside it: {time.monotonic() - started[0]:.0f} s, exit code {code}')
    print(LOG.read_text(encoding='utf-8', errors='replace'), end='', flush=True)
    return code


def main(steps: dict, beside: list) -> int:
    """`run`, for which other signals that end a process are as Ctrl-C."""
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, interrupted)
    return run(steps, beside)


if __name__ == '__main__':
    sys.exit(main({'imports': FIRST, 'notebooks': NOTEBOOKS, 'tests': TESTS}, IN_BROWSER))
