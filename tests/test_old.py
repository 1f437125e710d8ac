"""Folders and stores of version 0.1.0 still open: nothing is asked, trained or encoded twice, and trainings go on."""
import json
import shutil

import frozen
import numpy as np
import pandas as pd
import pytest
from frozen import command, find
from old import make


@pytest.fixture
def old(tmp_path):
    """A copy, so that what is opened may be written to."""
    shutil.copytree(make.HERE, tmp_path / 'old', ignore=shutil.ignore_patterns('*.py', '__pycache__'))
    return tmp_path / 'old'


def same_machine():
    """Does what is kept come from versions and a processor like these, so that the last digit is the same?"""
    return json.loads(frozen.FROZEN.read_text(encoding='utf-8'))['about'] == frozen.about()


# ---- runs

def test_a_run_opens(old):
    scene = find('open_run')(old / 'run')
    metrics = json.loads((old / 'run' / 'metrics.json').read_text())
    assert scene.data.shape == (10, 12) and len(scene.users) == 10 and len(scene.items) == 12
    assert (scene.users.status == 'ok').all() and scene.users.profile.str.startswith('Enjoys witty').all()
    assert scene.users.writer.unique().tolist() == ['clerk']
    assert [v.shape for v in scene.vectors] == [(10, 8), (12, 8)]
    assert [v.shape for v in scene.raw] == [(10, 384), (12, 384)]  # out of the store of vectors
    assert scene.added.nnz == 7 and not scene.added.multiply(scene.data.train).nnz
    assert scene.provenance.kept.sum() == 7 and not scene.provenance.fallback.any()
    for name in ('base-0', 'promax-0'):
        fit = find('load_fit')(old / 'run' / 'fits' / name)
        assert fit.users.shape == (10, 4) and fit.items.shape == (12, 4) and len(fit.history) == 6
        scores = find('evaluate')(fit.users, fit.items, scene.data.test, scene.data.train + scene.data.valid)
        assert scores['ndcg@20'] == pytest.approx(metrics[name.split('-')[0]]['ndcg@20'], abs=1e-6)


def test_a_run_continues_without_its_server(old, capsys):
    """Nobody listens at its address: one question more, and this would fail."""
    before = {name: json.loads((old / 'run' / f'{name}.json').read_text()) for name in ('metrics', 'settings')}
    history, provenance = (pd.read_parquet(old / 'run' / f'{name}.parquet') for name in ('history', 'augmentation'))
    assert command()([*make.RUN, '--out', str(old / 'run')]) == 0, capsys.readouterr().err
    after = {name: json.loads((old / 'run' / f'{name}.json').read_text()) for name in ('metrics', 'settings')}
    for side in ('base', 'promax'):
        assert after['metrics'][side] == pytest.approx(before['metrics'][side], abs=1e-6)
    assert before['settings'].items() <= after['settings'].items()
    # the same seconds to the last digit: nothing was trained again
    assert pd.read_parquet(old / 'run' / 'history.parquet').seconds.tolist() == history.seconds.tolist()
    again = pd.read_parquet(old / 'run' / 'augmentation.parquet')
    assert again[['user', 'item', 'kept', 'fallback']].equals(provenance[['user', 'item', 'kept', 'fallback']])
    assert (old / 'run' / 'report.html').exists()


def test_a_run_with_other_settings_is_still_refused(old, capsys):
    assert command()([*make.RUN, '--out', str(old / 'run'), '--sdr', '.9']) == 2
    assert 'sdr (0.5 -> 0.9)' in capsys.readouterr().err


# ---- stores

def test_answers_are_found_again(old):
    clerk, critic, store = make.Clerk(), make.Critic(), old / 'answers.sqlite'
    kept = find('store_frame')(store)
    data = find('load')(old / 'data')
    history = make.history_of(data)
    items, users, texts, scores, numbers = make.ask_everything(data, history, clerk, critic, store)
    assert clerk.asked == ['What is refused?'] and critic.asked == []  # the refused answer is asked for again, as ever
    assert (items.status == 'ok').all() and (users.status == 'ok').all() and (texts.status == 'ok').all()
    assert texts.profile.str.startswith('Enjoys witty').all() and scores.attrs['computed'] == 0
    assert kept.model.value_counts().to_dict() == {'clerk': 33, 'critic': 16}
    assert len(find('store_frame')(store)) == len(kept) and len(find('store_frame')(store, failures=True)) == 2
    assert numbers.attrs['computed'] == 0 or not same_machine()  # a judge fitted elsewhere is another judge


def test_a_store_still_grows(old):
    clerk, store = make.Clerk(), old / 'answers.sqlite'
    kept = len(find('store_frame')(store))
    answers = find('ask')(clerk, ['Something new?', 'And new again?'], store, progress=False)
    assert (answers.status == 'ok').all() and len(clerk.asked) == 2 and len(find('store_frame')(store)) == kept + 2


@pytest.mark.parametrize('place', ['cache', 'cache/vectors.sqlite'])
def test_vectors_are_found_again(old, place):
    encoder, other = make.Encoder(), make.Encoder()
    vectors = find('encode')(make.TEXTS, encoder, cache=old / place)
    assert encoder.seen == []
    np.testing.assert_array_equal(vectors, other.encode(make.TEXTS))
    find('encode')([*make.TEXTS, 'And one more.'], encoder, cache=old / place)
    assert encoder.seen == ['And one more.']


# ---- what save, save_pairs, fit and align keep

def test_saved_data_opens(old):
    data, made = find('load')(old / 'data'), make.world()
    assert data.hash() == made.hash() == json.loads((old / 'data' / 'recdata.json').read_text())['hash']
    for name in ('users', 'items', 'events'):
        pd.testing.assert_frame_equal(getattr(data, name), getattr(made, name))
    assert data.extras['note'] == 'from 0.1.0' and (data.extras['matrix'] != made.extras['matrix']).nnz == 0
    np.testing.assert_array_equal(data.extras['table'], made.extras['table'])
    np.testing.assert_array_equal(data.extras['truth']['user_likes'], made.extras['truth']['user_likes'])
    assert data.meta['seed'] == 0 and data.name == 'bookshop-sparse'
    find('save')(data, old / 'data')  # and may be replaced
    assert find('load')(old / 'data').hash() == made.hash()


def test_pairs_open(old):
    pairs = find('load_pairs')(old / 'pairs')
    lines = (old / 'pairs' / 'pairs.jsonl').read_text().splitlines()
    assert len(pairs) == len(lines) == pairs.attrs['pairs'] and pairs.attrs['by'] == 'correct'
    assert pairs.attrs['judge'] == 'critic' and pairs.attrs['margin'] == .1
    assert (pairs.gap >= .1).all() and (pairs.chosen != pairs.rejected).all()


def test_a_training_opens(old):
    fit = find('load_fit')(old / 'fit')
    assert fit.users.shape == (11, 4) and len(fit.history) == 3 and fit.card['versions']['promax_nb'] == '0.1.0'
    assert {'bpr', 'sdr', 's2dr', 'reg'} <= set(fit.history) and fit.best_epoch == 3


def of_then(data):
    """The objective with the weight that was the default until 0.3."""
    objective = make.objective(data)
    objective.s2dr = 0.1
    return objective


def test_a_training_goes_on(old):
    """Three epochs of 0.1.0 and three of today are six of today."""
    data = find('load')(old / 'data')
    seconds = find('load_fit')(old / 'fit').history.seconds.tolist()
    resumed, straight = (find('fit')(make.base(data), of_then(data), data, folder=folder, epochs=6, **make.TRAIN)
                         for folder in (old / 'fit', None))
    assert resumed.history.seconds.tolist()[:3] == seconds and len(resumed.history) == 6  # these were not trained again
    np.testing.assert_allclose(resumed.users, straight.users, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(resumed.history.bpr, straight.history.bpr, rtol=1e-4)


def test_a_small_writer_and_its_training_open(old):
    model, tokenizer = find('tiny_lm')(make.TASTES, path=old / 'writer', **make.TINY)
    assert model.card['values'] == len(make.TASTES)
    aligned = find('load_align')(old / 'aligned')
    assert aligned.card['steps'] == 2 and len(aligned.history) == 2 and aligned.samples.after.str.len().gt(0).all()
    written = (old / 'aligned' / 'card.json').stat().st_mtime_ns
    again = find('align')((model, tokenizer), make.preferences(), out=old / 'aligned', **make.ALIGN)
    assert again.history.equals(aligned.history) and (old / 'aligned' / 'card.json').stat().st_mtime_ns == written
    with pytest.raises(ValueError, match='other beta'):
        find('align')((model, tokenizer), make.preferences(), out=old / 'aligned', **make.ALIGN, beta=.7)
