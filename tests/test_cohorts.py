"""Groups side by side: counts and ratios by hand, planted groups, intervals, who is meant, texts that are hostile."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from promax_nb.data.interactions import RecData
from promax_nb.models.scorers import as_scorer
from promax_nb.views.cohorts import SURE, cohort, cohort_html, lifts, rows_of
from promax_nb.views.nodes import gains_of_users
from promax_nb.views.regions import NodeWords
from promax_nb.views.scene import Scene, as_scene

M, N = 60, 30
BAD = '<img src=x onerror=window.hit=1>'


@pytest.fixture(scope='module')
def scene():
    """Users 0 to 19 buy tea and say so; reshaping finds what the first 40 held out, and loses it for the others."""
    rng = np.random.default_rng(0)
    kind = np.array(['tea', 'bread', BAD])[np.arange(N) % 3]
    cells = np.zeros((M, N))
    for user in range(M):
        liked = np.flatnonzero(kind == ('tea' if user < 20 else 'bread' if user < 40 else BAD))
        cells[user, rng.choice(liked, 6, replace=False)] = 1
    apart = np.array([rng.choice(np.flatnonzero(row), 2, replace=False) for row in cells])
    held, known = apart.T
    valid, test = (sp.csr_matrix((np.ones(M), (np.arange(M), chosen)), (M, N)) for chosen in (known, held))
    train = sp.csr_matrix(cells) - valid - test
    train.eliminate_zeros()
    names = {'item': [f'i{k:02}' for k in range(N)], 'title': [f'Thing {k}' for k in range(N)]}
    items = pd.DataFrame(names | {'kind_of': kind})
    users = pd.DataFrame({'user': [f'u{k:02}' for k in range(M)]})
    data = RecData(train, valid, test, users=users, items=items, name='corner shop')
    drinks = ['green tea'] * 20 + ['coffee'] * 20 + [f'juice {BAD}'] * 20
    texts = [f'a reader who drinks {drink} at home' for drink in drinks]
    things = [f'a thing {k}' for k in range(N)]
    told = [pd.DataFrame({'id': range(len(side)), 'profile': side}) for side in (texts, things)]
    noise = rng.random((M, N))
    found, lost = noise.copy(), noise.copy()
    for user, item in enumerate(held):
        (found if user < 40 else lost)[user, item] = 9
        (lost if user < 40 else found)[user, item] = -9
    return as_scene(data, before=as_scorer(lost), after=as_scorer(found), users=told[0], items=told[1])


def test_ratios_by_hand():
    found = lifts([30, 0, 5], 40, [60, 2, 0], 200)
    assert found.lift.tolist() == [pytest.approx(2.5), 0, np.inf]
    log = np.log(30.5 / 40.5) - np.log(60.5 / 200.5)
    error = np.sqrt(1 / 30.5 - 1 / 40.5 + 1 / 60.5 - 1 / 200.5)
    assert found.z[0] == pytest.approx(log / error)
    assert [found.low[0], found.high[0]] == pytest.approx([np.exp(log - 1.96 * error), np.exp(log + 1.96 * error)])
    assert np.isfinite(found[['low', 'high', 'z']].to_numpy()).all(), 'a zero has an interval too'


def test_what_was_planted_sets_them_apart(scene):
    made = cohort(scene, range(20))
    first = made.attributes.iloc[0]
    assert (first.attribute, first.value, first['A count'], first['rest count']) == ('kind_of', 'tea', 20, 0)
    words = made.words.set_index('word')
    assert words.loc['tea', 'A share'] == 1 and words.loc['tea', 'z'] > SURE and words.loc['coffee', 'z'] < -2
    assert not {'reader', 'drinks', 'home'} & set(words.index), 'words that the writer puts everywhere say nothing'
    gain = made.gains.set_index(['measure', 'group']).loc['gain in recall@20']
    assert gain.loc['A', 'middle'] == pytest.approx(gain.loc['A', 'after'] - gain.loc['A', 'before'])
    assert gain.loc['A - rest', 'low'] > 0 and gain.loc['A', 'low'] > 0
    assert gain.loc['A', 'middle'] > gain.loc['rest', 'middle']


def test_gains_are_those_of_the_evaluation_and_groups_add_up(scene):
    by_user = gains_of_users(scene)
    change = by_user['recall@20 after'] - by_user['recall@20 before']
    made = cohort(scene, range(0, 30), range(30, 50))
    rows = made.gains[made.gains.measure == 'gain in recall@20'].set_index('group')
    for name, members in made.groups.items():
        assert rows.loc[name, 'middle'] == pytest.approx(change.loc[members].mean())
        assert rows.loc[name, 'users'] == len(members)
    assert rows.loc['A - B', 'middle'] == pytest.approx(rows.loc['A', 'middle'] - rows.loc['B', 'middle'])
    assert sorted(np.concatenate(list(made.groups.values())).tolist()) == list(range(M))
    again = cohort(scene, range(0, 30), range(30, 50))
    pd.testing.assert_frame_equal(made.gains, again.gains)


def test_who_is_meant(scene):
    assert rows_of(scene, ['u03', 1, 'u03']).tolist() == [1, 3]
    assert rows_of(scene, np.arange(M) < 2).tolist() == [0, 1] and rows_of(scene, 'i05', 'item').tolist() == [5]
    refused = {'neither an id nor a row': [999], 'no user is called': ['nobody'], '1 values but there': [True]}
    for said, wrong in refused.items():
        with pytest.raises(ValueError, match=said):
            rows_of(scene, wrong)
    with pytest.raises(ValueError, match='group A has no users'):
        cohort(scene, [])
    with pytest.raises(ValueError, match="kind='shop' is unknown"):
        cohort(scene, [1], kind='shop')


def test_hostile_texts_are_texts_and_one_side_has_no_gains(scene):
    html = str(cohort_html(cohort(scene, range(40, 60))))
    assert '<img' not in html and '&lt;img src=x' in html
    alone = Scene(scene.data, users=scene.users, items=scene.items)
    assert cohort(alone, range(20)).gains.empty and 'Gain by' not in cohort_html(cohort(alone, range(20)))
    items = cohort(scene, [f'i{k:02}' for k in range(0, N, 3)], kind='item')
    assert items.gains.empty and items.attributes.iloc[0]['value'] == 'tea'


def test_who_is_in_both_groups_is_told(scene):
    assert '5 users are in both groups' in cohort_html(cohort(scene, range(20), range(15, 40)))
    assert 'in both' not in cohort_html(cohort(scene, range(20), range(20, 40)))


def test_a_phrase_with_a_word_of_the_template_is_the_templates():
    texts = [f'enjoys {"green tea" if k % 4 == 0 else f"thing{chr(97 + k % 7)}"} daily' for k in range(40)]
    words = NodeWords(texts, np.zeros(40, int), phrases=True)
    told = dict(zip(words.vocabulary, words.furniture, strict=True))
    assert told['enjoys'] and told['enjoys green'] and told['tea daily'] and not told['green tea'] and not told['tea']
