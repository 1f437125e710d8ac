"""Which of two items did this reader take: questions, answers, and whether the judge is any good."""

import numpy as np
import pandas as pd
import pytest

from promax_nb.data.bookshop import toy_data
from promax_nb.lettingo.choice import (
    choice_judge,
    choice_predictions,
    choice_questions,
    choice_reward,
    fit_sharpness,
    need_good_judge,
    right_by_mean,
    without_taken,
)
from promax_nb.lettingo.pairs import make_pairs
from promax_nb.lettingo.rewards import rewarded


@pytest.fixture(scope='module')
def data():
    return toy_data(120, 120, seed=3)


def test_questions_are_about_training_items_with_rivals_as_popular(data):
    questions = choice_questions(data, k=2, least=3)
    train = data.train.tocsr()
    popular = np.asarray(train.sum(0)).ravel()
    assert (questions.groupby('user').size() == 2).all() and not questions.duplicated(['user', 'item']).any()
    assert np.asarray(train[questions['user'], questions['item']]).all()
    assert not np.asarray(train[questions['user'], questions['other']]).any()
    by_others = popular[questions['item']] - 1
    assert (abs(popular[questions['other']] - by_others) <= np.maximum(1, by_others / 10)).all()
    assert train.sum(1).A1[questions['user'].unique()].min() >= 5
    ahead = by_others - popular[questions['other']]
    assert questions.attrs['by popularity'] == ((ahead > 0) + (ahead == 0) / 2).mean()
    pd.testing.assert_frame_equal(questions, choice_questions(data, k=2, least=3))
    assert not questions.equals(choice_questions(data, k=2, least=3, seed=1))
    with pytest.raises(ValueError, match='nobody has 99 training interactions'):
        choice_questions(data, k=90, least=9)


def test_what_is_asked_about_is_in_no_profile(data):
    questions = choice_questions(data)
    shown = without_taken(data, questions)
    assert shown.train.nnz == data.train.nnz - len(questions) and data.train.nnz == toy_data(120, 120, seed=3).train.nnz
    assert not np.asarray(shown.train.tocsr()[questions['user'], questions['item']]).any()
    asked = set(map(tuple, questions[['user', 'item']].to_numpy()))
    assert not asked & set(map(tuple, shown.events[['user', 'item']].to_numpy()))
    for split in ('valid', 'test'):
        assert (getattr(shown, split) != getattr(data, split)).nnz == 0


ITEMS = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 1.0, 1.0]])
ASKED = pd.DataFrame({'user': [0, 0, 1, 1], 'item': [0, 1, 2, 0], 'other': [2, 2, 1, 1]})


def read(texts):
    return np.array([[word in text for word in ('red', 'green', 'blue')] for text in texts], float) + 0.01


def told(rows):
    return pd.DataFrame(rows, columns=['user', 'profile']).assign(writer='w', sample=range(len(rows)))


def test_the_nearer_item_is_the_answer():
    texts = told([(0, 'red and green'), (0, 'blue'), (1, 'blue'), (1, '')])
    answers = choice_predictions(texts, ASKED, ITEMS, read, sharpness=3.0)
    assert answers['predicted'].tolist() == ['taken', 'taken', 'other', 'other', 'taken', 'other', 'other', 'other']
    scores = choice_judge(texts, ASKED, ITEMS, read, sharpness=3.0)
    assert scores['correct'].tolist() == [1.0, 0.0, 0.5, 0.0] and (scores['n'] == 2).all()
    assert scores['logp'].iloc[3] == pytest.approx(-np.log(2)), 'nothing said: either'
    assert scores['logp'].iloc[0] > -np.log(2) > scores['logp'].iloc[1] and scores['judge'].eq('choice').all()
    sure = choice_judge(texts, ASKED, ITEMS, read, sharpness=30.0)
    assert sure['logp'].iloc[0] > scores['logp'].iloc[0] and sure['logp'].iloc[1] < scores['logp'].iloc[1]
    pairs = make_pairs(texts.assign(prompt='p', status='ok'), scores, how='best-worst', margin=0.1)
    assert pairs.set_index('user')['chosen'].to_dict() == {0: 'red and green'}
    with pytest.raises(ValueError, match='no profile is of a user with questions'):
        choice_judge(told([(9, 'red')]), ASKED, ITEMS, read)


def test_the_reward_is_what_the_judge_says():
    reward = choice_reward(ASKED, ITEMS, read, sharpness=3.0)
    worth = rewarded(reward, ['p', 'p'], ['red and green', 'blue'], [0, 0])
    assert reward.name == 'choice' and worth[0] > -np.log(2) > worth[1]


def test_sharpness_is_fitted_without_a_text(data):
    questions = choice_questions(data)
    shown = without_taken(data, questions)
    known = np.random.default_rng(0).normal(size=(data.n_items, 8))  # items without meaning: no sharpness to be had
    taste = np.zeros((data.n_items, 2))
    taste[np.arange(data.n_items) % 2 == 0, 0] = taste[np.arange(data.n_items) % 2 == 1, 1] = 1
    assert fit_sharpness(questions, shown, known) < 5
    assert right_by_mean(questions, shown, taste).between(0, 1).all()
    assert set(right_by_mean(questions, shown, taste).index) == set(questions['user'])


def test_a_judge_that_guesses_is_not_used():
    rng = np.random.default_rng(0)
    good = pd.DataFrame({'user': range(200), 'correct': rng.random(200) * 0.4 + 0.5})
    assert need_good_judge(good, 0.5).startswith('the judge is right in 7')
    with pytest.raises(ValueError, match='50.0% by guessing: it is not used'):
        need_good_judge(good.assign(correct=rng.random(200)), 0.5)
    with pytest.raises(ValueError, match='has answered about 1 users'):
        need_good_judge(good.head(1), 0.5)
