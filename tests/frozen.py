"""Numbers, help texts and signatures as they are today, to compare with after every step of a rebuilding.

python tests/frozen.py                             computes every part and compares it with tests/frozen.json
python tests/frozen.py --only bases,help           only these parts
python tests/frozen.py --write                     computes and keeps (with --only: only these parts are replaced)
python tests/frozen.py --write NEW.json            computes and keeps elsewhere
python tests/frozen.py --compare OLD.json NEW.json a table of two such files, in Markdown

Names are looked up where `promax_nb.all` has them, else in the room that lists them as public, so that rooms may move.
"""
import argparse
import ast
import configparser
import contextlib
import functools
import hashlib
import importlib
import inspect
import io
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
FROZEN = ROOT / 'tests' / 'frozen.json'
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


# ---- where names are

@functools.cache
def rooms() -> dict:
    """Module -> its public names, read from its `__all__` without importing it."""
    found = {}
    for path in sorted((ROOT / 'promax_nb').rglob('*.py')):
        module = '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
        if path.stem == '_modidx' or module == 'promax_nb.all':
            continue
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(t, ast.Name) and t.id == '__all__' for t in targets):
                with contextlib.suppress(ValueError):  # an __all__ that is computed names nothing of its own
                    found[module] = ast.literal_eval(node.value)
    return found


def find(*names: str):
    """The objects of these names: from `promax_nb.all`, else from the first room that lists them."""
    everything, public, objects = importlib.import_module('promax_nb.all'), rooms(), []
    for name in names:
        homes = ['promax_nb.all'] if name in vars(everything) else []
        homes += [module for module, listed in public.items() if name in listed]
        if not homes:
            raise LookupError(f'no room of promax_nb lists {name}: bring it back, or take it out of tests/frozen.py.')
        objects.append(getattr(importlib.import_module(homes[0]), name))
    return objects[0] if len(objects) == 1 else objects


def command():
    """The function behind the command `promax`."""
    config = configparser.ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    module, _, name = config['DEFAULT']['console_scripts'].partition('=')[2].strip().partition(':')
    return getattr(importlib.import_module(module), name)


# ---- how things are written down

def sha(content) -> str:
    """The first 16 digits of the SHA-256 of bytes or text."""
    content = content if isinstance(content, bytes) else content.encode('utf-8', 'replace')
    return hashlib.sha256(content).hexdigest()[:16]


def number(x):
    """A number as JSON keeps it exactly; what is not finite as text."""
    x = x.item() if hasattr(x, 'item') else x
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


def numbers(name: str, values: dict, after=':') -> dict:
    """Every number of a dict, under a common name."""
    return {f'{name}{after} {what}': number(value) for what, value in values.items()}


def array_entries(name: str, array) -> dict:
    """An array: the hash of its exact bytes, that of its values rounded to 5 digits, and its norm."""
    import numpy as np
    array = np.ascontiguousarray(array)
    wide = array.astype(np.float64)
    rounded = np.round(wide, 5) + 0.  # no minus zero
    kind = 'x'.join(map(str, array.shape)) + f' {array.dtype}'
    return {f'{name}: sha256': f'{kind} {sha(array.tobytes())}',
            f'{name}: sha256 of 5 digits': f'{kind} {sha(rounded.tobytes())}',
            f'{name}: norm': float(np.sqrt(np.square(wide).sum()))}


def matrix_entries(name: str, matrix) -> dict:
    """A sparse matrix: how many entries, and the hash of where and what they are."""
    import numpy as np
    matrix = matrix.tocsr().sorted_indices()
    places = (np.asarray(x, np.int64).tobytes() for x in (matrix.indptr, matrix.indices))
    values = np.asarray(matrix.data, np.float64).tobytes()
    return {f'{name}: entries': int(matrix.nnz), f'{name}: sha256': sha(b''.join([*places, values]))}


def table_entry(name: str, table, without=('seconds', 'cost', 'key')) -> dict:
    """A table: its size and the hash of its content at full precision."""
    table = table.drop(columns=[c for c in without if c in table])
    columns = ','.join(map(str, table.columns))
    return {f'{name}: sha256': f'{len(table)} rows {columns} {sha(table.to_csv(index=False))}'}


def texts_entry(name: str, texts) -> dict:
    """Texts in their order: how many, how many different, the hash."""
    texts = ['' if t is None else str(t) for t in texts]
    return {f'{name}: texts': len(texts), f'{name}: different': len(set(texts)),
            f'{name}: sha256': sha('\n'.join(texts))}


def store_entry(path) -> dict:
    """The keys under which a store keeps its answers: if these change, everything is asked again."""
    keys = sorted(find('store_frame')(path)['key']) if Path(path).exists() else []
    return {f'{Path(path).name}: keys': f'{len(keys)} {sha(" ".join(keys))}'}


def cells(name: str, table, without=('seconds',)) -> dict:
    """Every number of a small table."""
    table = table.drop(columns=[c for c in without if c in table])
    entries = {}
    for row, values in table.to_dict('index').items():
        entries |= numbers(f'{name}: {row}', values, ',')
    return entries


def fit_entries(name: str, fit) -> dict:
    """A training: its best epoch and score, the losses of its last epoch, its vectors."""
    last = fit.history.drop(columns='seconds').iloc[-1].to_dict()
    entries = {f'{name}: best epoch': fit.best_epoch, f'{name}: best score': number(fit.best_score)}
    entries |= numbers(f'{name}: last epoch', last, ',') | table_entry(f'{name}: history', fit.history)
    return entries | array_entries(f'{name}: users', fit.users) | array_entries(f'{name}: items', fit.items)


# ---- the parts

def demo() -> dict:
    """`promax demo` as it is (about 45 seconds)."""
    open_run, load_fit = find('open_run', 'load_fit')
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / 'demo'
        with contextlib.redirect_stdout(io.StringIO()):
            assert command()(['demo', '--encoder', 'none', '--out', str(folder)]) == 0
        metrics, card = (json.loads((folder / f'{name}.json').read_text()) for name in ('metrics', 'card'))
        scene = open_run(folder)
        entries = {'data: hash': scene.data.hash()} | store_entry(folder / 'profiles.db')
        for trained in ('base-0', 'base-1', 'promax-0', 'promax-1'):
            entries |= fit_entries(trained, load_fit(folder / 'fits' / trained))
    entries |= texts_entry('user profiles', scene.users.profile) | texts_entry('item profiles', scene.items.profile)
    for side, vectors, raw in zip(('users', 'items'), scene.vectors, scene.raw, strict=True):
        entries |= array_entries(f'encoded {side}', raw) | array_entries(f'whitened {side}', vectors)
    entries |= matrix_entries('added', scene.added) | table_entry('provenance', scene.provenance)
    entries |= numbers('base', metrics['base']) | numbers('ProMax', metrics['promax'])
    for metric, row in metrics['compare'].items():
        entries |= numbers(f'compare: {metric}', row, ',')
    for group, row in enumerate(metrics['by_sparsity']):
        entries |= numbers(f'by sparsity: group {group}', row, ',')
    return entries | {f'audit: {row["check"]}': f"{row['passed']} {row['detail']}" for row in card['audit']}


def bases() -> dict:
    """One epoch of each base with BPR and with ProMax in a small world (a few seconds)."""
    import numpy as np
    toy_data, whiten, augment, evaluate, fit = find('toy_data', 'whiten', 'augment', 'evaluate', 'fit')
    BPR, ProMax = find('BPR', 'ProMax')
    data = toy_data(150, 80)
    truth, rng = data.extras['truth'], np.random.default_rng(0)
    tastes = truth['user_likes'].astype(float) - truth['user_dislikes']
    liked = data.train.T @ tastes  # what the readers of a book like
    su, si = whiten(*(x + .5 * rng.normal(size=x.shape) for x in (tastes, liked)), dim=16)
    added, why = augment(data, su, si)
    entries = {'data: hash': data.hash()}
    entries |= array_entries('whitened users', su) | array_entries('whitened items', si)
    entries |= matrix_entries('added', added) | table_entry('provenance', why)
    for name in ('MF', 'LightGCN', 'GCCF', 'SimGCL'):
        for label, objective in (('BPR', BPR()), ('ProMax', ProMax(su, si, added, sdr=.5, s2dr=.1))):
            model = find(name)(data, dim=16, seed=1)
            result = fit(model, objective, data, epochs=1, batch=128, lr=.01, seed=2, device='cpu', progress=False)
            entries |= fit_entries(f'{name} with {label}', result)
            scores = evaluate(result.users, result.items, data.test, data.train + data.valid)
            entries |= numbers(f'{name} with {label}', scores)
    return entries


def written(folder: Path):
    """Several texts about every reader of a small dense world: (data, history, prompts, small writer, texts)."""
    toy_data, split_history, history_prompts = find('toy_data', 'split_history', 'history_prompts')
    explore, styled, template, writer, tiny_lm = find('explore', 'styled', 'template', 'writer', 'tiny_lm')
    data = toy_data(60, 400, seed=3, density='dense', reveal=.95, split='temporal', noise=.25)
    history = split_history(data, recent=10, older=100, targets=20, dislike=3, like=5)
    prompts, tiny = history_prompts(data, history, 'slots'), tiny_lm()
    writers = [writer(*tiny, 'tiny', seed=1), styled('invented', 1), template()]
    forms = {'tiny': 'slots', 'style:invented': 'slots', 'template': 'full'}
    texts = explore(writers, data, history, n=3, form=forms, store=folder / 'explored.db', progress=False)
    return data, history, prompts, tiny, texts


def stages(folder: Path) -> dict:
    """Explore, judge, pairs, a few steps of SFT and DPO, one after the other."""
    explore, styled, fit_judge, judge = find('explore', 'styled', 'fit_judge', 'judge')
    make_pairs, best_profiles, align = find('make_pairs', 'best_profiles', 'align')
    data, history, prompts, tiny, texts = written(folder)
    entries = {'stages, data: hash': data.hash()} | table_entry('stages, history', history)
    entries |= texts_entry('stages, explored', texts['profile']) | store_entry(folder / 'explored.db')
    honest = explore(styled('true', 1), data, history, n=1, form='slots', progress=False)
    for kind in ('lexical', 'vectors'):
        name, by = f'stages, {kind} judge', fit_judge(data, history, honest, kind=kind)
        scores = judge(texts, data, history, by, store=folder / 'judged.db', progress=False)
        entries |= numbers(name, by.card) | table_entry(f'{name}: scores', scores)
        entries |= numbers(f'{name}: mean', scores[['correct', 'correct_se', 'logp', 'logp_se']].mean().to_dict(), ',')
        for how in ('all', 'best-worst', 'sampled'):
            pairs = make_pairs(texts, scores, how, margin=.1, cap=4, prompts=prompts)
            entries |= {f'{name}: {how} pairs': len(pairs)} | table_entry(f'{name}: {how} pairs', pairs)
    small = dict(max_steps=4, batch=4, lr=1e-3, max_ratio=9., min_users=5, log_steps=1, progress=False, device='cpu')
    texts, scores = (table[table['writer'] != 'template'] for table in (texts, scores))  # the template writes too much
    chosen = best_profiles(texts, scores, prompts=prompts)
    pairs = make_pairs(texts, scores, margin=.1, cap=4, prompts=prompts)
    for name, rows in (('sft', chosen), ('dpo', pairs)):
        trained = align(tiny, rows, method=name, **small)
        for row in trained.history.to_dict('records'):
            entries |= numbers(f'stages, {name}: step {row["step"]:g}', row, ',')
        entries |= texts_entry(f'stages, {name}: samples', trained.samples['after'])
    return entries


def lettingo() -> dict:
    """LettinGo in miniature: stage by stage, then the command with the whole chain closed (about a minute)."""
    run, LettingoConfig, load_align = find('lettingo', 'LettingoConfig', 'load_align')
    small = LettingoConfig(users=150, test_users=12, samples=5, test_samples=1, targets=20, margin=.18, epochs=1.)
    with tempfile.TemporaryDirectory() as temp, contextlib.redirect_stdout(io.StringIO()):
        entries, out = stages(Path(temp)), Path(temp) / 'run'
        result = run(out, None, small, say=lambda line: None)
        entries |= store_entry(out / 'profiles.db')
        for name in ('sft', 'dpo', 'dpo-shuffled'):
            history = load_align(out / 'writers' / name).history
            entries |= table_entry(f'{name}: history', history)
            entries |= numbers(f'{name}: last point', history.iloc[-1].to_dict(), ',')
    done, summary, pairs = result['ablation'], result['summary'], result['pairs']
    entries |= numbers('judge', summary['judge']) | numbers('second judge', summary['second_judge'])
    entries |= {'pairs': len(pairs), 'mean gap': number(pairs['gap'].mean())} | table_entry('pairs', pairs)
    entries |= texts_entry('texts about unseen users', done.profiles['profile']) | cells('ablation', done.table)
    entries |= table_entry('differences', done.differences) | cells('transfer', result['transfer'])
    entries |= cells('loop', result['loop']['table']) | table_entry('movement', result['loop']['movement'])
    for name, row in summary['diversity'].items():
        entries |= numbers(f'diversity: {name}', row, ',')
    return entries | {'verdict': summary['verdict']}


def _said(*arguments: str) -> str:
    """What the command prints before it exits."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        command()([*arguments, '--help'])
    return out.getvalue()


def help_texts() -> dict:
    """Help of the command and of every subcommand, 100 columns wide."""
    with mock.patch.dict(os.environ, COLUMNS='100'):
        top = _said()
        names = re.findall(r'^ {4}([a-z]\w*) ', top, re.M)
        return {'promax': top} | {f'promax {name}': _said(name) for name in names}


def _shown(text: str) -> str:
    """Without addresses, and without the rooms that names live in."""
    return re.sub(r'promax_nb(\.\w+)*\.(?=\w)', '', re.sub(r' at 0x[0-9a-f]+', '', text))


def _signature(thing) -> str:
    try:
        return _shown(str(inspect.signature(thing)))
    except (TypeError, ValueError):
        return '(...)'


def _plainly(value) -> str:
    """A constant as text that is the same in every process."""
    if isinstance(value, dict):
        return '{' + ', '.join(f'{k!r}: {_plainly(v)}' for k, v in value.items()) + '}'
    if isinstance(value, (set, frozenset)):
        return '{' + ', '.join(sorted(map(_plainly, value))) + '}'
    return _shown(repr(value))


def described(thing) -> str:
    """The signature of a function; those of a class and its public methods; the value of a constant."""
    if not inspect.isclass(thing) and not inspect.isroutine(thing):
        text = _plainly(thing)
        return text if len(text) < 80 else f'{type(thing).__name__} {sha(text)}'
    lines = [_signature(thing)]
    if inspect.isclass(thing):
        for name in sorted(n for n in dir(thing) if not n.startswith('_')):
            home = next((c for c in thing.__mro__ if name in vars(c)), thing)
            if not home.__module__.startswith('promax_nb'):
                continue  # inherited from a library
            member = getattr(thing, name, None)
            kind = type(inspect.getattr_static(thing, name)).__name__
            lines.append(f'.{name}{_signature(member)}' if callable(member) else f'.{name}: {kind}')
    return '\n'.join(lines)


def signatures() -> dict:
    """Every public name, of whatever room, with its signature (each different one of a name that several have)."""
    everything, found = importlib.import_module('promax_nb.all'), {}
    short = [name for name in vars(everything) if not name.startswith('_')]
    for module, names in [('promax_nb.all', short), *rooms().items()]:
        for name in names:
            thing = getattr(importlib.import_module(module), name)
            if not inspect.ismodule(thing):
                found.setdefault(name, set()).add(described(thing))
    return {name: '\n\n'.join(sorted(texts)) for name, texts in sorted(found.items())}


PARTS = {'demo': demo, 'bases': bases, 'lettingo': lettingo, 'help': help_texts, 'signatures': signatures}
WORDS = ('help', 'signatures')


# ---- keeping and comparing

def about() -> dict:
    """What decides the last digit: versions of what computes, and what the processor can do."""
    import torch
    info = Path('/proc/cpuinfo')
    lines = set(info.read_text(errors='replace').split('\n')) if info.exists() else set()
    known = [x for x in lines if x.startswith(('vendor_id', 'cpu family', 'model\t', 'flags', 'Features'))]
    processor = sha(' '.join(sorted(known or [platform.machine(), platform.processor()])))
    packages = ('numpy', 'scipy', 'pandas', 'torch', 'scikit-learn', 'sentence-transformers', 'transformers', 'trl')
    return {'python': '.'.join(platform.python_version_tuple()[:2]), **{name: version(name) for name in packages},
            'processor': f'{torch.backends.cpu.get_cpu_capability()} {processor}', 'operations': operations()}


def operations() -> str:
    """What torch itself makes of fixed numbers: libraries below it choose by more than a processor tells of itself."""
    import torch
    draws = torch.Generator().manual_seed(0)
    table = torch.randn(150, 16, generator=draws).requires_grad_()
    optimiser = torch.optim.Adam([table], lr=1e-2, fused=True)
    rows = torch.randint(150, (512,), generator=draws)
    with warnings.catch_warnings(action='ignore'):  # of torch: such matrices are beta
        square = torch.randn(150, 150, generator=draws).to_sparse_csr()
    for _ in range(3):
        optimiser.zero_grad()
        scores = table[rows] @ table.T
        near = torch.nn.functional.normalize(square @ table)[rows]
        loss = torch.log_softmax(scores / 0.2, 1).mean()
        loss = loss - torch.nn.functional.logsigmoid((near * table[rows]).sum(1)).mean()
        (loss + 1e-3 * table.square().sum()).backward()
        optimiser.step()
    return sha(table.detach().numpy().tobytes())


def computed(parts) -> dict:
    """These parts, each in a process of its own where there are several."""
    if len(parts) == 1:
        import torch
        torch.set_num_threads(1)
        return {'about': about(), 'parts': {name: PARTS[name]() for name in parts}}
    out = {'parts': {}}
    with tempfile.TemporaryDirectory() as temp:
        for name in parts:
            file = Path(temp) / f'{name}.json'
            subprocess.run([sys.executable, __file__, '--only', name, '--write', str(file)], check=True, cwd=ROOT)
            one = json.loads(file.read_text(encoding='utf-8'))
            out['about'] = one['about']
            out['parts'][name] = one['parts'][name]
    return out


def close(before, after) -> bool:
    """Nearly equal: what may be asked on another processor, or with other versions of what computes."""
    if isinstance(before, float) and isinstance(after, (int, float)):
        return math.isclose(before, after, rel_tol=.02, abs_tol=.02)
    return True  # hashes and counts that follow from the last digit


def differing(before: dict, after: dict, exactly: bool = True) -> list:
    """(part, entry, before, after) of what is not equal, for the parts that `after` has."""
    rows = []
    for part, entries in after['parts'].items():
        old = before['parts'].get(part, {})
        for name in dict.fromkeys([*old, *entries]):
            x, y = old.get(name, 'absent'), entries.get(name, 'absent')
            if exactly or part in WORDS:
                same = x == y and type(x) is type(y)
            else:
                same = 'absent' not in (x, y) and close(x, y)
            if not same:
                rows.append((part, name, x, y))
    return rows


def comparison(before: dict, after: dict) -> str:
    """A table in Markdown: every number; of texts and signatures those that differ."""
    def cell(x):
        text = ' '.join(str(x).split()).replace('|', '\\|')
        return text if len(text) <= 60 else f'{text[:40]}... ({sha(str(x))})'
    changed = {(part, name) for part, name, _, _ in differing(before, after)}
    lines = ['| part | entry | before | after | equal bitwise |', '|---|---|---|---|---|']
    for part, entries in after['parts'].items():
        old = before['parts'].get(part, {})
        names = list(dict.fromkeys([*old, *entries]))
        shown = [n for n in names if part not in WORDS or (part, n) in changed]
        for name in shown:
            sides = ' | '.join(cell(x.get(name, 'absent')) for x in (old, entries))
            lines.append(f"| {part} | {name} | {sides} | {'no' if (part, name) in changed else 'yes'} |")
        if part in WORDS:
            lines.append(f'| {part} | {len(names) - len(shown)} further entries | | | yes |')
    return '\n'.join(lines)


def together(before: dict, after: dict) -> dict:
    """New parts in the place of old ones. Words tell nothing of a processor, and numbers of two are not mixed."""
    both = before['parts'] | after['parts']
    about, old = after['about'], before.get('about')
    if old and set(after['parts']) <= set(WORDS):
        about = old | {'python': about['python']}
    elif old and old != about and set(before['parts']) - set(WORDS) - set(after['parts']):
        raise SystemExit('the other numbers were computed elsewhere: write all parts (leave --only out), or none.')
    return {'about': about, 'parts': {name: both[name] for name in PARTS if name in both}}


def settle():
    """One thread and no network, before anything that computes is imported."""
    os.environ |= dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
    os.environ |= {'HF_HUB_OFFLINE': '1', 'TOKENIZERS_PARALLELISM': 'false'}


def main() -> int:
    parser = argparse.ArgumentParser('frozen.py', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', type=lambda text: text.split(','), default=list(PARTS), metavar='PART,PART',
                        help=', '.join(PARTS))
    parser.add_argument('--write', nargs='?', const=str(FROZEN), metavar='FILE',
                        help='keep what is computed (default: tests/frozen.json)')
    parser.add_argument('--compare', nargs=2, metavar=('OLD', 'NEW'),
                        help='print a table of two files; computes nothing')
    args = parser.parse_args()
    if args.compare:
        print(comparison(*(json.loads(Path(f).read_text(encoding='utf-8')) for f in args.compare)))
        return 0
    odd = [name for name in args.only if name not in PARTS]
    if odd:
        parser.error(f'there is no part {odd[0]!r}: use some of {", ".join(PARTS)}')
    settle()
    after = computed(args.only)
    file = Path(args.write or FROZEN)
    before = json.loads(file.read_text(encoding='utf-8')) if file.exists() else {'parts': {}}
    if args.write:
        kept = together(before, after)
        file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
        return 0
    rows = differing(before, after)
    for part, name, x, y in rows:
        print(f'{part}: {name}\n  before: {x}\n  after:  {y}')
    was, now = before.get('about', {}), after['about']
    other = {k: (v, now.get(k)) for k, v in was.items() if now.get(k) != v}
    if rows and other:
        print(f'The last digits may differ because of: {other}')
    print(f"{sum(map(len, after['parts'].values())):,} entries, {len(rows)} differ from {file.name}")
    return 1 if rows else 0


if __name__ == '__main__':
    sys.exit(main())
