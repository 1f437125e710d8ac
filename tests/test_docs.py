"""The site: one navigation, one set of processed notebooks, two builders."""
import json
import os
import re
import sys

import nbformat
import pytest
from built import ROOT, Page, broken, build, copy_tree, hostile_site, site

sys.path.insert(0, str(ROOT / 'docs'))
import make_site  # noqa: E402

STAND_IN = """#!{python}
import json, os, shutil, sys
from pathlib import Path
books = {{str(p.relative_to('.')): json.loads(p.read_text()) for p in Path('.').rglob('*.ipynb')}}
seen = {{'arguments': sys.argv[1:], 'notebooks': books, 'settings': Path('_quarto.yml').read_text(), 'files': [p.name for p in Path('.').iterdir()]}}
with open({log!r}, 'a') as f: f.write(json.dumps(seen) + '\\n')
Path('_docs').mkdir()
(Path('_docs') / 'index.html').write_text('<p>by the stand-in</p>')
"""


def test_the_navigation_is_complete():
    assert make_site.check_navigation() == []
    sections = make_site.navigation()
    assert [*sections] == ['', 'Learn', 'How to', 'Reference', 'Evidence'] and [*sections['']] == ['index.ipynb']
    assert len(sections['How to']) == 5 and [*sections['Evidence']] == ['results.ipynb', 'papers.ipynb']
    modules = [p.relative_to(ROOT / 'nbs').as_posix() for p in sorted((ROOT / 'nbs').glob('[0-9][0-9]_*.ipynb'))]
    assert [*sections['Reference']] == modules


def test_a_missing_page_is_a_sentence(tmp_path):
    (tmp_path / 'nbs').mkdir()
    (tmp_path / '_quarto.yml').write_text('website: {sidebar: {contents: [index.ipynb, {section: More, contents: [{text: A, href: a.ipynb}]}]}}')
    for name in ('index', 'lonely'): (tmp_path / 'nbs' / f'{name}.ipynb').touch()
    missing, lonely = make_site.check_navigation(tmp_path)
    assert missing.startswith('_quarto.yml names a.ipynb, and there is no nbs/a.ipynb') and lonely.startswith('nbs/lonely.ipynb is in no section')
    with pytest.raises(SystemExit, match='there is no nbs/a.ipynb'): make_site.process(tmp_path)


def test_quarto_gets_the_same_notebooks_and_the_top_level_settings(tmp_path):
    tree, log, command = copy_tree(tmp_path / 'tree'), tmp_path / 'called.jsonl', tmp_path / 'bin' / 'quarto'
    command.parent.mkdir()
    command.write_text(STAND_IN.format(python=sys.executable, log=str(log)))
    command.chmod(0o755)
    said = build(tree, tree / '_docs', path=f'{command.parent}{os.pathsep}{os.environ["PATH"]}')
    call, = map(json.loads, log.read_text().splitlines())
    pages = {p for section in make_site.navigation().values() for p in section}
    assert call['arguments'] == ['render'] and set(call['notebooks']) == pages
    assert call['settings'] == (ROOT / '_quarto.yml').read_text() and {'plotly.min.js', 'figures.js'} <= set(call['files'])
    for page, nb in call['notebooks'].items():
        title = nb['cells'][0]
        assert title['cell_type'] == 'raw' and 'title:' in ''.join(title['source']), page
        assert not any(re.search(r'^#\| *export', ''.join(c['source']), re.M) for c in nb['cells']), f'{page} still shows exported cells'
    shown = [c for c in call['notebooks']['05_models.ipynb']['cells'] if ''.join(c['source']).endswith('show_doc(LightGCN)')]
    assert 'edge_drop:float=0.0, # share of edges left out' in ''.join(shown[0]['outputs'][0]['data']['text/markdown'])
    assert (tree / '_docs' / 'index.html').read_text() == '<p>by the stand-in</p>' and 'by Quarto' in said
    assert all(name in (tree / '_docs' / 'llms.txt').read_text() for name in ('/models.html', '/howto/own_data.html', '/story.html'))


def test_the_site_without_quarto(tmp_path_factory):
    folder, said = site(lambda: tmp_path_factory.mktemp('tree'))
    assert 'WARNING' not in said and 'by Sphinx' in said
    where = {p: p for p in make_site.addresses(ROOT / 'nbs')}  # as they lie in nbs
    named = re.findall(r'^- \[.+\]\(https://promax-nb.github.io/promax_nb/(.+)\): .{10}', (folder / 'llms.txt').read_text(encoding='utf-8'), re.M)
    assert len(named) == len(where) and all((folder / page).is_file() for page in named)
    made = {p.relative_to(folder).as_posix() for p in folder.rglob('*.html')} - {'search.html', 'genindex.html'}
    assert made == set(named)
    assert broken(folder) == []
    models = (folder / 'models.html').read_text(encoding='utf-8')
    assert 'share of edges left out in each training step' in models and re.search(r'promax_nb/models\.py#L\d+"', models) and 'LNone' not in models
    assert 'norm_adj' in Page(folder / 'models.html').ids  # as nbdev's links call it
    story = (folder / 'story.html').read_text(encoding='utf-8')
    assert story.count('class="promax-figure"') >= 6 and story.count('plotly.min.js') == 1
    assert 'Seconds were measured' in (folder / 'llms-full.txt').read_text(encoding='utf-8')


def test_kept_figures_belong_to_stills():
    stills = set()
    for path in (ROOT / 'nbs').rglob('*.ipynb'):
        data = [o.get('data', {}) for c in nbformat.read(path, 4).cells for o in c.get('outputs', [])]
        stills |= {make_site.still_name(d[make_site.PNG]) for d in data if make_site.PNG in d}
    kept = {p.name for p in (ROOT / 'docs' / 'figures').iterdir()}
    assert kept and not kept - stills, f'figures whose stills are gone from docs/figures: {sorted(kept - stills)}; delete them'


def test_outputs_stay_text(tmp_path):
    out = hostile_site(tmp_path)
    assert broken(out) == [] and 'https://site.example/x/sub/b.html' in (out / 'llms.txt').read_text()
    page, text = Page(out / 'index.html'), (out / 'index.html').read_text(encoding='utf-8')
    assert page.handlers == [] and not [s for s in page.scripts if '__hit' in s] and '__hit(4)' not in text
    assert 'evil.example/badge.svg' not in text and re.search('href="sub/b.html#a[-_]b"', text) and '&lt;script&gt;__hit(1)' in text
    assert text.count('class="math') == 0 and (out / 'sub' / 'b.html').read_text().count('class="math') == 1
