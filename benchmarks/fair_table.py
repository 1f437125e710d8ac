"""The table of `fair.py`: trainings, closed forms and what validation recommends, with intervals. See there."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
from controls import METRICS, mean_texts, vectors_of
from fair import CONTENDERS, best_rivals, cells_of, chosen, kept_arrays, methods_of, prepared, read, seeds_of, trials_of

from promax_nb.data.storage import write_json
from promax_nb.methods import cheap_methods, recommended, with_trainings
from promax_nb.models.evaluate import user_metrics
from promax_nb.models.inference import claimed, contrast, contrast_groups, groups_by_count, holm
from promax_nb.models.reshape import knows

NAMES = {'base': 'LightGCN', 'ProMax': 'LightGCN + ProMax'}


def seeds_there(cell, method: str, options) -> list:
    """The files of the trainings of a method that were tested, without their ending."""
    settings = chosen(cell, method, options)
    jobs = [] if settings is None else seeds_of(cell, method, settings, options)
    return [path.with_suffix('') for job in jobs if (path := job.path(options.work)).is_file()]


def tables_of(files: list) -> list:
    """Per-user metrics of each training."""
    found = []
    for file in files:
        arrays = kept_arrays(file.with_suffix('.npz'), None)
        found.append(pd.DataFrame({metric: arrays[metric] for metric in METRICS}, index=arrays['users']))
    return found


def lines_of(cell, options) -> dict | None:
    """Closed forms and trainings, each with and without texts, the gate, and what validation chose; made once."""
    files = {method: seeds_there(cell, method, options) for method in NAMES}
    files = {method: found for method, found in files.items() if len(found) == cell.seeds}
    if 'base' not in files:
        return None
    path = options.work / cell.name / f"lines{'' if 'ProMax' in files else '-base'}.json"
    if not path.is_file():
        trained = {}
        for method, found in files.items():
            arrays = [kept_arrays(file.with_suffix('.npz'), None) for file in found]
            trained[NAMES[method]] = [tuple(one[side] for side in 'ui') for one in arrays]
        data, su, si, _ = prepared(cell.data, cell.split, cell.dim, options.root, options.work)
        writer, alone = None, cheap_methods(data) if su is None else None  # without texts there is no gate
        if su is not None:
            users, items, writer = vectors_of(data, options.work / f'{cell.data}.db')
            users = mean_texts(data, items) if users is None else users
            alone = cheap_methods(data, (users, items), (su, si))
        found = with_trainings(alone, data, trained)
        facts = {
            'recommended': recommended(found.methods),
            'gate': None if found.gate is None else found.gate.facts(),
            'writer': writer,
            'told': found.told,
            'test_first_read': datetime.now(UTC).isoformat(timespec='seconds'),
            'methods': {},
        }
        arrays = {}
        for number, method in enumerate(found.methods):
            tested = user_metrics(method.runs, data, 'test', (20,), 'train+valid', method.name)
            facts['methods'][method.name] = {
                'settings': method.settings,
                'valid ndcg@20': float(method.valid.mean()),
                'texts': method.texts,
                'by chance': method.by_chance,
                'seconds': round(method.seconds, 2),
            }
            arrays['users'] = tested[0].index.to_numpy(np.int32)
            for metric in METRICS:
                arrays[f'{number} {metric}'] = np.stack([table[metric] for table in tested]).astype(np.float32)
        kept_arrays(path.with_suffix('.npz'), lambda: arrays)
        write_json(path, facts)
    facts, arrays = read(path), kept_arrays(path.with_suffix('.npz'), None)
    for number, entry in enumerate(facts['methods'].values()):
        runs = zip(*(arrays[f'{number} {metric}'] for metric in METRICS), strict=True)
        entry['tables'] = [pd.DataFrame(dict(zip(METRICS, run, strict=True)), index=arrays['users']) for run in runs]
    return facts


def beside(rows: dict, first: str, fixed: set) -> dict:
    """Every row against one of them: difference, interval, share of the first, p after Holm over the rows."""
    found = {name: {} for name in rows}
    for metric in METRICS:
        tables = {}
        for name, ours in rows.items():
            if name == first:
                continue
            sides = [[table[[metric]] for table in side] for side in (rows[first], ours)]
            without_chance = [side for side, one in (('base', first), ('ours', name)) if one in fixed]
            tables[name] = contrast(*sides, fixed=without_chance).iloc[0]
        if not tables:
            continue
        table = pd.DataFrame(tables).T.astype(float)
        low, high = claimed(table)
        known = table.method_p.notna().any()
        for name, p in zip(table.index, holm(table.method_p if known else table.p), strict=True):
            row = table.loc[name]
            numbers = row.difference, low[name], high[name], row.difference / row.base
            p = 1.0 if np.isnan(p) else p  # one training says nothing about a method
            found[name][metric] = dict(
                zip(('difference', 'low', 'high', 'relative', 'holm'), map(float, (*numbers, p)), strict=True)
            )
    return {name: one for name, one in found.items() if one}


def knowledge(cell, options) -> np.ndarray:
    """What the texts of everybody's other items know of each item they have, from 0 to 1 (.5: chance)."""

    def make():
        data, *_ = prepared(cell.data, cell.split, cell.dim, options.root, options.work)
        return {'knows': knows(data.train, vectors_of(data, options.work / f'{cell.data}.db')[1])}

    return kept_arrays(options.work / 'prepared' / f'knows-{cell.data}-{cell.split}.npz', make)['knows']


def groups_of(cell, users, options) -> dict:
    """Users by how many items they train on, and by what texts know of them: kind -> name of a group -> who."""
    data, *_ = prepared(cell.data, cell.split, cell.dim, options.root, options.work)
    known = knowledge(cell, options)[users]
    cuts = np.nanquantile(known, [1 / 3, 2 / 3])
    thirds = [known < cuts[0], (known >= cuts[0]) & (known < cuts[1]), known >= cuts[1]]
    told = {f'{np.nanmean(known[inside]):.2f}': inside for inside in thirds if inside.any()}
    return {'training items': groups_by_count(np.diff(data.train.indptr)[users]), 'texts know': told}


def for_whom(cell, rows: dict, fixed: set, best: str, line: str, options) -> list:
    """Comparisons that matter within groups of users: each a row, Holm over the groups of a kind."""
    pairs = [('base', 'ProMax'), ('base', 'LightGCN + texts'), ('base', best), ('ProMax', best), ('EASE', best)]
    pairs.append((line, f'{line} + texts'))
    found, groups = [], groups_of(cell, next(iter(rows.values()))[0].index.to_numpy(), options)
    for first, name in dict.fromkeys(pair for pair in pairs if pair[0] != pair[1] and set(pair) <= set(rows)):
        without_chance = [side for side, one in (('base', first), ('ours', name)) if one in fixed]
        for kind, inside in groups.items():
            for metric in METRICS:
                sides = ([table[[metric]] for table in rows[side]] for side in (first, name))
                table = contrast_groups(*sides, inside, fixed=without_chance)
                low, high = claimed(table)
                p = table['holm'] if table.method_p.notna().any() else holm(table.p)
                for number, row in table.iterrows():
                    one = {'first': first, 'method': name, 'by': kind, 'group': row['group'], 'users': row['users']}
                    one |= {'metric': metric, 'base': row.base, 'difference': row.difference}
                    found.append(one | {'low': low[number], 'high': high[number], 'holm': float(p[number])})
    return found


def facts_of(cell, options) -> dict:
    """What the data are like: events a user trains on, and words of an item's text."""
    data, *_ = prepared(cell.data, cell.split, cell.dim, options.root, options.work)
    words = {}
    if 'text' in data.items:
        words = {'words of an item': float(data.items.text.fillna('').astype(str).str.split().str.len().mean())}
    events = {'events a user': data.train.nnz / data.train.shape[0]}
    return {'users': data.train.shape[0], 'items': data.train.shape[1]} | events | words


def cell_of(cell, options) -> dict:
    """All that is known of a cell."""
    rows, entries, fixed = {}, {}, set()
    for method in methods_of(cell, options):
        files = seeds_there(cell, method, options)
        if not files:
            continue
        rows[method] = tables_of(files)
        kept = [read(file.with_suffix('.json')) for file in files]
        own = cell.settings_of or cell
        trials = trials_of(own, method, {} if method == 'base' else chosen(own, 'base', options), options)
        tried = [read(path) for job in trials if (path := job.path(options.work)).is_file()]
        entries[method] = {
            'settings': kept[0]['settings'],
            'published': CONTENDERS[method].published,
            'tried': [{'settings': one['settings'], 'valid recall@20': one['valid recall@20']} for one in tried],
            'cpu_seconds': [one['cpu_seconds'] for one in kept],
            'device': [one['device'] for one in kept],
            'valid recall@20': [one['valid recall@20'] for one in kept],
            'best_epoch': [one['best_epoch'] for one in kept],
            'test_first_read': min(one['test_first_read'] for one in kept),
            'train masked': {metric: [one['test, train masked'][metric] for one in kept] for metric in METRICS},
        }
    lines = lines_of(cell, options) if 'base' in rows and cell.base == 'LightGCN' else None
    for name, entry in (lines or {'methods': {}})['methods'].items():
        if name in NAMES.values():
            continue
        rows[name] = entry.pop('tables')
        if not entry['by chance']:
            fixed.add(name)
        entries[name] = entry
    for name, tables in rows.items():
        for metric in METRICS:
            entries[name][metric] = [float(table[metric].mean()) for table in tables]
    if not rows:
        return {'methods': {}}
    found = {'methods': entries, 'tested users': len(next(iter(rows.values()))[0]), 'data': facts_of(cell, options)}
    if 'base' in rows:
        found['against base'] = beside(rows, 'base', fixed)
    if 'ProMax' in rows:
        found['against ProMax'] = beside(rows, 'ProMax', fixed)
    if lines is not None:
        found |= {name: lines[name] for name in ('recommended', 'gate', 'writer', 'told')}
        best = lines['recommended']['method']
        best = {theirs: ours for ours, theirs in NAMES.items()}.get(best, best)
        if lines['gate'] is not None:
            found['for whom'] = for_whom(cell, rows, fixed, best, lines['gate']['line'], options)
        found['against recommended'] = beside(rows, best, fixed)
    if cell.settings_of is None and cell.data != 'amazon-book':
        found['best rivals'] = best_rivals(cell, options)
    return found


def with_kept(cell: dict, before: dict):
    """Rows of an earlier table that were trained elsewhere stay, as they stood beside the same base."""
    base, theirs = (table['methods'].get('base', {}).get('settings') for table in (cell, before))
    for method, entry in before['methods'].items() if base == theirs else ():
        if method in cell['methods']:
            continue
        cell['methods'][method] = entry | {'kept': True}
        for side in ('against base', 'against ProMax'):
            if method in before.get(side, {}) and side in cell:
                cell[side][method] = before[side][method]


def collected(options, before: dict) -> dict:
    """Cell -> rows and comparisons, of everything that is there, and what an earlier table knows beside it."""
    found = {cell.name: cell_of(cell, options) for cell in cells_of(options)}
    for name, cell in found.items():
        if cell['methods'] and name in before:
            with_kept(cell, before[name])
    for name, cell in found.items():
        print(name)
        for method, entry in sorted(cell['methods'].items(), key=lambda row: -np.mean(row[1]['ndcg@20'])):
            numbers = [f'{np.mean(entry[metric]):.4f}' for metric in METRICS]
            difference = cell.get('against base', {}).get(method, {}).get('ndcg@20')
            told = '' if difference is None else '{low:+.4f} {high:+.4f} holm {holm:.3f}'.format(**difference)
            print(f'  {method:<42} {" ".join(numbers)}  {told}')
    return {name: cell for name, cell in found.items() if cell['methods']}
