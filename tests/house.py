"""How readable is the house? Length, density, chains, long lines, class depth, names and walls of every room.

    python tests/house.py [promax_nb] [--json]

A room is a module. A line of code is one that is neither blank, nor a comment alone, nor part of a docstring.
Density is the number of expression nodes (`ast.expr`, docstrings aside) to a line of code.
"""
import argparse
import ast
import importlib
import io
import json
import re
import sys
import tokenize
from dataclasses import asdict, dataclass, field
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
PRIVATE = re.compile(r'_[^_]\w*$')
MAX_LINE = 120
DENSEST = 3  # functions named for each room
SHORTEST = 4  # lines of code of a function whose density is told


@dataclass
class Room:
    """What is measured of one module."""
    name: str  # below the package, with dots
    lines: int = 0
    code_lines: int = 0
    nodes: int = 0  # expression nodes
    density: float = 0.0  # nodes to a line of code
    densest: list = field(default_factory=list)  # (function, density, lines of code), the densest first
    chains: int = 0  # statements behind a `;`
    one_line_bodies: int = 0  # `if x: y`, `def f(): return`
    long_lines: int = 0
    crowded_lines: int = 0  # lines with two comprehensions or more
    private_imports: list = field(default_factory=list)  # private names of other rooms, imported or through a module
    private_attributes: list = field(default_factory=list)  # `x._name` where only another room defines `_name`
    longest_function: tuple = ('', 0)  # (function, lines of code)


def docstrings(tree: ast.AST) -> list:
    """The docstring expressions of a module, its classes and functions."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, DOCUMENTED) or not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            found.append(first.value)
    return found


def code_lines(text: str, tree: ast.AST) -> set:
    """Numbers of the lines that hold code."""
    lines = text.splitlines()
    starts = {(doc.lineno, len(lines[doc.lineno - 1].encode()[:doc.col_offset].decode())) for doc in docstrings(tree)}
    numbers = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in NO_CODE or token.start in starts:
            continue
        numbers.update(range(token.start[0], token.end[0] + 1))
    return {number for number in numbers if lines[number - 1].strip()}


def expression_nodes(tree: ast.AST, docs: set) -> int:
    """Expression nodes below `tree`; `docs` holds the ids of docstrings, which do not count."""
    return sum(isinstance(node, ast.expr) and id(node) not in docs for node in ast.walk(tree))


def functions(tree: ast.AST, prefix: str = ''):
    """(qualified name, node) of every function and method, nested ones too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
            name = prefix + node.name
            if isinstance(node, FUNCTIONS):
                yield name, node
            yield from functions(node, name + '.')
        else:
            yield from functions(node, prefix)


def shared_lines(text: str, tree: ast.AST) -> tuple:
    """How many statements follow another on its line (`;`), and how many bodies begin on their header's line."""
    lines = [line.encode() for line in text.splitlines()]
    chains = one_line_bodies = 0
    for node in ast.walk(tree):
        for block in ('body', 'orelse', 'finalbody'):
            statements = getattr(node, block, None)
            if not isinstance(statements, list):  # a lambda's body and an `x if y else z` are expressions
                continue
            for place, statement in enumerate(statements):
                before = lines[statement.lineno - 1][:statement.col_offset].strip()
                if before and place:
                    chains += 1
                elif before:
                    one_line_bodies += 1
    return chains, one_line_bodies


def crowded(tree: ast.AST) -> int:
    """Lines on which two comprehensions or more begin."""
    starts = [node.lineno for node in ast.walk(tree) if isinstance(node, COMPREHENSIONS)]
    return sum(starts.count(line) > 1 for line in set(starts))


def own_names(tree: ast.AST) -> set:
    """Names that a room defines itself: functions, classes, variables, attributes, fields, arguments."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    return names


def imported_modules(tree: ast.AST, package: str, rooms: set) -> tuple:
    """(local names that stand for a room of the package, private names imported from one)."""
    modules, private = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            ours = [alias for alias in node.names if alias.name.split('.')[0] == package]
            modules.update(alias.asname or alias.name for alias in ours)
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or '').split('.')[0] == package):
            for alias in node.names:
                if PRIVATE.match(alias.name):
                    private.append(f'{node.module or "."}.{alias.name}')
                if alias.name in rooms:
                    modules.add(alias.asname or alias.name)
    return modules, private


def through_modules(tree: ast.AST, modules: set) -> list:
    """Private names reached through an imported room: `room._name`."""
    private = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and PRIVATE.match(node.attr)]
    return [ast.unparse(node) for node in private if ast.unparse(node.value) in modules]


def foreign_attributes(tree: ast.AST, elsewhere: set) -> list:
    """`x._name` where this room does not define `_name` and another room does."""
    missing = elsewhere - own_names(tree)
    private = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and PRIVATE.match(node.attr)]
    return sorted({ast.unparse(node)[:60] for node in private if node.attr in missing})


def measure_room(name: str, text: str, package: str, rooms: set, elsewhere: set) -> Room:
    """Measure one module from its text."""
    tree = ast.parse(text)
    docs = {id(doc) for doc in docstrings(tree)}
    numbers = code_lines(text, tree)
    sizes = []
    for function, node in functions(tree):
        length = sum(node.lineno <= number <= node.end_lineno for number in numbers)
        sizes.append((function, expression_nodes(node, docs) / max(length, 1), length))
    room = Room(name, lines=len(text.splitlines()), code_lines=len(numbers), nodes=expression_nodes(tree, docs))
    room.density = round(room.nodes / room.code_lines, 2) if numbers else 0.0
    long_enough = [(function, round(density, 1), length) for function, density, length in sizes if length >= SHORTEST]
    room.densest = sorted(long_enough, key=lambda size: -size[1])[:DENSEST]
    lengths = [(function, length) for function, _, length in sizes]
    room.longest_function = max(lengths, key=lambda size: size[1], default=('', 0))
    room.chains, room.one_line_bodies = shared_lines(text, tree)
    room.long_lines = sum(len(line) > MAX_LINE for line in text.splitlines())
    room.crowded_lines = crowded(tree)
    modules, private = imported_modules(tree, package, rooms)
    room.private_imports = private + through_modules(tree, modules)
    room.private_attributes = foreign_attributes(tree, elsewhere)
    return room


def measure_rooms(folder: Path) -> list:
    """A Room for every module below `folder`, nbdev's index aside."""
    paths = sorted(path for path in folder.rglob('*.py') if path.name != '_modidx.py')
    texts, private, names = {}, {}, set()
    for path in paths:
        parts = path.relative_to(folder).with_suffix('').parts
        name = '.'.join(parts)
        names.update(parts)
        texts[name] = path.read_text(encoding='utf-8')
        private[name] = {own for own in own_names(ast.parse(texts[name])) if PRIVATE.match(own)}
    rooms = []
    for name, text in texts.items():
        elsewhere = set().union(*(found for other, found in private.items() if other != name))
        rooms.append(measure_room(name, text, folder.name, names, elsewhere))
    return rooms


def widget_depths(package: str, rooms: list) -> dict:
    """Own classes on the way from a widget class to ipywidgets (itself counted): {room.class: number}."""
    import ipywidgets
    depths = {}
    for room in rooms:
        if room.name.split('.')[-1] in ('__init__', '__main__'):
            continue
        module = importlib.import_module(f'{package}.{room.name}')
        for name, cls in vars(module).items():
            if isinstance(cls, type) and issubclass(cls, ipywidgets.Widget) and cls.__module__ == module.__name__:
                depths[f'{room.name}.{name}'] = sum(c.__module__.split('.')[0] == package for c in cls.__mro__)
    return depths


def names_in_all(package: str) -> int:
    """How many names `from package.all import *` brings."""
    front = importlib.import_module(f'{package}.all')
    return len(getattr(front, '__all__', None) or [name for name in vars(front) if not name.startswith('_')])


def measure(folder: Path) -> dict:
    """Everything measured of the package in `folder`."""
    sys.path.insert(0, str(folder.resolve().parent))
    rooms = measure_rooms(folder)
    depths = widget_depths(folder.name, rooms)
    code = sum(room.code_lines for room in rooms)
    longest = max(rooms, key=lambda room: room.lines)
    densest = max(rooms, key=lambda room: room.density)
    functions_ = [(f'{room.name}.{name}', density, length) for room in rooms for name, density, length in room.densest]
    lengths = [(f'{room.name}.{room.longest_function[0]}', room.longest_function[1]) for room in rooms]
    summary = {
        'rooms': len(rooms),
        'lines': sum(room.lines for room in rooms),
        'code_lines': code,
        'density': round(sum(room.nodes for room in rooms) / code, 2),
        'longest_room': (longest.name, longest.lines),
        'densest_room': (densest.name, densest.density),
        'densest_functions': sorted(functions_, key=lambda f: -f[1])[:DENSEST],
        'longest_function': max(lengths, key=lambda length: length[1]),
        'chains': sum(room.chains for room in rooms),
        'one_line_bodies': sum(room.one_line_bodies for room in rooms),
        'long_lines': sum(room.long_lines for room in rooms),
        'crowded_lines': sum(room.crowded_lines for room in rooms),
        'private_imports': sum(len(room.private_imports) for room in rooms),
        'private_attributes': sum(len(room.private_attributes) for room in rooms),
        'widget_depth': max(depths.values(), default=0),
        'names_in_all': names_in_all(folder.name),
    }
    return {'rooms': [asdict(room) for room in rooms], 'widget_depths': depths, 'summary': summary}


COLUMNS = ('lines', 'code_lines', 'density', 'chains', 'one_line_bodies', 'long_lines', 'crowded_lines')
HEADS = ('room', 'lines', 'code', 'nodes/line', ';', 'E701', f'>{MAX_LINE}', '2+ comp.', 'private')


def row(name: str, measured: dict, private: int, densest: str = '') -> list:
    """One room's cells."""
    return [name, *(measured[column] for column in COLUMNS), private, densest]


def aligned(rows: list) -> list:
    """Rows of cells as lines: the first and the last cell to the left, the numbers between to the right."""
    width = max(len(cells[0]) for cells in rows)
    lines = []
    for name, *numbers, last in rows:
        middle = ''.join(f'{number:>11}' for number in numbers)
        lines.append(f'{name:<{width}}{middle}  {last}'.rstrip())
    return lines


def crossings(rooms: list) -> list:
    """A sentence for every room that uses what is private to another."""
    sentences = []
    for room in rooms:
        if room['private_imports']:
            sentences.append(f'{room["name"]} uses private names of other rooms: {", ".join(room["private_imports"])}')
        if room['private_attributes']:
            names = ', '.join(room['private_attributes'])
            sentences.append(f'{room["name"]} reaches for private attributes of other rooms: {names}')
    return sentences


def table(found: dict) -> str:
    """The measurements as text."""
    total = found['summary']
    rows = [[*HEADS, 'densest functions']]
    for room in found['rooms']:
        private = len(room['private_imports']) + len(room['private_attributes'])
        densest = ', '.join(f'{name} {density}' for name, density, _ in room['densest'])
        rows.append(row(room['name'], room, private, densest))
    rows.append(row('TOTAL', total, total['private_imports'] + total['private_attributes']))
    depths = sorted(found['widget_depths'].items(), key=lambda depth: -depth[1])
    widgets = ', '.join(f'{name} {depth}' for name, depth in depths)
    densest = ', '.join(f'{name} {density}' for name, density, _ in total['densest_functions'])
    return '\n'.join([
        *aligned(rows), '',
        *crossings(found['rooms']), '',
        f'Own classes from a widget up to ipywidgets (itself counted): {widgets}', '',
        f'rooms                {total["rooms"]}',
        f'longest room         {total["longest_room"][0]}, {total["longest_room"][1]} lines',
        f'densest room         {total["densest_room"][0]}, {total["densest_room"][1]} nodes a line',
        f'densest functions    {densest}',
        f'longest function     {total["longest_function"][0]}, {total["longest_function"][1]} lines of code',
        f'deepest widget       {total["widget_depth"]} classes',
        f'names in all         {total["names_in_all"]}',
        f'across the walls     {total["private_imports"]} private names, {total["private_attributes"]} attributes',
    ])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', nargs='?', default=Path(__file__).resolve().parent.parent / 'promax_nb', type=Path)
    parser.add_argument('--json', action='store_true', help='everything, for programs')
    options = parser.parse_args()
    found = measure(options.folder)
    print(json.dumps(found, indent=1) if options.json else table(found))
    return 0


if __name__ == '__main__':
    sys.exit(main())
