"""The site, from the notebooks: python docs/make_site.py [--out _docs] [--offline] [--execute [PAGE ...]
[--keep-figures]]

With quarto on PATH, Quarto renders it; without, Sphinx, MyST-NB and Furo do, from the same processed notebooks, with
the same navigation (_quarto.yml).
Pages made by Sphinx ask nothing of the network when they are read: plotly.js and MathJax lie beside them.
"""

import argparse
import base64
import functools
import gzip
import hashlib
import html
import importlib.util
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
PLOTLY, PNG = 'application/vnd.plotly.v1+json', 'image/png'
LIVE = (
    'application/vnd.jupyter.widget-view+json',
    'application/javascript',
    'text/markdown',
    'text/latex',
)  # never shown as they are


# what there is
# ----------------------------------------------------------------------------------------------------------


def navigation(root: Path = ROOT) -> dict:
    """{section: {page: its name in the navigation or None}} as _quarto.yml has it; pages outside of sections are in
    section ''."""
    sidebar = yaml.safe_load((root / '_quarto.yml').read_text(encoding='utf-8'))['website']['sidebar']
    found = {'': {}}

    def entry(e):
        return (e, None) if isinstance(e, str) else (e['href'], e.get('text'))

    for e in sidebar['contents']:
        if isinstance(e, dict) and 'section' in e:
            found[e['section']] = dict(map(entry, e['contents']))
        else:
            found[''].update([entry(e)])
    return found


def check_navigation(root: Path = ROOT) -> list:
    """Sentences about pages that _quarto.yml names and nobody wrote, and about notebooks that no reader could find."""
    named = [p for pages in navigation(root).values() for p in pages]
    there = {
        p.relative_to(root / 'nbs').as_posix()
        for p in (root / 'nbs').rglob('*.ipynb')
        if not any(x[0] in '._' for x in p.relative_to(root).parts)
    }
    return (
        [
            f'_quarto.yml names {p}, and there is no nbs/{p}: write it, or take the line out.'
            for p in named
            if p not in there
        ]
        + [
            f'nbs/{p} is in no section of _quarto.yml: name it there, or no reader will find it.'
            for p in sorted(there - set(named))
        ]
        + [f'_quarto.yml names {p} twice.' for p in sorted({p for p in named if named.count(p) > 1})]
    )


def read(path: Path):
    """A notebook; nbdev leaves marks in its cells that the format does not know."""
    nb = json.loads(path.read_text(encoding='utf-8'))
    known = {'id', 'cell_type', 'metadata', 'source', 'outputs', 'execution_count', 'attachments'}
    nb['cells'] = [{k: v for k, v in c.items() if k in known} for c in nb['cells']]
    return nbformat.reads(json.dumps(nb), 4)


# the notebooks, processed
# -----------------------------------------------------------------------------------------------


def _documenter():
    """nbdev's processor for signatures, without running the notebook: what `show_doc` needs is in the installed
    module already.

    (nbdev's own runs every cell that imports something, and so also what stands beside the import.)
    """
    from nbdev.process import Processor
    from nbdev.processors import _default_exp

    class exec_show_docs(Processor):
        def begin(self):
            name = _default_exp(self.nb)
            self.module = name and importlib.import_module(f'promax_nb.{name}')

        def __call__(self, cell):
            shown = re.search(r'^show_doc\((\w+)\)', cell.source or '', re.M) if cell.cell_type == 'code' else None
            if not shown:
                return
            thing = getattr(self.module, shown[1])
            docs = [described(thing, shown[1], 3)] + [described(m, f'{shown[1]}.{n}', 4) for n, m in methods(thing)]
            cell.outputs = [nbformat.v4.new_output('display_data', {'text/markdown': '\n\n'.join(docs)})]

    return exec_show_docs


def described(thing, name: str, level: int) -> str:
    """What nbdev's `show_doc` says of a function or class; a class is called one, and the source has its line."""
    from nbdev.doclinks import _get_exps
    from nbdev.showdoc import show_doc

    path = thing.__module__.replace('.', '/') + '.py'
    text = (
        show_doc(thing, name=name, title_level=level)._repr_markdown_().replace('#LNone', f'#L{_get_exps(path)[name]}')
    )
    return text.replace('```python\ndef ', '```python\nclass ', 1) if isinstance(thing, type) else text


def methods(thing) -> list:
    """(name, function) of what a class offers beside its constructor, as far as it says what it does."""
    if not isinstance(thing, type):
        return []
    return [
        (n, m)
        for n, m in vars(thing).items()
        if n[0] != '_' and callable(m) and not isinstance(m, type) and getattr(m, '__doc__', None)
    ]


def process(root: Path = ROOT) -> Path:
    """The folder of notebooks as nbdev prepares them for a site, with figures that can be used."""
    problems = check_navigation(root)
    if problems:
        sys.exit('\n'.join(problems))
    os.chdir(root)
    sys.path.insert(0, str(root))
    import nbdev.doclinks
    import nbdev.processors
    from nbdev.serve import proc_nbs

    nbdev.doclinks._get_exps = functools.cache(
        nbdev.doclinks._get_exps
    )  # else it reads a module anew for each of its names
    nbdev.processors.exec_show_docs = _documenter()
    return Path(proc_nbs(n_workers=0, force=True))


def execute(pages: list, proc: Path, keep: bool = False, root: Path = ROOT):
    """Run notebooks and put what comes out into the processed ones; keep: also keep their figures beside the stills
    that the notebooks hold."""
    from nbclient import NotebookClient

    for page in pages:
        nb = nbformat.read(root / 'nbs' / page, 4)
        print(f'running {page} ...', flush=True)
        where = {'metadata': {'path': (root / 'nbs' / page).parent}}
        NotebookClient(nb, timeout=1800, kernel_name='python3', store_widget_state=False, resources=where).execute()
        new = {c.id: c.outputs for c in nb.cells if c.cell_type == 'code'}
        done = read(proc / page)
        for c in done.cells:
            if c.id not in new:
                continue
            figures = [o.data[PLOTLY] for o in new[c.id] if PLOTLY in o.get('data', {})]
            stills = [o.data[PNG] for o in c.outputs if PNG in o.get('data', {})]
            if keep and len(figures) == len(stills):
                for figure, png in zip(figures, stills, strict=True):
                    keep_figure(figure, png, root)
            c.outputs = new[c.id]
        nbformat.write(done, proc / page)


# figures ------------------------------------------------------------------------------------------------------------


def still_name(png: str) -> str:
    """A figure's data is kept under the name of its still picture, so that the two cannot part."""
    return hashlib.sha256(base64.b64decode(png)).hexdigest()[:20] + '.json.gz'


def keep_figure(figure: dict, png: str, root: Path = ROOT):
    """Keep a plotly figure beside its still (base64), for the site."""
    folder = root / 'docs' / 'figures'
    folder.mkdir(exist_ok=True)
    text = json.dumps({k: figure[k] for k in ('data', 'layout') if k in figure}, sort_keys=True, separators=(',', ':'))
    (folder / still_name(png)).write_bytes(gzip.compress(text.encode(), mtime=0))


def drop_figures(root: Path = ROOT) -> list:
    """Forget figures whose stills are in no notebook any more; returns their names."""
    books = [nbformat.read(p, 4) for p in (root / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts]
    data = [o.get('data', {}) for nb in books for c in nb.cells for o in c.get('outputs', [])]
    stills = {still_name(d[PNG]) for d in data if PNG in d}
    gone = [p for p in (root / 'docs' / 'figures').glob('*.json.gz') if p.name not in stills]
    for p in gone:
        p.unlink()
    return [p.name for p in gone]


def figure_html(figure: dict, png: str | None, up: str, first: bool) -> str:
    """A figure to hover and zoom; its still stands there until the script has drawn it."""
    layout = figure.get('layout', {})
    title = layout.get('title')
    label = re.sub('<[^>]*>', ' ', str((title.get('text') if isinstance(title, dict) else title) or 'figure'))
    data = json.dumps({'data': figure['data'], 'layout': layout}, separators=(',', ':')).replace('<', '\\u003c')
    still = f'<img alt="{html.escape(html.unescape(label))}" src="data:image/png;base64,{png}">' if png else ''
    scripts = (
        f'<script defer src="{up}plotly.min.js"></script><script defer src="{up}figures.js"></script>' if first else ''
    )
    place = f'<div class="promax-figure" style="height:{int(layout.get("height") or 480)}px">{still}</div>'
    return f'{place}<script type="application/json">{data}</script>{scripts}'


def enliven(proc: Path, root: Path = ROOT):
    """Figures of the processed notebooks, stills with kept data and fresh ones, become HTML that draws itself with
    the plotly.js beside the pages."""
    import plotly

    shutil.copy(Path(plotly.__file__).parent / 'package_data' / 'plotly.min.js', proc)
    shutil.copy(root / 'docs' / 'figures.js', proc)
    for path in sorted(proc.rglob('*.ipynb')):
        nb, first = read(path), True
        for c in (
            nb.cells
        ):  # a widget leaves a card and a picture: a page shows only one form of an output, so they become two
            for k, o in reversed(list(enumerate(c.get('outputs', [])))):
                if {'text/html', PNG} <= set(o.get('data', {})):
                    c.outputs.insert(k, nbformat.v4.new_output('display_data', {PNG: o.data.pop(PNG)}))
        for o in [o for c in nb.cells if c.cell_type == 'code' for o in c.outputs if 'data' in o]:
            png = ''.join(o.data.get(PNG, '')).strip()
            kept = root / 'docs' / 'figures' / still_name(png) if png else None
            figure = o.data.get(PLOTLY) or (
                json.loads(gzip.decompress(kept.read_bytes())) if kept and kept.exists() else None
            )
            if figure:
                o.data = {'text/html': figure_html(figure, png, '../' * (len(path.relative_to(proc).parts) - 1), first)}
                first = False
        nbformat.write(nb, path)


# the front page
# ------------------------------------------------------------------------------------------------------------

PICTURE = re.compile(r'<picture>.*?</picture>', re.S)
LIVE_MAP = 'bookshop.html'


def enliven_front(proc: Path):
    """The picture of the map becomes a frame that shows it until somebody clicks, and then the map itself."""
    path = proc / 'index.ipynb'
    nb = read(path)
    for c in nb.cells:
        if c.cell_type == 'markdown':
            c.source = PICTURE.sub(framed, c.source)
    nbformat.write(nb, path)


def framed(picture: re.Match) -> str:
    """A frame around a still picture, which leads to the live map."""
    still = re.sub(r'\s+', ' ', picture[0]).replace('<img ', '<img style="width:100%" ')
    style = (
        'body{margin:0;position:relative;font:16px sans-serif}a{display:block;color:#fff}'
        'b{position:absolute;inset:42% 0 auto;margin:auto;width:12em;padding:.7em;border-radius:2em;'
        'background:#0072b2;text-align:center}'
    )
    poster = f'<style>{style}</style><a href="{LIVE_MAP}#map">{still}<b>▶ open the live map</b></a>'
    return (
        f'<iframe class="live-map" title="Map of the bookshop" srcdoc="{html.escape(poster)}" '
        'style="width:100%;aspect-ratio:1280/826;border:0"></iframe>'
    )


def with_live_map(out: Path, page: Path | None, root: Path = ROOT):
    """The map itself beside the front page, `page` or that of a demo run now, and the pictures of it."""
    shutil.copytree(root / 'docs' / 'pictures', out / 'docs' / 'pictures', dirs_exist_ok=True)
    if page is not None:
        shutil.copy(page, out / LIVE_MAP)
        return
    with tempfile.TemporaryDirectory() as folder:
        for words in (['demo'], ['map', 'demo-run']):
            command = [sys.executable, '-c', 'import sys; from promax_nb.cli import main; sys.exit(main())', *words]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f'promax {" ".join(words)}, for the map on the front page, failed: {done.stderr[-500:]}')
        shutil.copy(Path(folder) / 'demo-run' / 'map.html', out / LIVE_MAP)


# with Quarto
# ------------------------------------------------------------------------------------------------------------


def with_quarto(proc: Path, out: Path):
    done = subprocess.run(['quarto', 'render'], cwd=proc)
    if done.returncode:
        sys.exit(f'quarto render ended with {done.returncode}; its message is above.')
    if not (proc / '_docs').is_dir():
        sys.exit('quarto render made no _docs folder; is output-dir in _quarto.yml still _docs?')
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(proc / '_docs', out)


# without ------------------------------------------------------------------------------------------------------------


def front(nb) -> dict:
    """The front matter that nbdev wrote."""
    raw = next((c.source for c in nb.cells if c.cell_type == 'raw'), '')
    return yaml.safe_load(raw.strip().strip('-')) or {} if raw else {}


def addresses(proc: Path) -> dict:
    """{page: where it is on the site, without .html} - a chapter's page has the name of its module, as with Quarto."""
    found = {}
    for path in sorted(proc.rglob('*.ipynb')):
        page = path.relative_to(proc)
        name = front(read(path)).get('output-file', page.stem + '.html')
        found[page.as_posix()] = page.with_name(name).with_suffix('').as_posix()
    return found


def slug(title: str) -> str:
    """A heading's anchor, as Pandoc makes it."""
    return re.sub(r'\s+', '-', re.sub(r'[^\w\s.-]', '', title.lower()).strip())


def links(text: str, page: str, where: dict, site: str, anchors: dict) -> str:
    """Links to notebooks and to the published site lead to the page beside this one; pictures from elsewhere become
    their words."""
    here = posixpath.dirname(where[page])
    pages = {v: v for v in where.values()}

    def local(m):
        target, _, anchor = m[1].partition('#')
        if target.startswith(site):
            name = pages.get(target[len(site) :].strip('/').removesuffix('.html') or 'index')
        elif re.match(r'\w+:', target) or not target.endswith('.ipynb'):
            return m[0]
        else:
            name = where.get(posixpath.normpath(posixpath.join(posixpath.dirname(page), target)))
        if name is None:
            return m[0]
        return f"]({posixpath.relpath(name, here or '.')}.ipynb{'#' + anchor if anchor in anchors[name] else ''})"

    text = re.sub(r'!\[([^\]]*)\]\(https?:[^)]*\)', r'\1', text)
    return re.sub(r'\]\(([^()\s]+)\)', local, text)


def for_sphinx(nb, page: str, where: dict, site: str, anchors: dict):
    """A notebook in the words of MyST-NB: a title, `echo: false` hidden, signatures as text, no key that the format
    does not know."""
    about = front(nb)
    cells = [nbformat.v4.new_markdown_cell(f"# {about.get('title', page)}\n\n{about.get('description', '')}")]
    for c in nb.cells:
        if c.cell_type == 'markdown' and not c.source.startswith('<!-- WARNING'):
            cells.append(nbformat.v4.new_markdown_cell(c.source))
        if c.cell_type != 'code':
            continue
        if re.search(r'^show_doc\(', c.source, re.M):
            signatures = [signature(''.join(o.data['text/markdown'])) for o in c.outputs]
            if not any(re.search(r'^## ', cell.source, re.M) for cell in cells if cell.cell_type == 'markdown'):
                # under the title itself
                signatures = [re.sub(r'^#(?=##+ )', '', text, flags=re.M) for text in signatures]
            cells += map(nbformat.v4.new_markdown_cell, signatures)
            continue
        hidden = re.search(r'^#\|\s*echo:\s*false', c.source, re.M)
        source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M).strip()
        for o in c.outputs:
            if 'data' in o:
                o.data = {k: v for k, v in o.data.items() if k not in LIVE}
        outputs = [o for o in c.outputs if 'data' not in o or o.data]
        meta = {'tags': ['remove-input'] if hidden else [], 'mystnb': {'image': {'alt': 'what the code above draws'}}}
        if source or outputs:
            cells.append(nbformat.v4.new_code_cell(source, outputs=outputs, metadata=meta))
    for c in cells:
        if c.cell_type == 'markdown':
            c.source = links(c.source, page, where, site, anchors)
    return nbformat.v4.new_notebook(
        cells=cells, metadata={'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}}
    )


def signature(text: str) -> str:
    """`show_doc`'s markdown: name first, then the link to the source and the rest."""
    text = re.sub(r'^---\n+', '', text, flags=re.M)
    return re.sub(r'(\[source\]\([^)]*\))\{[^}]*\}\n\n(#+ [^\n]*)', r'\2\n\n\1{.source}', text)


def headings(nb) -> set:
    """Anchors that a page offers."""
    text = '\n'.join(
        [c.source for c in nb.cells if c.cell_type == 'markdown']
        + [
            ''.join(o.data['text/markdown'])
            for c in nb.cells
            if c.cell_type == 'code'
            for o in c.outputs
            if 'text/markdown' in o.get('data', {})
        ]
    )
    text = re.sub(r'^```.*?^```', '', text, flags=re.M | re.S)
    return {slug(re.sub('`', '', t)) for t in re.findall(r'^#+ (.*)$', text, re.M)}


def toctrees(where: dict, root: Path) -> str:
    """The navigation, as Sphinx wants it: at the end of the front page."""
    blocks = []
    for section, pages in navigation(root).items():
        lines = [f'{text} <{where[p]}>' if text else where[p] for p, text in pages.items() if where[p] != 'index']
        if lines:
            blocks.append(
                '```{toctree}\n:hidden:\n'
                + (f':caption: {section}\n' if section else '')
                + '\n'
                + '\n'.join(lines)
                + '\n```'
            )
    return '\n\n'.join(blocks)


def with_sphinx(proc: Path, out: Path, root: Path = ROOT):
    """The site by Sphinx; a warning is an error, for it means that a reader would see something broken."""
    try:
        mathjax = metadata.distribution('sphinx-mathjax-offline').locate_file(
            'sphinx-mathjax-offline/static/mathjax/tex-svg-full.js'
        )
    except metadata.PackageNotFoundError:
        mathjax = None
    if mathjax is None or any(importlib.util.find_spec(name) is None for name in ('sphinx', 'myst_nb', 'furo')):
        sys.exit(
            "without Quarto the site needs Sphinx, MyST-NB, Furo and sphinx-mathjax-offline: make "
                "install, or pip install 'promax_nb[dev]'."
        )
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    stage = root / '.cache' / 'docs'
    shutil.rmtree(stage, ignore_errors=True)
    (stage / 'assets').mkdir(parents=True)
    where = addresses(proc)
    books = {page: read(proc / page) for page in where}
    anchors = {where[page]: headings(nb) for page, nb in books.items()}
    site = yaml.safe_load((root / '_quarto.yml').read_text(encoding='utf-8'))['website']['site-url']
    for page, nb in books.items():
        nb = for_sphinx(nb, page, where, site, anchors)
        if where[page] == 'index':
            nb.cells.append(nbformat.v4.new_markdown_cell(toctrees(where, root)))
        path = stage / 'pages' / f'{where[page]}.ipynb'
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, path)
    shutil.copy(mathjax, stage / 'assets' / 'mathjax.js')
    extra = {
        'html_extra_path': [str(proc / 'plotly.min.js'), str(proc / 'figures.js')],
        'html_static_path': [str(root / 'docs' / 'static'), str(stage / 'assets')],
    }
    with patch_docutils(), docutils_namespace():
        app = Sphinx(
            stage / 'pages',
            root / 'docs',
            stage / 'html',
            stage / 'doctrees',
            'html',
            confoverrides=extra,
            status=None,
            warningiserror=True,
        )
        app.build(force_all=True)
    if app.statuscode:
        sys.exit(
            'Sphinx had warnings (above), and a warning here is a page with something broken: mend the '
                'notebook it names.'
        )
    for name in ('.buildinfo', 'objects.inv'):
        (stage / 'html' / name).unlink(missing_ok=True)
    (stage / 'html' / '.nojekyll').touch()
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(stage / 'html', out)


# for language models
# ----------------------------------------------------------------------------------------------------


def llms(proc: Path, out: Path, root: Path = ROOT):
    """llms.txt: every page with one line; llms-full.txt: their text."""
    where, site = addresses(proc), yaml.safe_load((root / '_quarto.yml').read_text(encoding='utf-8'))['website']
    lines, full = [f"# {site['title']}", '', f"> {site['description']}"], []
    for section, pages in navigation(root).items():
        lines += ['', f"## {section or 'Start'}", '']
        for page in pages:
            nb = read(proc / page)
            about = front(nb)
            lines.append(
                f"- [{about.get('title', page)}]({site['site-url']}/{where[page]}.html): {about.get('description', '')}"
            )
            full += [f"# {about.get('title', page)}", about.get('description', ''), *map(plain, nb.cells)]
    (out / 'llms.txt').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    (out / 'llms-full.txt').write_text('\n\n'.join(filter(None, full)) + '\n', encoding='utf-8')


def plain(cell) -> str:
    """A cell as text: prose, code, what it prints."""
    if cell.cell_type == 'markdown':
        return '' if cell.source.startswith('<!-- WARNING') else cell.source
    if cell.cell_type != 'code':
        return ''
    data = [o.get('data', {}) for o in cell.outputs]
    shown = ''.join(o.get('text', '') for o in cell.outputs) + '\n'.join(
        ''.join(d['text/plain']) for d in data if 'text/plain' in d
    )
    if re.search(r'^show_doc\(', cell.source, re.M):
        return '\n'.join(signature(''.join(d.get('text/markdown', ''))).replace('{.source}', '') for d in data)
    return f'```python\n{cell.source}\n```' + (f'\n\n```\n{shown.strip()}\n```' if shown.strip() else '')


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--out', type=Path, default=ROOT / '_docs', help='folder of the site (default: _docs)')
    p.add_argument('--offline', action='store_true', help='build with Sphinx also where Quarto is installed')
    p.add_argument(
        '--execute',
        nargs='*',
        metavar='PAGE',
        help='run these notebooks first (all, when none is named): story.ipynb, lessons/4_maps.ipynb',
    )
    p.add_argument(
        '--keep-figures',
        action='store_true',
        help='keep the figures of these notebooks in docs/figures, for sites built without running them',
    )
    p.add_argument(
        '--map', type=Path, help='the page of a map for the front page (default: the bookshop of the demo, run now)'
    )
    args = p.parse_args(argv)
    out = args.out.resolve()
    proc = process()
    if args.execute is not None:
        execute(args.execute or list(addresses(proc)), proc, args.keep_figures)
    if args.keep_figures:
        drop_figures()
    enliven(proc)
    enliven_front(proc)
    quarto = None if args.offline else shutil.which('quarto')
    (with_quarto if quarto else with_sphinx)(proc, out)
    llms(proc, out)
    with_live_map(out, args.map and args.map.resolve())
    by = 'Quarto' if quarto else 'Sphinx' if args.offline else 'Sphinx (Quarto is not on PATH)'
    print(f"{len(list(out.rglob('*.html')))} pages by {by}: {out / 'index.html'}")


if __name__ == '__main__':
    main()
