"""Sphinx, for the site without Quarto; make_site.py gives the rest (pages, static files)."""

import posixpath
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from make_site import slug  # noqa: E402

project = 'promax_nb'
author = copyright = 'The promax_nb developers'
extensions = ['myst_nb']
exclude_patterns = []

nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'commonmark'
myst_enable_extensions = ['dollarmath', 'colon_fence', 'attrs_inline']
myst_heading_anchors = 4
myst_heading_slug_func = 'make_site.slug'
myst_update_mathjax = False  # see mathjax3_config

html_theme = 'furo'
html_title = 'promax_nb'
html_css_files = ['site.css']
html_show_sourcelink = html_copy_source = html_show_sphinx = False
html_show_search_summary = False  # it reads the pages with fetch, which a browser refuses for files on disk
html_theme_options = {'sidebar_hide_name': False, 'top_of_page_buttons': []}
mathjax_path = 'mathjax.js'
mathjax3_config = {
    'options': {'ignoreHtmlClass': '.*|', 'processHtmlClass': 'math', 'enableMenu': False}
}  # formulas of the prose, never an output's text


def setup(app):
    app.connect('doctree-read', name_sections)
    app.connect('html-page-context', one_navigation, priority=100)  # before Furo asks for the list


def name_sections(app, doctree):
    """Headings answer to Pandoc's names too: links of nbdev (models.html#norm_adj) lead there."""
    from docutils import nodes

    for section in doctree.findall(nodes.section):
        name = section.get('slug') or slug(section.next_node(nodes.title).astext())
        if name not in section['ids']:
            section['ids'].append(name)


ENTRY = re.compile(r'<li class="toctree-l(\d)(?: current)?"><a class="(?:current )?reference internal" href="([^"]*)">')
made = {}


def one_navigation(app, pagename, templatename, context, doctree):
    """The list of all pages is made once: Sphinx makes it anew for every page, so that the time grows with the square
    of their number. For a page its links are made relative, and its own entry is marked."""
    slow = context.get('toctree')

    def where(page, link):
        return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))

    def entry(m):
        here, level, page = pagename + '.html', m[1], m[2]
        if page == here:
            return f'<li class="toctree-l{level} current"><a class="current reference internal" href="#">'
        link = posixpath.relpath(page, posixpath.dirname(here) or '.')
        return f'<li class="toctree-l{level}"><a class="reference internal" href="{link}">'

    def quick(**how):
        wanted = tuple(sorted(how.items()))
        if wanted not in made:
            first = pagename + '.html'
            listed = slow(**how).replace('<ul class="current">', '<ul>')
            made[wanted] = ENTRY.sub(
                lambda m: m[0] if re.match(r'\w+:', m[2]) else
                f'<li class="toctree-l{m[1]}"><a class="reference internal" '
                f'href="{first if m[2] == "#" else where(first, m[2])}">',
                listed,
            )
        listed = ENTRY.sub(entry, made[wanted])
        before, mark, after = listed.partition(' current"><a')
        start, opened, rest = before.rpartition('<ul>')
        return start + '<ul class="current">' + rest + mark + after if mark and opened else listed

    if slow:
        context['toctree'] = quick
