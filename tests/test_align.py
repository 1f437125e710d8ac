"""Alignment: a small writer that reads, training that refuses harm and survives a kill, comparisons with an answer."""

import copy
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from promax_nb.cli import main
from promax_nb.data.bookshop import toy_data, vocabulary_hash
from promax_nb.data.settings import helps
from promax_nb.lettingo import ablation as ablation_room
from promax_nb.lettingo import align as align_room
from promax_nb.lettingo import loop as loop_room
from promax_nb.lettingo import story as story_room
from promax_nb.lettingo import tiny as tiny_room
from promax_nb.lettingo.align import AlignJob, align, align_from_config, load_align, trl_arguments
from promax_nb.lettingo.align_folder import alignment_parts, last_checkpoint
from promax_nb.lettingo.align_inputs import load_writer, single_rows, training_rows
from promax_nb.lettingo.align_settings import LOSSES, AlignConfig, has_bf16, use_bf16
from promax_nb.lettingo.align_watch import alarms
from promax_nb.lettingo.claims import faithfulness
from promax_nb.lettingo.histories import slot_prompt, split_history
from promax_nb.lettingo.pairs import PreflightError, save_pairs, shuffle_preferences
from promax_nb.lettingo.rewards import RewardError, claims_reward, rank_reward, rewarded, share_left_behind
from promax_nb.lettingo.styles import STYLES, styled
from promax_nb.lettingo.tiny import reading, tiny_lm, writer
from promax_nb.models.sameness import differences
from promax_nb.profiles import local as local_room
from promax_nb.profiles.local import weights_mark
from promax_nb.profiles.purse import Purse

ROOT = Path(__file__).resolve().parent.parent
FULL = pytest.mark.skipif(not os.environ.get('PROMAX_FULL'), reason='full size: set PROMAX_FULL=1')
SHORT = dict(max_steps=3, batch=4, lr=1e-3, max_ratio=9.0, min_users=5, log_steps=1, progress=False)


@pytest.fixture(scope='module')
def tiny():
    return tiny_lm()


@pytest.fixture(scope='module')
def values():
    return tiny_room.world_values()


@pytest.fixture(scope='module')
def pairs(values):
    """Honest texts against invented and vague ones, one pair a user."""
    p = tiny_room.practice_texts(values, 240, 6, STYLES, seed=5)
    better = [styled('true').complete(q, 1).text for q in p['prompt']]
    table = pd.DataFrame(
        {
            'user': np.arange(len(p)),
            'prompt': p['prompt'],
            'chosen': better,
            'rejected': p['text'],
            'chosen_score': 1.0,
            'rejected_score': 0.0,
        }
    )
    return table[(table.chosen != table.rejected) & p['style'].isin(['invented', 'vague'])].reset_index(drop=True)


def same(a, b):
    return all((x == y).all() for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# ---- the small writer


def test_the_shipped_writer_reads(tiny, values):
    model, tok = tiny
    assert (
        model.card['vocabulary_hash'] == vocabulary_hash()
        and model.card['seed'] == 0
        and tuple(model.card['styles']) == STYLES
    )
    assert reading(model, tok, values, n=64)['tastes'] > 0.95
    files = list((ROOT / 'promax_nb' / 'lettingo' / 'tiny_writer').iterdir())
    assert sum(f.stat().st_size for f in files) < 4e6 and not any(f.suffix in ('.bin', '.pt', '.pkl') for f in files)


def test_habits_are_taught_and_kept(tiny, values, tmp_path):
    few = dict(values=values, path=tmp_path / 'w', steps=4, batch=8)
    before = {name: tensor.clone() for name, tensor in tiny[0].state_dict().items()}
    taught, tok = tiny_room.with_habits(*tiny, **few, counted={'habit': 3, 'vague': 1})
    assert taught.card['habits'] == {'habit': 3, 'vague': 1} and taught.card['reads']['chance'] < 0.5
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny[0].state_dict().items()), 'left as it was'
    again, _ = tiny_room.with_habits(*tiny, **few)  # kept: not taught again
    assert again.card['habits'] == {'habit': 3, 'vague': 1}
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in taught.state_dict().items())


def test_both_sides_of_kto_count_the_same():
    args = types.SimpleNamespace(desirable_weight=1.0, undesirable_weight=1.0)
    align_room._weigh_sides(args, [True] * 30 + [False] * 10, {})
    assert (args.desirable_weight, args.undesirable_weight) == (1.0, 3.0)
    align_room._weigh_sides(args, [True] * 30 + [False] * 30, {'desirable_weight': 2.0})
    assert (args.desirable_weight, args.undesirable_weight) == (1.0, 3.0), 'what was given stays'
    align_room._weigh_sides(args, [True] * 5, {})
    assert (args.desirable_weight, args.undesirable_weight) == (1.0, 3.0), 'one side only: no ratio'


def test_reading_tells_a_reader_from_a_talker(tiny, values):
    """With positions shuffled it speaks the language but cannot point at a place; untrained weights know nothing."""
    import torch

    model, tok = tiny
    blind = copy.deepcopy(model)
    torch.manual_seed(0)
    blind.transformer.wpe.weight.data = blind.transformer.wpe.weight.data[
        torch.randperm(len(blind.transformer.wpe.weight))
    ]
    assert reading(blind, tok, values, n=24)['tastes'] < 0.6
    assert reading(tiny_room.tiny_model(tok, seed=3), tok, values, n=24)['tastes'] < 0.3


def test_texts_follow_the_history(tiny):
    """Sampled texts of a mixture: most claims are true (a guess is in one of eight), and each clerk can be heard."""
    prompt = slot_prompt(['witty', 'mystery', 'music'], ['brisk'], ['horror', 'a distant moon'])
    texts = [a.text for a in writer(*tiny, seed=1).complete_many([prompt] * 60, list(range(60)))]
    f = faithfulness(
        pd.DataFrame({'user': 0, 'writer': 'w', 'sample': range(60), 'prompt': prompt, 'profile': texts}),
        values=tiny_room.world_values(),
    )
    assert (
        f.precision.mean() > 0.45
        and (f.precision == 1).any()
        and (f.precision < 0.5).any()
        and f.precision.isna().any()
    )
    assert len(set(texts)) > 10


def test_every_value_is_one_token_and_texts_come_back(tiny, values):
    _, tok = tiny
    assert all(len(tok(v)['input_ids']) == 1 for v in values)
    for style in STYLES:
        for k in range(20):
            text = styled(style).complete(slot_prompt(values[k : k + 4], [], values[-3:]), k).text
            assert tok.decode(tok(text)['input_ids']) == text and tok.unk_token_id not in tok(text)['input_ids']
    assert tok('quasar')['input_ids'] == [tok.unk_token_id]


def test_another_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValueError, match='another vocabulary'):
        tiny_lm(values=['opera', 'rap', 'jazz'], path=tiny_room.shipped_writer())
    copyof = tmp_path / 'old'
    shutil.copytree(tiny_room.shipped_writer(), copyof)
    card = json.loads((copyof / 'card.json').read_text())
    (copyof / 'card.json').write_text(json.dumps(card | {'vocabulary_hash': '0' * 12}))
    with pytest.raises(ValueError, match='another vocabulary'):
        tiny_lm(path=copyof)


def test_a_writer_of_other_values_is_trained_kept_and_reproduced(tmp_path):
    kinds = ['opera', 'rap', 'jazz', 'hip-hop', "children's songs", 'blues']
    a, tok = tiny_lm(kinds, path=tmp_path / 'w', steps=3, batch=8, slots=2, width=32, layers=1)
    assert (
        a.card['values'] == 6 and a.card['vocabulary_hash'] is None and len(tok("children's songs")['input_ids']) == 1
    )
    b, _ = tiny_lm(kinds, path=tmp_path / 'w')
    assert same(a, b)
    c, _ = tiny_lm(kinds, steps=3, batch=8, slots=2, width=32, layers=1, retrain=True)
    assert same(a, c)
    with pytest.raises(ValueError, match='at least three'):
        tiny_lm(['one', 'two'])


# ---- settings


@pytest.mark.parametrize(
    'wrong, said',
    [
        (dict(loss='sigmiod'), 'unknown'),
        (dict(loss='sigmoid+'), 'unknown'),
        (dict(method='ppo'), 'none of dpo, sft, kto, grpo'),
        (dict(method='grpo', batch=6), 'whole groups'),
        (dict(method='kto', batch=1), 'at least 2'),
        (dict(lr=0), 'above 0'),
        (dict(batch=0), 'at least 1'),
        (dict(loss='exo_pair'), 'label_smoothing'),
        (dict(loss='robust', label_smoothing=0.6), 'below 0.5'),
        (dict(bf16='maybe'), 'none of auto, yes, no'),
        (dict(lora=-1), 'at least 0'),
        (dict(epochs='many'), 'a number above 0'),
        (dict(precompute='perhaps'), 'true or false'),
    ],
)
def test_wrong_settings_get_a_sentence(wrong, said):
    with pytest.raises(ValueError, match=said):
        AlignConfig(**wrong)


def test_settings_are_read_as_their_type_and_have_a_help():
    config = AlignConfig(batch=np.int64(4), epochs=2, lr='3e-4')
    assert (config.batch, config.epochs, config.lr) == (4, 2.0, 3e-4) and type(config.batch) is int
    for settings in (AlignConfig, AlignJob, story_room.LettingoConfig):
        assert all(helps(settings).values()), settings
    assert "'sigmoid' is as published" in helps(story_room.LettingoConfig)['loss']


def test_losses_are_those_of_trl():
    """Every loss TRL's own sentence lists, no more."""
    import inspect

    from trl import DPOTrainer

    text = inspect.getsource(DPOTrainer._compute_loss)
    assert set(re.findall(r'loss_type == "(\w+)"', text)) == set(LOSSES)


def test_bf16_only_in_hardware():
    import torch

    if torch.cuda.is_available():
        pytest.skip('this machine has a graphics card')
    assert not has_bf16() and not use_bf16(AlignConfig())
    with pytest.raises(ValueError, match='no hardware'):
        use_bf16(AlignConfig(bf16='yes'))


def test_alarm_when_the_chosen_texts_fall():
    t = pd.DataFrame({'step': range(0, 50, 5), 'loss': 0.5, 'chosen_shift': -0.3})
    assert alarms(t, AlignConfig()) == []
    fell = alarms(t.assign(chosen_shift=np.linspace(0, -9, 10)), AlignConfig(beta=0.3))
    assert len(fell) == 1 and 'less likely' in fell[0] and "'sigmoid+sft'" in fell[0] and '0.3' in fell[0]
    once = t.assign(chosen_shift=[0, 0, 0, -7, 0, 0, 0, 0, 0, 0])
    assert alarms(once, AlignConfig()) == []  # one log is no trend
    assert 'not a number' in alarms(t.assign(loss=[0.5] * 9 + [np.nan]), AlignConfig())[0]


# ---- what must not be trained on


def test_preflight_refuses_planted_faults(tiny, pairs):
    model, tok = tiny
    with pytest.raises(PreflightError, match='max_length'):
        align(tiny, pairs, **SHORT | {'max_length': 44})
    with pytest.raises(PreflightError, match='users'):
        align(tiny, pairs.head(3), **SHORT)
    with pytest.raises(PreflightError, match='users'):
        align(tiny, pairs.head(3), method='sft', **SHORT)
    with pytest.raises(PreflightError, match='cut at'):
        align(tiny, pairs, method='sft', **SHORT | {'max_length': 44})
    with pytest.raises(PreflightError, match='same text'):
        align(tiny, pairs.assign(rejected=pairs.chosen), **SHORT)
    with pytest.raises(ValueError, match="no column 'rejected'"):
        align(tiny, pairs.drop(columns='rejected'), **SHORT)
    for method in ('dpo', 'sft'):
        never = copy.deepcopy(tok)
        never.chat_template = tiny_room.CHAT_FORMAT.replace('{{ eos_token }}', '')
        with pytest.raises(PreflightError, match='never learn to stop'):
            align((model, never), pairs, method=method, **SHORT)
        merged = copy.deepcopy(tok)
        merged.pad_token = merged.eos_token
        with pytest.raises(PreflightError, match='padding mark'):
            align((model, merged), pairs, method=method, **SHORT)


def test_a_model_without_what_it_needs_gets_a_sentence(tiny, pairs, tmp_path):
    model, _ = tiny
    folder = tmp_path / 'bare'
    model.save_pretrained(folder)
    with pytest.raises(FileNotFoundError, match='no tokenizer'):
        align(folder, pairs, **SHORT)
    with pytest.raises(FileNotFoundError, match='cannot be loaded'):
        align(tmp_path / 'nowhere', pairs, **SHORT)
    with pytest.raises(ValueError, match='the writer is a DataFrame: pass a folder, a name'):
        align(pairs, tiny, **SHORT)
    (tmp_path / 'lora').mkdir()
    (tmp_path / 'lora' / 'adapter_config.json').write_text('{}')
    with pytest.raises(ValueError, match='adapter'):
        align(tmp_path / 'lora', pairs, **SHORT)


# ---- training


@pytest.fixture(scope='module')
def trained(tiny, pairs):
    return align(tiny, pairs, loss='sigmoid+sft', **SHORT | {'max_steps': 20, 'batch': 16, 'lr': 5e-4})


def test_dpo_prefers_what_was_preferred(tiny, pairs, trained):
    h = trained.history
    assert h.margin.iloc[0] == pytest.approx(0, abs=1e-3)  # at the start writer and reference are the same
    assert h.margin.iloc[-3:].mean() > 0.5 and h.accuracy.iloc[-3:].mean() > 0.7 and h.loss.iloc[-1] < h.loss.iloc[0]
    assert same(tiny[0], tiny_lm()[0])  # what was passed in is untouched
    assert (
        list(trained.samples) == ['prompt', 'draw', 'before', 'after']
        and (trained.samples.before != trained.samples.after).any()
    )
    assert trained.card['tokens_per_second'] > 0 and trained.card['versions']['trl'] and trained.folder is None
    prompts = list(pairs.prompt[:64])
    honest = []
    for m, t in (tiny, (trained.model, trained.tokenizer)):
        texts = [a.text for a in writer(m, t, seed=3).complete_many(prompts)]
        honest.append(
            faithfulness(pd.DataFrame({'user': 0, 'writer': 'w', 'sample': 0, 'prompt': prompts, 'profile': texts}))
            .precision.fillna(0)
            .mean()
        )
    assert honest[1] > honest[0] + 0.03  # fewer vague and invented texts than before


def test_the_result_is_clean_and_can_be_trained_on(trained, pairs):
    """A trainer replaces the forward method; a copy of such a model would go on computing with the old weights."""
    again = align((trained.model, trained.tokenizer), pairs, **SHORT)
    assert not same(again.model, trained.model) and 'forward' not in vars(trained.model)
    assert again.history.loss.iloc[0] == pytest.approx(np.log(2), abs=1e-3)


def test_sft_and_losses_pass_through(tiny, pairs):
    sft = align(tiny, pairs, method='sft', **SHORT | {'max_steps': 12, 'batch': 16})
    assert sft.history.loss.iloc[-3:].mean() < sft.history.loss.iloc[:3].mean() and 'margin' not in sft.history
    first = {
        loss: align(tiny, pairs, loss=loss, **SHORT | {'max_steps': 1}).history.loss.iloc[0]
        for loss in ('ipo', 'sigmoid+sft')
    }
    assert first['ipo'] == pytest.approx(
        (1 / (2 * 0.1)) ** 2, rel=1e-3
    )  # at the start the difference is 0: (0 - 1 / (2 beta))^2
    assert first['sigmoid+sft'] > np.log(2) + 0.3  # log 2 and the likelihood of the chosen text


def test_lora_is_merged(tiny, pairs, tmp_path):
    r = align(tiny, pairs, lora=4, out=tmp_path / 'run', **SHORT)
    assert (
        not hasattr(r.model, 'peft_config')
        and not same(r.model, tiny[0])
        and (tmp_path / 'run' / 'adapter' / 'adapter_model.safetensors').exists()
    )
    back = load_align(tmp_path / 'run')
    assert same(back.model, r.model) and back.card['settings']['lora'] == 4
    from peft import LoraConfig, get_peft_model

    worn = get_peft_model(
        tiny_room.clean_copy(tiny[0]), LoraConfig(r=2, task_type='CAUSAL_LM', target_modules='all-linear')
    )
    with pytest.raises(ValueError, match='merge'):
        align((worn, tiny[1]), pairs, **SHORT)


def test_a_tokenizer_without_chat_format(tiny, pairs):
    plain = copy.deepcopy(tiny[1])
    plain.chat_template = None
    r = align((tiny[0], plain), pairs, **SHORT)
    assert r.card['steps'] == 3 and training_rows(pairs.head(1), plain, 'dpo')['chosen'][0].startswith(' Enjoys')


# ---- folders, resume


def test_a_folder_knows_its_training(tiny, pairs, tmp_path):
    out = tmp_path / 'run'
    first = align(tiny, pairs, out=out, **SHORT)
    at = (out / 'card.json').stat().st_mtime_ns
    assert (
        same(align(tiny, pairs, out=out, **SHORT).model, first.model) and (out / 'card.json').stat().st_mtime_ns == at
    )  # finished: nothing is trained
    with pytest.raises(ValueError, match='other beta'):
        align(tiny, pairs, out=out, **SHORT | {'beta': 0.5})
    with pytest.raises(ValueError, match=r'other pairs \(column chosen\), pairs \(column rejected\)'):
        align(tiny, shuffle_preferences(pairs.assign(gap=1.0), 1), out=out, **SHORT)
    assert align(tiny, pairs, out=out, resume=False, **SHORT | {'beta': 0.5}).card['settings']['beta'] == 0.5
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'letter.txt').write_text('dear')
    for resume in (True, False):
        with pytest.raises(ValueError, match='not the folder of a training'):
            align(tiny, pairs, out=tmp_path / 'mine', resume=resume, **SHORT)
    assert (tmp_path / 'mine' / 'letter.txt').read_text() == 'dear'
    with pytest.raises(FileNotFoundError, match='no finished training'):
        load_align(tmp_path / 'mine')


def test_every_part_of_a_training_has_a_name(tiny, pairs, tmp_path):
    """What decides the numbers is in the identity, by content; what does not, is not."""
    model, tok = tiny
    few, config = pairs.head(20), AlignConfig()
    mine = alignment_parts(model, tok, few, config)

    def changed(net=model, words=tok, table=few, **settings):
        return differences(mine, alignment_parts(net, words, table, dataclasses.replace(config, **settings)))

    assert changed() == [] and changed(save_steps=7, keep=1, log_steps=1, device='cpu') == []
    model.save_pretrained(tmp_path / 'm')
    tok.save_pretrained(tmp_path / 'm')
    net, words, _ = load_writer(tmp_path / 'm', config)
    assert changed(net, words) == []  # a writer is the same in memory and in a folder
    tok(['a', 'a b c'], padding=True, truncation=True, max_length=2)
    assert changed() == []  # how it was called last is no part of it
    one_weight = tiny_room.clean_copy(model)
    one_weight.transformer.wte.weight.data[3, 5] += 1e-3  # not among those that a mark looks at
    assert weights_mark(one_weight) == weights_mark(model) and changed(one_weight) == ['model']
    noisy = tiny_room.clean_copy(model)
    noisy.config.resid_pdrop = 0.1
    assert changed(noisy) == ['settings of the model']
    other = copy.deepcopy(tok)
    other.chat_template = tok.chat_template.replace("bos_token }}", "bos_token }} ")
    assert changed(words=other) == ['tokenizer']
    assert changed(table=few.assign(chosen=few.chosen + '!')) == ['pairs (column chosen)']
    assert changed(seed=1) == ['seed (0 -> 1)'] and changed(table=few.assign(note='x')) == []


def test_scores_that_choose_the_examples_are_part_of_the_training(tiny, pairs, tmp_path):
    """SFT on pairs takes each user's best text: other scores, other examples."""
    twice = pd.concat([pairs.head(20), pairs.head(20).assign(chosen=pairs.chosen[1:21].to_numpy(), chosen_score=0.5)])
    align(tiny, twice, method='sft', out=tmp_path / 'run', **SHORT)
    turned = twice.assign(chosen_score=1.5 - twice.chosen_score)
    with pytest.raises(ValueError, match='other pairs'):
        align(tiny, turned, method='sft', out=tmp_path / 'run', **SHORT)


def test_the_result_holds_no_pickle_and_no_path(tiny, pairs, tmp_path):
    for lora in (0, 2):
        out = tmp_path / f'run{lora}'
        align(tiny, pairs, out=out, lora=lora, **SHORT)
        files = [file for file in out.rglob('*') if file.is_file()]
        assert {file.suffix for file in files} <= {'.json', '.safetensors', '.parquet', '.jinja', '.md'}
        assert not any(str(tmp_path).encode() in file.read_bytes() for file in files)


def test_other_prompts_are_answered_by_a_finished_training(tiny, pairs, tmp_path):
    first = align(tiny, pairs, out=tmp_path / 'run', **SHORT)
    assert set(first.samples.prompt) == set(pairs.prompt[:4])
    again = align(tiny, pairs, out=tmp_path / 'run', prompts=[pairs.prompt[9]], **SHORT)
    assert set(again.samples.prompt) == {pairs.prompt[9]} and again.samples.before.str.len().gt(0).all()
    assert again.history.equals(first.history)


def test_interrupted_off_the_grid_the_curves_are_those_of_a_straight_run(tiny, pairs, tmp_path, monkeypatch):
    """A point of the curves is a mean since the last one, which no checkpoint keeps."""
    how = SHORT | {'max_steps': 9, 'log_steps': 3, 'save_steps': 2}
    straight = align(tiny, pairs, **how)
    watcher = align_room.watcher

    def stops_at_seven(*args):
        watch = watcher(*args)
        go_on = watch.on_step_end

        def on_step_end(args, state, control, **kw):
            go_on(args, state, control, **kw)
            if state.global_step == 7:
                raise KeyboardInterrupt

        watch.on_step_end = on_step_end
        return watch

    with monkeypatch.context() as m:
        m.setattr(align_room, 'watcher', stops_at_seven)
        with pytest.raises(KeyboardInterrupt):
            align(tiny, pairs, out=tmp_path / 'run', **how)
    assert last_checkpoint(tmp_path / 'run' / 'checkpoints')
    resumed = align(tiny, pairs, out=tmp_path / 'run', **how)
    assert same(resumed.model, straight.model)
    pd.testing.assert_frame_equal(resumed.history, straight.history, rtol=1e-6)


def test_half_written_checkpoints_are_passed_over(tmp_path):
    def make(step, state=None, optimizer=b''):
        d = tmp_path / f'checkpoint-{step}'
        d.mkdir()
        if state is not None:
            (d / 'trainer_state.json').write_text(state)
        if optimizer:
            (d / 'optimizer.pt').write_bytes(optimizer)

    assert last_checkpoint(tmp_path) is None
    make(5, '{"global_step": 5}')
    make(10, '{"global_step": 10}')
    make(15)
    make(20, '{"global_st')
    make(25, '{"global_step": 25}', b'cut off')
    assert last_checkpoint(tmp_path) == str(tmp_path / 'checkpoint-10')


KILLED = '''
import sys, pandas as pd
from promax_nb.lettingo.align import align; from promax_nb.lettingo.tiny import tiny_lm
align(tiny_lm(), pd.read_parquet(sys.argv[1]), out=sys.argv[2], max_steps=40, batch=4, lr=1e-3, max_ratio=9.,
      min_users=5, log_steps=1, save_steps=5, progress=False)
'''


def test_killed_in_the_middle_it_ends_at_the_same_place(tiny, pairs, tmp_path):
    pairs.to_parquet(tmp_path / 'p.parquet')
    out = tmp_path / 'run'
    child = subprocess.Popen(
        [sys.executable, '-c', KILLED, str(tmp_path / 'p.parquet'), str(out)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        for _ in range(1200):
            if last_checkpoint(out / 'checkpoints') or child.poll() is not None:
                break
            time.sleep(0.1)
        assert child.poll() is None, child.stderr.read().decode()[-800:]
        child.send_signal(signal.SIGKILL)
        child.wait()
    finally:
        child.kill()
    reached = int(last_checkpoint(out / 'checkpoints').split('-')[-1])
    assert 5 <= reached < 40 and not (out / 'card.json').exists()
    how = dict(SHORT, max_steps=40, save_steps=5)
    whole = align(tiny, pairs, **how)
    resumed = align(tiny, pairs, out=out, **how)
    assert same(resumed.model, whole.model) and resumed.history.step.tolist() == whole.history.step.tolist()
    assert np.allclose(resumed.history.loss, whole.history.loss) and np.allclose(
        resumed.history.margin, whole.history.margin
    )


# ---- KTO and GRPO: single texts, and rewards


GRPO = dict(SHORT, method='grpo', rollouts=2, max_new=24, batch=8)


def test_kto_learns_from_single_texts(tiny, pairs):
    """Pairs taken apart, or texts with a label: good ones rise against bad ones."""
    r = align(tiny, pairs, method='kto', **SHORT | {'max_steps': 14, 'batch': 16, 'lr': 5e-4})
    assert r.history.margin.iloc[-3:].mean() > 0.2 and 'chosen_shift' in r.history and not same(r.model, tiny[0])
    single = single_rows(pairs)
    assert single.label.sum() == len(pairs.drop_duplicates(['prompt', 'chosen'])) and not single.duplicated().any()
    again = align(tiny, single, method='kto', **SHORT)
    assert again.card['method'] == 'kto'
    with pytest.raises(PreflightError, match='learns from both'):
        align(tiny, single[single.label], method='kto', **SHORT)
    with pytest.raises(ValueError, match='single_texts'):
        align(tiny, pairs.drop(columns='rejected'), method='kto', **SHORT)


def test_grpo_follows_its_rewards(tiny, pairs):
    both = [claims_reward(), claims_reward('recall')]
    r = align(tiny, pairs, reward=both, **GRPO | {'max_steps': 12, 'batch': 32, 'lr': 5e-4, 'rollouts': 4})
    h = r.history
    assert h.reward.iloc[-3:].mean() > h.reward.iloc[:3].mean() + 0.1
    assert {'reward: precision', 'reward: recall', 'length', 'entropy'} <= set(h) and r.card['rewards'] == [
        'precision',
        'recall',
    ]
    assert set(r.samples.draw) == {'likeliest', 'sample 0', 'sample 1'}


@pytest.mark.parametrize(
    'reward, said',
    [
        (lambda prompts, texts, users: [float('nan')] * len(texts), r'is not a number for 8 of 8 texts'),
        (lambda prompts, texts, users: [1 / 0], r'failed \(ZeroDivisionError'),
        (lambda prompts, texts, users: [1.0], 'return one each'),
    ],
)
def test_a_reward_that_fails_ends_in_a_sentence(tiny, pairs, reward, said):
    with pytest.raises(RewardError, match=said):
        align(tiny, pairs, reward=reward, **GRPO)


def test_rewards_belong_to_grpo_and_have_names(tiny, pairs):
    with pytest.raises(ValueError, match='needs a reward'):
        align(tiny, pairs, **GRPO)
    with pytest.raises(ValueError, match='uses no reward'):
        align(tiny, pairs, reward=claims_reward(), **SHORT)
    with pytest.raises(ValueError, match='one name'):
        align(tiny, pairs, reward=[claims_reward(), claims_reward()], **GRPO)
    with pytest.raises(PreflightError, match='max_length'):
        align(tiny, pairs, reward=claims_reward(), **GRPO | {'max_length': 60})


def test_the_table_trl_reaches_every_setting_and_refuses_others(tiny, pairs, tmp_path):
    for method in ('sft', 'dpo', 'kto', 'grpo'):
        config = AlignConfig(method=method, trl={'weight_decay': 0.25, 'max_grad_norm': 7.0}, device='cpu')
        made = trl_arguments(config, tmp_path)
        assert made.weight_decay == 0.25 and made.max_grad_norm == 7.0 and made.report_to == []
        with pytest.raises(ValueError, match="'wieght_decay' in the table trl: did you mean 'weight_decay'"):
            trl_arguments(AlignConfig(method=method, trl={'wieght_decay': 1}), tmp_path)
        with pytest.raises(ValueError, match='set by name outside'):
            trl_arguments(AlignConfig(method=method, trl={'output_dir': '/'}), tmp_path)
    assert trl_arguments(AlignConfig(report_to='tensorboard,wandb', device='cpu'), tmp_path).report_to == [
        'tensorboard',
        'wandb',
    ]
    with pytest.raises(ValueError, match='refuses the settings'):
        trl_arguments(AlignConfig(method='grpo', trl={'num_generations': 1}, device='cpu'), tmp_path)
    file = tmp_path / 'a.toml'
    file.write_text('model = "tiny"\npairs = "p"\nout = "o"\nmethod = "grpo"\n[trl]\nloss_typ = "dapo"\n')
    pairs.to_parquet(tmp_path / 'p.parquet')
    with pytest.raises(ValueError, match="did you mean 'loss_type'"):
        align_from_config(
            file, pairs=str(tmp_path / 'p.parquet'), out=str(tmp_path / 'o'), reward='precision', min_users=5
        )


def test_promax_align_takes_method_and_reward(pairs, tmp_path, capsys):
    pairs.to_parquet(tmp_path / 'p.parquet')
    (tmp_path / 'a.toml').write_text(
        f'model = "tiny"\npairs = "{tmp_path}/p.parquet"\nout = "{tmp_path}/o"\nbatch = 8\nrollouts = 2\nmax_new = 24\n'
        'min_users = 5\nlr = 1e-3\nlog_steps = 1\n[trl]\nscale_rewards = "none"\n'
    )
    how = ['align', '--config', str(tmp_path / 'a.toml'), '--max-steps', '2']
    assert main([*how, '--method', 'grpo', '--reward', 'precision,length']) == 0
    assert 'reward' in capsys.readouterr().out
    assert load_align(tmp_path / 'o').card['rewards'] == ['precision', 'length']


@pytest.mark.parametrize('method', ['kto', 'grpo'])
def test_stopped_and_continued_it_ends_at_the_same_place(tiny, pairs, tmp_path, monkeypatch, method):
    how = (GRPO if method == 'grpo' else SHORT) | {'method': method, 'max_steps': 6, 'save_steps': 2}
    how |= {'reward': claims_reward('recall')} if method == 'grpo' else {}
    straight = align(tiny, pairs, **how)
    watcher = align_room.watcher

    def stops_at_five(*args):
        watch = watcher(*args)
        go_on = watch.on_step_end

        def on_step_end(args, state, control, **kw):
            go_on(args, state, control, **kw)
            if state.global_step == 5:
                raise KeyboardInterrupt

        watch.on_step_end = on_step_end
        return watch

    with monkeypatch.context() as m:
        m.setattr(align_room, 'watcher', stops_at_five)
        with pytest.raises(KeyboardInterrupt):
            align(tiny, pairs, out=tmp_path / 'run', **how)
    assert last_checkpoint(tmp_path / 'run' / 'checkpoints').endswith('checkpoint-4')
    resumed = align(tiny, pairs, out=tmp_path / 'run', **how)
    assert same(resumed.model, straight.model)
    pd.testing.assert_frame_equal(resumed.history, straight.history, rtol=1e-6)
    if method == 'grpo':
        with pytest.raises(ValueError, match='other rewards'):
            align(tiny, pairs, out=tmp_path / 'run', **how | {'reward': claims_reward()})


def test_the_ranking_is_a_reward():
    """A text near what was held out is worth more; beside the mean of the history only what is new to it counts."""
    rng = np.random.default_rng(0)
    camps = rng.normal(size=(4, 16))
    items = np.repeat(camps, 25, axis=0) + 0.3 * rng.normal(size=(100, 16))
    said = {'zero': camps[0], 'one': camps[1], 'two': camps[2]}

    def encode(texts):
        return np.stack([said[text] for text in texts])

    held, shown = {5: [3, 4, 28]}, {5: [0, 1, 2]}
    alone = rank_reward(items, encode, held, shown)
    beside = rank_reward(items, encode, held, shown, beside_mean=True)
    texts = ['zero', 'one', 'two']
    worth, added = (rewarded(r, [''] * 3, texts, [5] * 3) for r in (alone, beside))
    assert worth[0] > worth[1] > worth[2] and added[1] > max(added[0], 0) and added[2] < 0
    with pytest.raises(RewardError, match='heldout has no items of 1 users'):
        rewarded(alone, [''], ['zero'], [9])
    assert (share_left_behind(rng.normal(size=(400, 50)), [[7]] * 400, [[1]] * 400).mean() - 0.5) < 0.05


# ---- config files, several processes


def test_config_files_are_valid():
    from accelerate.commands.config.config_args import load_config_from_file

    known = {f.name for f in dataclasses.fields(AlignConfig)}
    seen = set()
    for file in sorted((ROOT / 'configs').glob('*.toml')):
        text = file.read_text()
        values = tomllib.loads(text)
        assert {'model', 'pairs', 'out'} <= set(values), file.name
        assert set(values) <= known | {f.name for f in dataclasses.fields(AlignJob)}, file.name
        config = AlignConfig(**{k: v for k, v in values.items() if k in known})
        for name in re.findall(r'configs/[\w.-]+', text):
            assert (ROOT / name).exists(), f'{file.name} speaks of {name}'
        assert config.method in ('dpo', 'sft')
        seen |= set(re.findall(r'configs/(accelerate-[\w.-]+)', text))
    for file in sorted((ROOT / 'configs').glob('*.yaml')):
        c = load_config_from_file(str(file))
        assert c.num_processes >= 1 and file.name in seen
        if 'fsdp' in file.name:
            assert str(c.distributed_type).endswith('FSDP') and c.fsdp_config['fsdp_version'] == 2
    assert len(seen) == 3


def test_a_config_file_trains_and_wrong_ones_get_a_sentence(pairs, tmp_path):
    save_pairs(pairs.assign(gap=1.0, gap_se=0.1), tmp_path / 'pairs')
    file = tmp_path / 'run.toml'

    def write(**kw):
        file.write_text('\n'.join(f'{k} = {json.dumps(v)}' for k, v in kw.items()))

    good = dict(
        model='tiny',
        pairs=str(tmp_path / 'pairs'),
        out=str(tmp_path / 'out'),
        max_steps=2,
        batch=4,
        max_ratio=9,
        min_users=5,
        lr=1e-3,
    )
    write(**good)
    r = align_from_config(file)
    assert r.card['steps'] == 2 and (tmp_path / 'out' / 'model' / 'model.safetensors').exists()
    write(**good, betta=0.2)
    with pytest.raises(ValueError, match="did you mean 'beta'"):
        align_from_config(file)
    write(model='tiny')
    with pytest.raises(ValueError, match='pairs, out'):
        align_from_config(file)
    file.write_text('= 1')
    with pytest.raises(ValueError, match='valid TOML'):
        align_from_config(file)
    with pytest.raises(FileNotFoundError, match='no file'):
        align_from_config(tmp_path / 'none.toml')


@FULL  # in every run the configuration files are checked, and that one process trains
def test_two_processes_train_together_full(pairs, tmp_path):
    """accelerate launch with two CPU processes: one result, the same as one process with twice the batch."""
    pairs.head(64).to_parquet(tmp_path / 'p.parquet')
    script = tmp_path / 'go.py'
    script.write_text(
        "import sys\nfrom promax_nb.lettingo.align import align_from_config\nalign_from_config(sys.argv[1])\n"
    )
    common = dict(
        model='tiny',
        pairs=str(tmp_path / 'p.parquet'),
        max_steps=3,
        max_ratio=9.0,
        min_users=5,
        lr=1e-3,
        log_steps=1,
        device='cpu',
    )
    for n, batch in ((2, 4), (1, 8)):
        own = common | {'out': str(tmp_path / f'out{n}'), 'batch': batch}
        (tmp_path / f'{n}.toml').write_text('\n'.join(f'{k} = {json.dumps(v)}' for k, v in own.items()))
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    launch = [
        str(Path(sys.executable).parent / 'accelerate'),
        'launch',
        '--config_file',
        str(ROOT / 'configs' / 'accelerate-cpu.yaml'),
    ]
    done = subprocess.run(
        [*launch, '--main_process_port', str(port), str(script), str(tmp_path / '2.toml')],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    two, one = load_align(tmp_path / 'out2'), align_from_config(tmp_path / '1.toml')
    assert two.card['processes'] == 2 and two.card['steps'] == 3
    a, b = (np.concatenate([p.detach().numpy().ravel() for p in r.model.parameters()]) for r in (two, one))
    start = np.concatenate([p.detach().numpy().ravel() for p in tiny_lm()[0].parameters()])
    assert np.linalg.norm(a - b) < 0.1 * np.linalg.norm(b - start)  # the same pairs in every step, averaged


# ---- comparisons


def test_movement_has_a_known_answer():
    items = np.eye(3)
    liked = sp.csr_matrix([[0, 1, 0], [0, 0, 0], [1, 0, 0]])
    before, after = np.array([[1.0, 0, 0], [1, 0, 0], [1, 0, 0]]), np.array([[0.0, 1, 0], [0, 1, 0], [1, 0, 0]])
    m = loop_room.movement(before, after, items, liked)
    assert m.user.tolist() == [0, 2] and np.allclose(m.moved, [1, 0]) and np.allclose(m.gain, [1, 0])


def test_the_loop_can_be_closed_for_a_few_users():
    data = toy_data(60, 60, seed=1)
    some = np.array([5, 9, 20, 31, 40, 41, 42, 50, 51, 59])
    part = loop_room.shop_of(data, some)
    assert (
        part.shape == (10, 60)
        and (part.train != data.train[some]).nnz == 0
        and part.users.user.tolist() == data.users.user[some].tolist()
    )
    texts = {n: pd.DataFrame({'user': some, 'profile': [f'Likes {n} {u}.' for u in some]}) for n in ('x', 'y')}
    r = loop_room.close_loop(data, texts, some, dim=4, epochs=2, min_steps=1)
    assert (
        set(r['movement'].user) <= set(some)
        and r['vectors']['x'].shape[0] == 10
        and list(r['table']) == ['base', 'x', 'y']
    )


def test_sets_of_profiles_may_be_called_anything_but_base(tmp_path):
    data, names = toy_data(30, 60, seed=1), ('a/../b', 'AUX', 'Kind', 'kind')
    texts = {n: pd.DataFrame({'user': range(30), 'profile': [f'Likes {n} {u}.' for u in range(30)]}) for n in names}
    found = loop_room.close_loop(data, texts, out=tmp_path / 'loop', dim=4, epochs=1, min_steps=1)
    assert list(found['table']) == ['base', *names]
    folders = [path.name for path in (tmp_path / 'loop').iterdir() if path.is_dir()]
    assert len({name.lower() for name in folders}) == 5 and [path.name for path in tmp_path.iterdir()] == ['loop']
    with pytest.raises(ValueError, match="called 'base'.*rename"):
        loop_room.close_loop(data, {'base': texts['AUX']})


@pytest.mark.parametrize('start', ['as is', 'SFT'])
def test_what_dpo_begins_with(start, monkeypatch):
    began = []

    def fake(model, table, out=None, **how):
        began.append(model)
        return align_room.AlignResult('after', 'tok', None, None, {'steps': 1, 'seconds': 1.0})

    monkeypatch.setattr(ablation_room, 'align', fake)
    pairs = pd.DataFrame(
        {'user': [0, 1], 'prompt': ['p', 'q'], 'chosen': ['a', 'b'], 'rejected': ['c', 'd'], 'gap': [1.0, 1.0]}
    )
    ablation_room.train_writers(('model', 'tok'), pairs, start=start)
    assert (
        began == [('model', 'tok')] * 3
        if start == 'as is'
        else began == [('model', 'tok'), ('after', 'tok'), ('after', 'tok')]
    )
    with pytest.raises(ValueError, match="start is 'dpo'"):
        ablation_room.train_writers(('model', 'tok'), pairs, start='dpo')


def test_length_control_takes_the_nearest_text():
    pool = pd.DataFrame({'user': [0, 0, 0, 1], 'sample': [0, 1, 2, 0], 'profile': ['a', 'a b c', 'a b c d e f', 'x']})
    pool = pool.assign(writer='as is', prompt='p', status='ok', reason=None)
    like = pd.DataFrame(
        {'user': [0, 0, 1], 'sample': [0, 1, 0], 'profile': ['1 2 3 4', '1 2 3 4 5 6 7', '1 2'], 'writer': 'DPO'}
    )
    got = ablation_room.by_length(pool, like, 'c').set_index(['user', 'sample']).profile
    assert got.loc[(0, 0)] == 'a b c' and got.loc[(0, 1)] == 'a b c d e f' and got.loc[(1, 0)] == 'x'


@pytest.fixture(scope='module')
def small_run(tmp_path_factory):
    said = []
    out = tmp_path_factory.mktemp('lettingo') / 'run'
    how = dict(users=150, test_users=40, samples=4, test_samples=2, epochs=1.0, loop=False, seed=3)
    return story_room.lettingo(out, say=said.append, **how), said, how


def test_all_stages_in_one_call(small_run):
    r, said, how = small_run
    out = r['folder']
    t = r['ablation'].table
    assert {
        'none',
        'as is',
        'SFT',
        'DPO',
        'DPO shuffled',
        'as is, length of DPO',
        'best of as is',
        'as is, greedy',
        'DPO, greedy',
        'GRPO',
        'GRPO, greedy',
    } <= set(t.index)
    assert (
        t.loc['best of as is', 'logp'] > t.loc['as is', 'logp']
        and t.loc['style:true', 'accuracy'] > t.loc['style:invented', 'accuracy']
    )
    assert (
        t.loc['style:true', 'precision_history'] == 1
        and t.loc['style:invented', 'precision_history'] < 0.5
        and (t.users == 40).all()
    )
    assert not set(r['pairs'].user) & set(r['ablation'].profiles.user)
    assert t.loc['DPO', 'seconds'] > t.loc['SFT', 'seconds'] > 0  # DPO began after SFT, so its time holds both
    summary = json.loads((out / 'lettingo.json').read_text())
    assert (
        summary['history']['like'] == 5
        and summary['verdict']
        and summary['greedy'].startswith('accuracy of greedy texts: DPO against as is: ')
        and 'GRPO against SFT: ' in summary['greedy']
        and {'vectors', 'lexical', 'history', 'truth'} <= {d['judge'] for d in summary['differences']}
    )
    for name in ('ablation', 'differences', 'test-profiles', 'profiles'):
        assert len(pd.read_parquet(out / f'{name}.parquet'))


def test_a_judge_that_is_not_above_the_commonest_answer_is_not_used(tmp_path, monkeypatch):
    def guesses(profiles, *args, **kwargs):
        return profiles[['user', 'writer', 'sample']].assign(correct=0.3)

    monkeypatch.setattr(story_room, 'judge', guesses)
    with pytest.raises(ValueError, match='the lexical judge is right in 30.0%.*by guessing: it is not used'):
        story_room.lettingo(tmp_path / 'run', say=lambda text: None, users=60, test_users=20, samples=1, loop=False)


def test_the_same_call_again_asks_and_trains_nothing(small_run, monkeypatch):
    r, said, how = small_run
    monkeypatch.setattr(local_room.Local, 'complete_many', lambda *a, **k: pytest.fail('a text was written twice'))
    monkeypatch.setattr(align_room, 'make_trainer', lambda *a, **k: pytest.fail('a writer was trained twice'))
    again = story_room.lettingo(r['folder'], say=lambda s: None, **how)
    pd.testing.assert_frame_equal(
        again['ablation'].table.drop(columns='seconds'), r['ablation'].table.drop(columns='seconds')
    )
    with pytest.raises(ValueError, match='other beta'):
        story_room.lettingo(r['folder'], say=lambda s: None, **how, beta=0.3)
    with pytest.raises(ValueError, match='other writer'):
        blank = tiny_room.tiny_model(tiny_lm()[1], seed=1)
        story_room.lettingo(r['folder'], base=(blank, tiny_lm()[1]), say=lambda s: None, **how)
    with pytest.raises(ValueError, match='other further writers'):
        story_room.lettingo(r['folder'], others=[styled('vague')], say=lambda s: None, **how)
    with pytest.raises(ValueError, match='other user table'):
        renamed = toy_data(190, 400, seed=3, density='dense', reveal=0.95, split='temporal', noise=0.25)
        renamed.users['user'] = renamed.users['user'].astype(str) + '?'
        story_room.lettingo(r['folder'], renamed, say=lambda s: None, **how)
    with pytest.raises(ValueError, match='other item texts'):
        told = toy_data(190, 400, seed=3, density='dense', reveal=0.95, split='temporal', noise=0.25)
        told.items['title'] = told.items['title'] + '!'
        story_room.lettingo(r['folder'], told, say=lambda s: None, **how)
    with pytest.raises(ValueError, match='no training has seen'):
        history = split_history(toy_data(20, 250, density='dense', split='temporal'), 5, 20, 3)
        ablation_room.ablation(None, history, None, None, r['pairs'], users=list(r['pairs'].user[:2]))


def test_lettingo_and_align_from_the_shell(small_run, tmp_path, capsys):
    out = shutil.copytree(small_run[0]['folder'], tmp_path / 'L')
    same = '--users 150 --test-users 40 --samples 4 --test-samples 2 --epochs 1 --no-loop'.split()
    assert main(['lettingo', '--out', str(out), *same, '--seed', '3']) == 0
    said = capsys.readouterr().out
    assert 'as is' in said and 'DPO against' in said and 'report.html' in said
    summary = json.loads((out / 'lettingo.json').read_text())
    assert {'none', 'as is', 'SFT', 'DPO'} <= set(summary['ablation'])
    page = (out / 'report.html').read_text(encoding='utf-8')
    assert 'DPO: log-probability of chosen and rejected texts' in page and 'src="http' not in page
    assert main(['lettingo', '--out', str(out), *same, '--seed', '5']) == 2
    assert 'seed (3 -> 5)' in capsys.readouterr().err
    toml = tmp_path / 'align.toml'
    where = f'pairs = "{out / "pairs"}"\nout = "{tmp_path / "A"}"\n'
    toml.write_text(f'model = "tiny"\n{where}max_steps = 2\nmin_users = 1\nmax_ratio = 9.0\ndevice = "cpu"\n')
    assert main(['align', '--config', str(toml)]) == 0 and 'The aligned writer' in capsys.readouterr().out
    assert main(['align', '--config', str(tmp_path / 'none.toml')]) == 2 and 'none.toml' in capsys.readouterr().err
    toml.write_text(toml.read_text() + 'loss = "nonsense"\n')
    assert main(['align', '--config', str(toml)]) == 2 and 'nonsense' in capsys.readouterr().err


class Clerk:
    """A writer that costs money."""

    name, form, params = 'clerk', 'slots', {'max_tokens': 5}

    def __init__(self):
        self.asked = []

    def __call__(self, prompt):
        self.asked.append(prompt)
        return f'Enjoys witty, {len(self.asked)}.'


def test_a_budget_holds_over_a_killed_call_and_the_next(tmp_path, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(story_room, '_judged', killed)
    how = dict(users=8, test_users=4, samples=1, budget=0.15, price=(500.0, 500.0), say=lambda text: None)
    clerks = Clerk(), Clerk()
    for clerk in clerks:
        with pytest.raises(KeyboardInterrupt):
            story_room.lettingo(tmp_path / 'run', others=[clerk], **how)
    with Purse(0.15, store=tmp_path / 'run' / 'profiles.db') as purse:
        assert 0 < purse.spent <= 0.15
    assert 0 < len(clerks[0].asked) < 8 and clerks[1].asked == []  # the first call has used it up


# ---- a server of the ecosystem


def test_http_round_trip_as_writer(tiny, tmp_path):
    """The small writer behind `transformers serve`, asked through chat like any hosted model."""
    for part in ('fastapi', 'uvicorn'):
        pytest.importorskip(part, reason='REDUCED RUN: pip install "transformers[serving]" to test the HTTP round trip')
    from promax_nb.profiles.ask import ask
    from promax_nb.profiles.llm import chat

    folder = tmp_path / 'served'
    tiny[0].save_pretrained(folder)
    tiny[1].save_pretrained(folder)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    serve = [
        str(Path(sys.executable).parent / 'transformers'),
        'serve',
        str(folder),
        '--host',
        '127.0.0.1',
        '--port',
        str(port),
        '--device',
        'cpu',
    ]
    server = subprocess.Popen(
        serve,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1'},
    )
    try:
        for _ in range(600):
            with socket.socket() as s:
                if s.connect_ex(('127.0.0.1', port)) == 0:
                    break
            assert server.poll() is None, server.stderr.read().decode()[-800:]
            time.sleep(0.1)
        llm = chat(
            str(folder), base_url=f'http://127.0.0.1:{port}/v1', api_key_env=None, max_tokens=40, temperature=0.0
        )
        prompt = slot_prompt(['witty', 'mystery'], [], ['horror'])
        got = ask(llm, [prompt], tmp_path / 's.db', progress=False)
        assert got.status[0] == 'ok', got.error[0]
        assert got.answer[0] == writer(*tiny, temperature=0.0)(prompt)  # the same text as without a server
    finally:
        server.kill()
        server.wait()


# ---- full size


@FULL
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_full_dpo_beats_sft_and_as_is_on_unseen_users(seed, tmp_path):
    r = story_room.lettingo(tmp_path / 'run', seed=seed, loop=False)
    d = r['ablation'].differences.set_index(['judge', 'metric', 'from', 'to'])
    for a in ('as is', 'SFT'):
        assert d.loc[('lexical', 'accuracy', a, 'DPO'), 'low'] > 0
    assert (
        d.loc[('lexical', 'accuracy', 'SFT', 'DPO shuffled'), 'low'] <= 0
        and d.loc[('vectors', 'accuracy', 'as is', 'DPO'), 'difference'] > 0
    )
    for m in ('precision', 'recall'):
        for known in ('history', 'truth'):
            assert d.loc[(known, m, 'as is', 'DPO'), 'difference'] >= 0
    for by in ('lexical', 'vectors'):  # the fair test: likeliest texts
        for a in ('as is, greedy', 'SFT, greedy'):
            assert d.loc[(by, 'accuracy', a, 'GRPO, greedy'), 'low'] > 0
    for m in ('precision', 'recall'):
        assert d.loc[('history', m, 'SFT, greedy', 'GRPO, greedy'), 'low'] > 0
    assert story_room.truth_alarm(r['ablation']) == '' == r['summary']['less true']
