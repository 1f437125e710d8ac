"""Claims of free prose: phrases, and whether they fit this person rather than others."""

import numpy as np
import pandas as pd
import pytest

from promax_nb.lettingo.rewards import rewarded, support_reward
from promax_nb.lettingo.support import labelled_tastes, phrases, support, support_error, supported

AXES = ('rain', 'dust', 'snow', 'wind')


def read(texts):
    """A phrase points along what it names; anything else points nowhere in particular."""
    table = np.full((len(texts), len(AXES)), 0.1)
    for row, text in enumerate(texts):
        for axis, word in enumerate(AXES):
            table[row, axis] += word in text
    return table


@pytest.fixture
def shop():
    """Forty people, ten for each word; items of each word; everybody likes two items of their own word."""
    items = np.repeat(np.eye(len(AXES)), 10, 0) + 0.01
    liked = {user: [10 * (user % 4) + user // 4 % 10, 10 * (user % 4) + (user // 4 + 1) % 10] for user in range(40)}
    disliked = {user: [10 * ((user + 1) % 4)] for user in range(40)}
    return items, liked, disliked


def table(rows):
    return pd.DataFrame(rows, columns=['user', 'profile']).assign(writer='w', sample=range(len(rows)))


def test_phrases_are_cut_and_know_their_side():
    text = 'Loves long rain, dust and snow; avoids wind. Seeks rain!'
    assert phrases(text) == [('long rain', True), ('dust', True), ('snow', True), ('rain', True), ('wind', False)]
    assert phrases('x, 12; --') == [] and phrases('<b>rain</b>')[0][0] == '<b>rain</b>', 'nothing is made of a text'


def test_what_fits_this_person_is_supported(shop):
    items, liked, disliked = shop
    found = support(
        table([(0, 'Enjoys rain and dust; keeps away from dust.'), (1, 'Enjoys dust.')]), liked, disliked, items, read
    )
    told = {(row.user, row.phrase, row.liked): row.support for row in found.itertuples()}
    assert told[0, 'rain', True] == told[1, 'dust', True] == 30 / 39, 'of the 39 others 30 like something else'
    assert told[0, 'dust', True] < 0.5 < told[0, 'dust', False] == 30 / 39
    out = supported(found, table([(0, ''), (1, '')]))
    assert out['phrases'].tolist() == [3, 1] and out['precision'].tolist() == [pytest.approx(2 / 3), 1.0]


def test_nothing_to_compare_with(shop):
    items, liked, disliked = shop
    found = support(table([(99, 'Enjoys rain.'), (0, None), (0, ''), (0, 'Avoids rain.')]), liked, {}, items, read)
    assert len(found) == 2 and found['support'].isna().all()
    out = supported(found, table([(99, 'Enjoys rain.'), (0, None), (0, ''), (0, 'Avoids rain.')]))
    assert out['phrases'].tolist() == [0] * 4 and out['precision'].isna().all() and len(out) == 4
    with pytest.raises(ValueError, match='there are 3 people with liked items: a comparison needs at least 20'):
        support(table([(0, 'Enjoys rain.')]), {user: liked[user] for user in range(3)}, {}, items, read)


def test_the_error_is_measured_where_the_truth_is_known(shop):
    items, liked, _ = shop
    rows = [(user, AXES[(user + far) % 4], far == 0) for user in range(40) for far in (0, 1)]
    labelled = pd.DataFrame(rows, columns=['user', 'phrase', 'truth'])
    found = support_error(labelled, liked, items, read)
    assert found == {'phrases': 80, 'right': 1.0, 'auc': 1.0, 'said_true': 1.0, 'said_false': 1.0}
    assert support_error(labelled.assign(truth=~labelled['truth']), liked, items, read)['auc'] == 0.0
    with pytest.raises(ValueError, match='label some of either kind'):
        support_error(labelled[labelled['truth']], liked, items, read)


def test_labels_come_from_the_slots():
    from promax_nb.lettingo.histories import slot_prompt

    prompts = pd.DataFrame({'id': [7], 'prompt': [slot_prompt(['witty'], ['war'], ['horror'])]})
    assert labelled_tastes(prompts).to_dict('records') == [
        {'user': 7, 'phrase': 'witty', 'truth': True},
        {'user': 7, 'phrase': 'horror', 'truth': False},
    ]


def test_support_as_a_reward(shop):
    items, liked, _ = shop
    reward = support_reward(liked, items, read)
    worth = rewarded(reward, ['p'] * 3, ['Enjoys rain.', 'Enjoys dust.', ''], [0, 0, 0])
    assert reward.name == 'support' and worth[0] > 0.7 > worth[1] and worth[2] == 0.0
