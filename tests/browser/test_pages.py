"""Exported pages, opened from disk with the network off: figures made of hostile texts."""

import pandas as pd
import pytest

from .hostile import COLUMNS, TEXTS, flat_maps, hostile_scene
from .lab import Plot, assert_clean, assert_keeps_data, screenshot, unread


def _figures(scene, maps) -> dict:
    """Every figure there is, under headings and with names that are hostile too."""
    from promax_nb.views.charts import comparison_plot, loss_curves, sparsity_plot
    from promax_nb.views.figures import before_after, profile_map
    from promax_nb.views.gains import degree_gain_plot, retrieval_plot
    from promax_nb.views.nodes import node_table
    from promax_nb.views.one_user import distribution_plot
    from promax_nb.views.population import alignment_uniformity_plot, divergence_plot, entropy_plot

    bad = list(TEXTS.values())
    paired = pd.DataFrame({'base': 0.1, 'ours': 0.11, 'difference': 0.01, 'low': 0.005, 'high': 0.015}, index=bad[:20])
    groups = pd.DataFrame(
        {
            'from': [1, 3],
            'to': [2, 9],
            'users': [3, 9],
            'base': [0.1, 0.2],
            'ours': [0.2, 0.3],
            'difference': [0.1, 0.1],
            'low': [0.0, 0.05],
            'high': [0.2, 0.15],
            'p': [0.5, 0.01],
        }
    )
    table = node_table(scene, maps)
    columns = [c for c in table if any(name in c for name in COLUMNS.values())]
    assert len(columns) >= 3
    made = [
        profile_map(scene, maps, table=table),
        *(profile_map(scene, maps, c, 'base', table=table) for c in columns),
        before_after(scene, maps, columns[0], table=table),
        before_after(scene, maps, 'cluster', 'overlay', table=table),
        distribution_plot(scene, 3),
        distribution_plot(scene, 4, top=20, order='after'),
        entropy_plot(scene),
        divergence_plot(scene),
        alignment_uniformity_plot(scene),
        degree_gain_plot(scene),
        retrieval_plot(scene),
        loss_curves({t: h for t in bad[:3] for h in scene.histories.values()}),
        comparison_plot(paired, bad[10]),
        sparsity_plot(groups, bad[3]),
    ]
    return {'texts': '\n'.join(bad)} | {f'{k} {bad[k]}': f for k, f in enumerate(made)}


@pytest.fixture(scope='module')
def page(open_file, tmp_path_factory):
    from promax_nb.views.page import save_html

    scene = hostile_scene()
    path = save_html(
        _figures(scene, flat_maps(scene, True)),
        tmp_path_factory.mktemp('page') / 'figures.html',
        title=TEXTS['close-title'],
    )
    return open_file(path)


def plots(page) -> list:
    found = page.page.locator('.js-plotly-plot')
    return [Plot(page, found.nth(k)) for k in range(found.count())]


def test_figures_answer_a_hover(page):
    first = plots(page)[0]
    assert first.hover(0, 5)
    screenshot(page, 'figures-hover')
    assert_clean(page)


def test_hostile_texts_stay_readable(page):
    assert len(TEXTS) >= 25 and page.page.title() == TEXTS['close-title']
    texts = [t for t in TEXTS.values() if t.strip()]
    assert unread(texts, page.page.locator('body').inner_text()) == []
    hovers = [' '.join(plot.labels(70 if k == 0 else 8)) for k, plot in enumerate(plots(page))]
    assert all(hovers) and unread(texts, hovers[0], 30) == []
    screenshot(page, 'figures', full=True)
    assert_clean(page)


def test_figures_send_nothing_away(page):
    assert_keeps_data(page)


def test_quotes_and_entities_are_not_shown_as_code(page):
    """Escaped twice is unreadable too."""
    ticks = page.page.locator('.js-plotly-plot svg text').all_text_contents()
    assert (
        len(ticks) > 100
        and [t for t in ticks if '&quot;' in t or '&#' in t.replace('&#60;', '').replace('&#62;', '')] == []
    )
