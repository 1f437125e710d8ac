"""Is the frame intact? Modules in sync with notebooks, notebooks clean, README equal to its notebook, no keys, no
CUDA packages.

    python tests/frame.py [--write-readme | --tidy | --keys [FILE ...]]

Everything is compared against a copy, so a failing check changes nothing.
"""

import filecmp
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def readme() -> str:
    """README.md as nbs/index.ipynb gives it: prose and code, outputs as text, no nbdev directives."""
    import nbformat
    from nbconvert import MarkdownExporter

    nb = nbformat.read(ROOT / 'nbs' / 'index.ipynb', 4)
    nb.cells = [c for c in nb.cells if not re.search(r'^#\|\s*(hide|default_exp)\b', c.source, re.M)]
    nb.metadata['language_info'] = {'name': 'python'}
    for c in nb.cells:
        if c.cell_type == 'code':
            c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M)
    text = MarkdownExporter().from_notebook_node(nb)[0]
    return (
        '<!-- made from nbs/index.ipynb by `make docs-readme`; edit that -->\n\n'
        + re.sub(r'\n{3,}', '\n\n', text).strip()
        + '\n'
    )


def still(figure: dict) -> str:
    """A plotly figure's JSON as a small PNG (64 colours), base64; kaleido drives the Chromium that is on the
    machine."""
    import base64
    import io

    import plotly.graph_objects as go
    from PIL import Image

    fig = go.Figure({k: figure[k] for k in ('data', 'layout') if k in figure}, skip_invalid=True).update_layout(
        paper_bgcolor='white'
    )
    picture = Image.open(io.BytesIO(fig.to_image(format='png', width=860, height=fig.layout.height or 480)))
    out = io.BytesIO()
    picture.convert('RGB').quantize(64).save(out, 'PNG', optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def tidy():
    """Leave text and small stills in the notebooks' outputs: no progress bars, no widgets without their state, no
    figures as JSON (the site keeps these)."""
    import kaleido
    import nbformat

    sys.path.insert(0, str(ROOT / 'docs'))
    from make_site import drop_figures, keep_figure

    kaleido.start_sync_server(silence_warnings=True)  # one browser for all figures
    widget, figure = 'application/vnd.jupyter.widget-view+json', 'application/vnd.plotly.v1+json'
    for path in sorted((ROOT / 'nbs').rglob('*.ipynb')):
        nb = nbformat.read(path, 4)
        for c in nb.cells:
            if c.cell_type != 'code':
                continue
            for o in c.outputs:
                data = o.get('data', {})
                if data.pop(widget, None) is not None and not {'text/html', 'image/png'} & set(data):
                    data.clear()
                if figure in data:
                    o['data'] = {'image/png': still(data[figure])}
                    keep_figure(data[figure], o['data']['image/png'])
            c.outputs = [o for o in c.outputs if o.get('name') != 'stderr' and ('data' not in o or o['data'])]
        nbformat.write(nb, path)
    drop_figures()
    kaleido.stop_sync_server(silence_warnings=True)


@lru_cache
def detectors() -> list:
    """What finds keys: the patterns of detect-secrets that know a key by its form, and those of services it does not
    know."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector

    def ours(name, pattern):
        return type(name, (RegexBasedDetector,), {'secret_type': name, 'denylist': [re.compile(pattern)]})

    known = [
        c
        for c in get_mapping_from_secret_type_to_class().values()
        if issubclass(c, RegexBasedDetector) and c.__name__ != 'IPPublicDetector'
    ]
    more = {
        'Secret key (sk-)': r'\bsk-[A-Za-z0-9_-]{20,}',
        'Hugging Face token': r'\bhf_[A-Za-z0-9]{20,}',
        'Google key': r'\bAIza[A-Za-z0-9_-]{35}',
        'Bearer token': r'(?i)\bbearer\s+[A-Za-z0-9_.-]{20,}',
    }
    return [c() for c in known] + [ours(*m)() for m in more.items()]


def texts(path: Path):
    """(place, text) of a file; of a notebook each cell's source and each output that is text."""
    text = path.read_text(encoding='utf-8', errors='replace')
    if path.suffix != '.ipynb':
        yield path.name, text
        return

    def strings(x):
        if isinstance(x, str):
            yield x
        elif isinstance(x, dict):
            for k, v in x.items():
                if not k.startswith('image/') or k == 'image/svg+xml':
                    yield from strings(v)
        elif isinstance(x, list):
            yield ''.join(x) if all(isinstance(v, str) for v in x) else '\n'.join(s for v in x for s in strings(v))

    for k, c in enumerate(json.loads(text)['cells'], 1):
        for part in ('source', 'outputs', 'metadata'):
            yield f'{path.name}, cell {k}, {part}', '\n'.join(strings(c.get(part, '')))


def keys(paths) -> list:
    """A sentence for every key found; the key itself is not repeated."""
    return sorted(
        {
            (f'{place} holds what looks like a key ({d.secret_type}): take it out, clear the output, and '
                'make the key invalid where it came from.')
            for p in paths
            for place, text in texts(Path(p))
            for d in detectors()
            if any(d.analyze_string(text))
        }
    )


def kept() -> list:
    """The files whose texts are looked at for keys: all that is not a test (those plant some)."""
    folders = [
        p for f in ('nbs', 'promax_nb', 'benchmarks', 'configs', 'docs', '.github') for p in (ROOT / f).rglob('*')
    ]
    kinds = {'.ipynb', '.py', '.md', '.ini', '.toml', '.yml', '.yaml', '.json', '.js', '.css', '.cff', '.txt'}
    return [
        p
        for p in [*folders, *ROOT.glob('*')]
        if p.is_file() and p.suffix in kinds and not {'.ipynb_checkpoints', '__pycache__'} & set(p.parts)
    ]


def differences(a: Path, b: Path, names) -> list:
    """Files among `names` that differ between two folders."""
    return [
        n for n in names if not (a / n).exists() or not (b / n).exists() or not filecmp.cmp(a / n, b / n, shallow=False)
    ]


def main():
    if '--write-readme' in sys.argv:
        return (ROOT / 'README.md').write_text(readme(), encoding='utf-8')
    if '--tidy' in sys.argv:
        return tidy()
    if '--keys' in sys.argv:
        found = keys(sys.argv[sys.argv.index('--keys') + 1 :] or kept())
        for f in found:
            print('frame:', f, file=sys.stderr)
        return 1 if found else 0
    problems = keys(kept())
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / 'copy'
        copy.mkdir()
        for name in ('nbs', 'promax_nb'):
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
            )
        for name in ('settings.ini', 'setup.py', 'README.md', '_quarto.yml'):
            shutil.copy(ROOT / name, copy)
        env = {**os.environ, 'PYTHONPATH': str(copy)}
        for command in ('nbdev_clean', 'nbdev_export'):
            done = subprocess.run(
                [Path(sys.executable).parent / command], cwd=copy, env=env, capture_output=True, text=True
            )
            if done.returncode:
                problems.append(f'{command} failed: {done.stderr[-800:]}')
        modules = sorted(
            {p.relative_to(r).as_posix() for r in (ROOT / 'promax_nb', copy / 'promax_nb') for p in r.rglob('*.py')}
        )
        bad = differences(ROOT / 'promax_nb', copy / 'promax_nb', modules)
        if bad:
            problems.append(
                f"modules differ from their notebooks: {', '.join(bad)}. Run nbdev_export and commit; "
                    "never edit a module by hand."
            )
        books = sorted(
            p.relative_to(ROOT / 'nbs').as_posix()
            for p in (ROOT / 'nbs').rglob('*.ipynb')
            if '.ipynb_checkpoints' not in p.parts
        )
        bad = differences(ROOT / 'nbs', copy / 'nbs', books)
        if bad:
            problems.append(f"notebooks are not clean: {', '.join(bad)}. Run nbdev_clean and commit.")
    heavy = [
        b
        for b in books
        if 'application/vnd.jupyter.widget-state+json' in (ROOT / 'nbs' / b).read_text(encoding='utf-8')
    ]
    if heavy:
        problems.append(
            f"widget state is stored in {', '.join(heavy)}: execute with store_widget_state=False (make execute does)."
        )
    for kind in ('application/vnd.plotly.v1+json', 'application/vnd.jupyter.widget-view+json'):
        alive = [b for b in books if f'"{kind}"' in (ROOT / 'nbs' / b).read_text(encoding='utf-8')]
        if alive:
            problems.append(
                f"{kind} is stored in {', '.join(alive)}: run make execute, or python tests/frame.py --tidy."
            )
    if (ROOT / 'README.md').read_text(encoding='utf-8') != readme():
        problems.append('README.md differs from nbs/index.ipynb: run make docs-readme.')
    cuda = sorted(
        {
            d.name
            for d in importlib.metadata.distributions()
            if (d.name or '').lower().startswith(('nvidia-', 'nvidia_'))
        }
    )
    if cuda and os.environ.get('PROMAX_CPU_ONLY'):
        problems.append(
            f"CUDA packages were installed: {', '.join(cuda[:4])} ...; the constraints should give a CPU-only torch."
        )
    for p in problems:
        print('frame:', p, file=sys.stderr)
    print(f'frame: {len(modules)} modules and {len(books)} notebooks checked, {len(problems)} problem(s)')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main() or 0)
