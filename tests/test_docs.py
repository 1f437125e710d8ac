"""The site: one navigation, one set of processed notebooks, two builders."""

import base64
import json
import re
import shutil
import sys

import nbformat
import pytest
from built import ROOT, Page, broken, hostile_site, sites

sys.path.insert(0, str(ROOT / 'docs'))
import make_pictures  # noqa: E402
import make_site  # noqa: E402


def test_the_navigation_is_complete():
    assert make_site.check_navigation() == []
    sections = make_site.navigation()
    wings = ['Data', 'Profiles', 'Retrieval', 'Models', 'Recommend', 'LettinGo', 'Views', 'Corridor']
    assert [*sections] == ['', 'Learn', 'How to', *wings, 'Evidence']
    assert [*sections['']] == ['index.ipynb']
    assert set(sections['How to']) == {f'howto/{path.name}' for path in (ROOT / 'nbs' / 'howto').glob('*.ipynb')}
    assert [*sections['Evidence']] == ['results.ipynb', 'papers.ipynb']
    for wing in wings:
        folder = ROOT / 'nbs' / ('' if wing == 'Corridor' else wing.lower())
        chapters = sorted(folder.glob('[0-9][0-9]_*.ipynb'))
        assert [*sections[wing]] == [path.relative_to(ROOT / 'nbs').as_posix() for path in chapters]


def test_a_missing_page_is_a_sentence(tmp_path):
    (tmp_path / 'nbs').mkdir()
    (tmp_path / '_quarto.yml').write_text(
        'website: {sidebar: {contents: [index.ipynb, {section: More, contents: [{text: A, href: a.ipynb}]}]}}'
    )
    for name in ('index', 'lonely'):
        (tmp_path / 'nbs' / f'{name}.ipynb').touch()
    missing, lonely = make_site.check_navigation(tmp_path)
    assert missing.startswith('_quarto.yml names a.ipynb, and there is no nbs/a.ipynb') and lonely.startswith(
        'nbs/lonely.ipynb is in no section'
    )
    with pytest.raises(SystemExit, match='there is no nbs/a.ipynb'):
        make_site.process(tmp_path)


def test_both_builders(tmp_path_factory):
    """One test, for the site is built once."""
    kept = sites(lambda: tmp_path_factory.mktemp('tree'))
    said = (kept / 'said.log').read_text(encoding='utf-8')
    assert 'WARNING' not in said and 'pages by Sphinx' in said and 'pages by Quarto' in said
    check_offline(kept / 'offline')
    check_quarto(kept)


def check_quarto(kept):
    """Quarto is asked once, for the same notebooks, with the top-level settings."""
    (call,) = map(json.loads, (kept / 'quarto.jsonl').read_text(encoding='utf-8').splitlines())
    pages = {p for section in make_site.navigation().values() for p in section}
    assert call['arguments'] == ['render'] and set(call['notebooks']) == pages
    assert call['settings'] == (ROOT / '_quarto.yml').read_text() and {'plotly.min.js', 'figures.js'} <= set(
        call['files']
    )
    for page, nb in call['notebooks'].items():
        title = nb['cells'][0]
        assert title['cell_type'] == 'raw' and 'title:' in ''.join(title['source']), page
        assert not any(re.search(r'^#\| *export', ''.join(c['source']), re.M) for c in nb['cells']), (
            f'{page} still shows exported cells'
        )
    shown = [
        c
        for c in call['notebooks']['models/03_bases.ipynb']['cells']
        if ''.join(c['source']).endswith('show_doc(LightGCN)')
    ]
    assert 'edge_drop:float=0.0, # share of edges left out' in ''.join(shown[0]['outputs'][0]['data']['text/markdown'])
    assert (kept / 'quarto' / 'index.html').read_text() == '<p>by the stand-in</p>'
    assert (kept / 'quarto' / 'llms.txt').read_text() == (kept / 'offline' / 'llms.txt').read_text()


def check_offline(folder):
    """Every page there and named, every link leads somewhere, signatures and figures as they should be."""
    named = re.findall(
        r'^- \[.+\]\(https://promax-nb.github.io/promax_nb/(.+)\): .{10}',
        (folder / 'llms.txt').read_text(encoding='utf-8'),
        re.M,
    )
    assert len(named) == sum(map(len, make_site.navigation().values())) and len({*named}) == len(named)
    more = {'search.html', 'genindex.html', make_site.LIVE_MAP}
    assert {p.relative_to(folder).as_posix() for p in folder.rglob('*.html')} - more == set(named)
    assert {'map-light.png', 'map-dark.png'} <= {p.name for p in (folder / 'docs' / 'pictures').iterdir()}
    assert broken(folder) == []
    bases = (folder / 'models' / 'bases.html').read_text(encoding='utf-8')
    assert (
        'share of edges left out in each training step' in bases
        and re.search(r'promax_nb/models/bases\.py#L\d+"', bases)
        and 'LNone' not in bases
    )
    assert 'norm_adj' in Page(folder / 'models' / 'graph.html').ids  # as nbdev's links call it
    story = (folder / 'story.html').read_text(encoding='utf-8')
    assert story.count('class="promax-figure"') >= 6 and story.count('plotly.min.js') == 1
    assert 'Seconds were measured' in (folder / 'llms-full.txt').read_text(encoding='utf-8')


def test_kept_figures_belong_to_stills(tmp_path):
    for name in ('nbs', 'docs'):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
    assert make_site.drop_figures(tmp_path) == [], (
        'their stills are gone: python docs/make_site.py --keep-figures takes them away'
    )
    kept = len(list((tmp_path / 'docs' / 'figures').iterdir()))
    make_site.keep_figure({'data': [], 'layout': {}}, base64.b64encode(b'no still of ours').decode(), tmp_path)
    assert kept > 0 and len(make_site.drop_figures(tmp_path)) == 1


def test_outputs_stay_text(tmp_path):
    out = hostile_site(tmp_path)
    assert broken(out) == [] and 'https://site.example/x/sub/b.html' in (out / 'llms.txt').read_text()
    page, text = Page(out / 'index.html'), (out / 'index.html').read_text(encoding='utf-8')
    assert page.handlers == [] and not [s for s in page.scripts if '__hit' in s] and '__hit(4)' not in text
    assert (
        'evil.example/badge.svg' not in text
        and re.search('href="sub/b.html#a[-_]b"', text)
        and '&lt;script&gt;__hit(1)' in text
    )
    assert text.count('class="math') == 0 and (out / 'sub' / 'b.html').read_text().count('class="math') == 1


def test_the_front_page_shows_what_was_seen_and_is_short():
    """What `make pictures` made of the demo stands in the README, and at most 700 words before the reference part."""
    answers = json.loads((ROOT / 'docs' / 'pictures' / 'answers.json').read_text(encoding='utf-8'))
    told = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert make_pictures.questions_cell(answers) in told, 'make pictures'
    for name in ('map-light.png', 'map-dark.png'):
        size = (ROOT / 'docs' / 'pictures' / name).stat().st_size
        assert f'docs/pictures/{name}' in told and 20_000 < size < 250_000
    assert 'alt="A map of readers' in told
    order = [told.index(part) for part in ('<picture>', '## Three questions', '## Two commands', '## A session')]
    assert order == sorted(order) and len(told[: order[-1]].split()) <= 700


def test_the_picture_of_the_front_page_becomes_a_frame_with_the_live_map(tmp_path):
    picture = '<picture>\n<img src="docs/pictures/x.png" alt="a &lt;map&gt;">\n</picture>'
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f'{picture}\n\nText.')])
    nbformat.write(book, tmp_path / 'index.ipynb')
    make_site.enliven_front(tmp_path)
    (seen,) = nbformat.read(tmp_path / 'index.ipynb', 4).cells
    frame, rest = seen.source.split('</iframe>')
    assert frame.startswith('<iframe') and frame.count('"') == frame.count('="') * 2 and 'Text.' in rest
    assert 'bookshop.html#map' in frame and '&lt;picture&gt;' in frame and '<img' not in frame
