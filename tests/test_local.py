"""A model on this machine: its type, beginnings that are computed once, rows that leave, labels scored in one pass."""

import numpy as np
import pytest
import torch

from promax_nb.lettingo import llm_judge
from promax_nb.lettingo.llm_judge import label_logprobs
from promax_nb.profiles import gguf as gguf_room
from promax_nb.profiles import local as room
from promax_nb.profiles.answers import as_answer
from promax_nb.profiles.ask import ask
from promax_nb.profiles.decoding import can_continue
from promax_nb.profiles.gguf import from_gguf
from promax_nb.profiles.local import compute_type, local
from promax_nb.profiles.stems import Stem, arranged, stems

WORDS = [f'w{n}' for n in range(180)] + ['like', 'neutral', 'dislike']
SHAPE = dict(
    vocab_size=len(WORDS) + 3,
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    eos_token_id=0,
    pad_token_id=1,
    bos_token_id=None,
    initializer_range=0.4,
)


@pytest.fixture(scope='module')
def small():
    """A Llama of random weights that speaks words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(['<end>', '<pad>', '?', *WORDS])}, '?'))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok = PreTrainedTokenizerFast(tokenizer_object=words, eos_token='<end>', pad_token='<pad>', unk_token='?')
    torch.manual_seed(3)
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).eval(), tok


def prompts(n=9):
    """A common beginning of 40 words and endings of different lengths."""
    start = ' '.join(WORDS[:40])
    return [f'{start} {" ".join(WORDS[50 + k : 52 + 3 * k + k])}' for k in range(n)]


def watched(llm, monkeypatch):
    """The token ids of every call of the model."""
    seen = []
    forward = llm.model.forward

    def listening(*args, **named):
        seen.append(args[0] if args else named['input_ids'])
        return forward(*args, **named)

    monkeypatch.setattr(llm.model, 'forward', listening)
    monkeypatch.setattr('promax_nb.profiles.decoding.can_continue', lambda model: True)  # its signature is hidden
    return seen


def ending(small, **options):
    """The same model, for which every fourth word is an end."""
    import copy

    model = copy.deepcopy(small[0])
    model.generation_config.eos_token_id = list(range(0, len(WORDS), 4))
    return local((model, small[1]), **options)


def finished(llm, prompt):
    """The answer of one prompt, an empty one too."""
    (answer,) = llm.complete_many([prompt])
    return getattr(answer, 'answer', answer)


def people():
    """Three people with a history each, two or three profiles of each, items at the end; one question twice."""
    asked = []
    for person in range(3):
        history = ' '.join(WORDS[:40] + WORDS[40 + 20 * person : 80 + 20 * person])
        for profile in range(2 + person % 2):
            text = ' '.join(WORDS[3 * profile : 40 + 3 * profile])
            asked += [f'{history} {text} {" ".join(WORDS[120 + k : 121 + k + k % 3])}' for k in range(4)]
    return [*asked[::-1], asked[0]]


def test_a_shared_beginning_changes_no_text(small, monkeypatch):
    asked, llm = prompts(), local(small, max_new_tokens=24)
    ids = [llm.token_ids(prompt) for prompt in asked]
    assert stems(sorted(ids)).end == 40
    together = [answer.text for answer in llm.complete_many(asked)]
    assert together == [llm.complete(prompt).text for prompt in asked] and len(set(together)) > 3
    monkeypatch.setattr(room, '_reads_apart', lambda llm: False)
    assert together == [answer.text for answer in llm.complete_many(asked)]


def test_every_stem_is_read_once_and_no_row_is_padded_much(small, monkeypatch):
    llm, asked = local(small, max_new_tokens=20), people()
    texts = [llm.complete(prompt).text for prompt in asked]
    seen = watched(llm, monkeypatch)
    assert [answer.text for answer in llm.complete_many(asked)] == texts
    read = [tuple(ids.shape) for ids in seen if ids.shape[1] > 1 or len(seen) < 3]
    assert read[:3] == [(1, 40), (1, 40), (1, 40)]  # all, a person, a profile
    assert sum(rows * width for rows, width in read) < 0.35 * sum(len(llm.token_ids(prompt)) for prompt in asked)


def test_rows_leave_when_they_have_ended(small, monkeypatch):
    llm = ending(small, max_new_tokens=12, temperature=2.0)
    asked = [f'{WORDS[k]} {WORDS[2 * k]}' for k in range(60)]
    lengths = [answer.completion_tokens for answer in [*map(finished, [llm] * 60, asked)]]
    assert len(set(lengths)) > 8 and max(lengths) == 12
    seen = watched(llm, monkeypatch)
    assert [getattr(answer, 'answer', answer).completion_tokens for answer in llm.complete_many(asked)] == lengths
    rows = [len(ids) for ids in seen[1:]]
    assert rows == sorted(rows, reverse=True) and rows[-1] <= 4 / 3 * sum(length == 12 for length in lengths) + 1


def test_a_long_chain_of_beginnings():
    """Each the beginning of the next: no depth of calls is reached."""
    rows = [list(range(n)) for n in range(1, 3000)]
    stem, depth = stems(rows), 0
    while stem.branches:
        stem, depth = stem.branches[0], depth + 1
    assert 20 < depth < 3000 / 32 and stems([[1]]) == Stem(0, 0, 0, [0])


def test_stems_of_random_rows_hold_every_row_once():
    import random

    draw = random.Random(3)
    rows = sorted({tuple(draw.choices([1, 2], k=draw.randint(1, 12))) for _ in range(300)})
    found = []

    def walk(stem, begin):
        assert stem.begin == begin and (stem.end == begin or stem.end >= begin + 3)
        below = stem.rows + [row for branch in stem.branches for row in walk(branch, stem.end)]
        assert len({rows[row][: stem.end] for row in below}) == 1 and all(len(rows[row]) > stem.end for row in below)
        found.extend(stem.rows)
        return below

    walk(stems(rows, 3), 0)
    assert sorted(found) == list(range(len(rows)))


def test_what_shares_its_text_is_answered_together():
    texts = [f'{who * 50} {k}' for k in range(3) for who in 'abc'] + ['x' * 200, 'y' * 20]
    found = arranged(texts, 4)
    assert sorted(sum(found, [])) == list(range(len(texts))) and max(map(len, found)) == 4
    assert [texts[place][0] for batch in found for place in batch] == [*'xcccbbbaaay']
    assert [len(batch) for batch in arranged(texts, 2, 5, 260)] == [2, 5, 4]


def test_settings_that_come_with_a_model_are_kept(small):
    """A penalty of the model's own is one that nobody asked for; transformers applies it."""
    import copy

    model = copy.deepcopy(small[0])
    plain = [answer.text for answer in local(small, max_new_tokens=60).complete_many(prompts())]
    model.generation_config.repetition_penalty = 1.5
    own = [answer.text for answer in local((model, small[1]), max_new_tokens=60).complete_many(prompts())]
    asked = local(small, max_new_tokens=60, repetition_penalty=1.5).complete_many(prompts())
    assert own == [answer.text for answer in asked] != plain


def test_rows_that_are_the_same_or_part_of_each_other(small):
    llm = local(small, max_new_tokens=5)
    start = ' '.join(WORDS[:40])
    asked = [start, start, f'{start} w9', ' '.join(WORDS[:20]), f'{start} w9']
    assert [a.text for a in llm.complete_many(asked)] == [llm.complete(prompt).text for prompt in asked]


def test_no_answer_ends_too_early(small):
    how = dict(max_new_tokens=12, temperature=2.0)
    llm, usual = ending(small, min_new_tokens=10, **how), ending(small, **how)
    assert min(finished(usual, prompt).completion_tokens for prompt in prompts()) < 10
    answers = llm.complete_many(prompts())
    assert min(answer.completion_tokens for answer in answers) >= 10
    assert [answer.text for answer in answers] == [llm.complete(prompt).text for prompt in prompts()]


def test_draws_are_those_of_each_row_alone(small):
    llm = local(small, max_new_tokens=12, temperature=0.8)
    assert [a.text for a in llm.complete_many(prompts(), list(range(9)))] == [
        llm.complete(prompt, k).text for k, prompt in enumerate(prompts())
    ]


@pytest.mark.parametrize('labels', [[[3], [4], [5]], [[3, 4], [3], [5, 6, 7]], [[9], [9, 9], [9, 9, 9]]])
def test_labels_in_one_pass(small, labels):
    """Of one token, of several, one the beginning of another: as read with every label apart."""
    llm = local(small)
    ids = [llm.token_ids(prompt) for prompt in prompts(5)]
    apart = torch.tensor(llm_judge._labels_apart(llm, ids, labels))
    torch.testing.assert_close(torch.tensor(label_logprobs(llm, ids, labels)), apart, atol=1e-4, rtol=1e-5)


def test_alike_lengths_are_asked_together_and_come_back_in_order(small):
    batches = []

    class Listening:
        name, params, batch = 'listening', {}, 4

        def complete_many(self, asked, samples=None):
            batches.append([len(prompt) for prompt in asked])
            return [as_answer(prompt.upper()) for prompt in asked]

        def __call__(self, prompt):
            return self.complete_many([prompt])[0].text

    texts = ['x' * n for n in (9, 1, 50, 3, 40, 2, 8, 70, 30)]
    table = ask(Listening(), texts, progress=False)
    assert table['answer'].tolist() == [text.upper() for text in texts]
    assert sum(batches, []) == sorted(map(len, texts), reverse=True) and len(batches) == 3


def test_type_of_the_hardware(small, tmp_path, monkeypatch):
    model, tok = small
    model.to(torch.bfloat16).save_pretrained(tmp_path / 'half')
    tok.save_pretrained(tmp_path / 'half')
    model.float()
    monkeypatch.setattr(room, 'computes_bf16', lambda device: False)
    slow = local(tmp_path / 'half', device='cpu')
    monkeypatch.setattr(room, 'computes_bf16', lambda device: True)
    able, asked = local(tmp_path / 'half', device='cpu'), local(tmp_path / 'half', device='cpu', dtype='float32')
    assert (slow.model.dtype, able.model.dtype, asked.model.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    assert slow.params == able.params and asked.params == able.params | {'dtype': 'float32'}  # answers stay known
    with pytest.raises(ValueError, match='float32, bfloat16, float16'):
        local(tmp_path / 'half', dtype='int3')
    assert compute_type(torch.float32, 'cpu') == torch.float32 and compute_type(torch.float64, 'mps') == torch.float64


def test_a_penalty_sees_no_padding(small):
    """Padding after a shared beginning would be penalised as if it had been written; often it is the end mark."""
    llm = local(small, max_new_tokens=60, repetition_penalty=1.5)
    assert [a.text for a in llm.complete_many(prompts())] == [llm.complete(prompt).text for prompt in prompts()]


def test_a_model_in_memory_keeps_its_types(small):
    """Such as trained matrices of float32 beside frozen weights of bfloat16."""
    import copy

    model = copy.deepcopy(small[0]).to(torch.bfloat16)
    model.model.norm.float()
    local((model, small[1]))
    assert model.model.norm.weight.dtype == torch.float32 and model.dtype == torch.bfloat16


WINDOW = {'attention_chunk_size': 16, 'num_local_experts': 2, 'head_dim': 12, 'intermediate_size_mlp': 96}
LINEAR = {'layer_types': ['linear_attention', 'full_attention'], 'num_local_experts': 2, 'head_dim': 12}
CONVOLVED = {'layer_types': ['conv', 'full_attention']}


@pytest.mark.parametrize('kind, options', [('lfm2', CONVOLVED), ('minimax', LINEAR), ('llama4_text', WINDOW)])
def test_layers_that_do_not_look_at_everything_read_prompts_whole(small, monkeypatch, kind, options):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    shape = {name: value for name, value in SHAPE.items() if name != 'initializer_range'}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape, **options)).float().eval()
    for weights in model.parameters():
        if weights.dim() > 1:
            torch.nn.init.normal_(weights, std=0.3)
    llm = local((model, small[1]), max_new_tokens=12, min_new_tokens=12)
    monkeypatch.setattr('promax_nb.profiles.decoding.decode', lambda *args: pytest.fail('read apart'))
    assert len(llm.complete_many(prompts(5))) == 5
    assert not can_continue(model) and can_continue(small[0])


# ---- GGUF


def tiny_gguf(file):
    """A llama of two layers in one file, with a tokenizer of single letters."""
    import gguf

    rng = np.random.default_rng(0)
    letters = [chr(code) for code in range(33, 127)] + ['Ġ', 'ab']
    tokens = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', *letters]
    out = gguf.GGUFWriter(str(file), 'llama')
    for add, value in (
        (out.add_context_length, 256),
        (out.add_embedding_length, 32),
        (out.add_block_count, 2),
        (out.add_feed_forward_length, 64),
        (out.add_head_count, 2),
        (out.add_head_count_kv, 2),
        (out.add_layer_norm_rms_eps, 1e-5),
        (out.add_rope_freq_base, 10_000.0),
        (out.add_vocab_size, len(tokens)),
        (out.add_tokenizer_model, 'gpt2'),
        (out.add_token_list, tokens),
        (out.add_token_types, [3, 3, 3] + [1] * len(letters)),
        (out.add_token_merges, ['a b']),
        (out.add_bos_token_id, 1),
        (out.add_eos_token_id, 2),
    ):
        add(value)
    shapes = {'attn_q': (32, 32), 'attn_k': (32, 32), 'attn_v': (32, 32), 'attn_output': (32, 32)}
    shapes |= {'ffn_gate': (64, 32), 'ffn_up': (64, 32), 'ffn_down': (32, 64), 'attn_norm': (32,), 'ffn_norm': (32,)}
    named = {f'blk.{layer}.{name}.weight': shape for layer in (0, 1) for name, shape in shapes.items()}
    named |= {'token_embd.weight': (len(tokens), 32), 'output.weight': (len(tokens), 32), 'output_norm.weight': (32,)}
    for name, shape in named.items():
        out.add_tensor(name, rng.normal(size=shape).astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def test_a_gguf_file_is_written_out_once_and_writes(tmp_path):
    pytest.importorskip('gguf', reason='SKIPPED: the package gguf is not installed, so no GGUF file is read')
    tiny_gguf(tmp_path / 'm.gguf')
    folder = from_gguf(tmp_path / 'm.gguf', tmp_path / 'kept')
    at = (folder / 'model.safetensors').stat().st_mtime_ns
    assert from_gguf(tmp_path, tmp_path / 'kept') == folder and (folder / 'model.safetensors').stat().st_mtime_ns == at
    one, other = (local(place, max_new_tokens=5) for place in (tmp_path / 'm.gguf', folder))
    ids = one.token_ids('abc')
    assert one.tok.decode(ids) == 'abc' and one.complete_many(['abc'])[0].text == other.complete_many(['abc'])[0].text
    assert (tmp_path / 'm.float32' / 'gguf.json').exists() and one.model.dtype.itemsize == 4


def test_what_is_no_gguf_gets_a_sentence(tmp_path, monkeypatch):
    (tmp_path / 'm.gguf').write_bytes(b'GGUF and nothing behind it')
    monkeypatch.setattr(gguf_room, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='pip install gguf'):
        local(tmp_path / 'm.gguf')
    monkeypatch.undo()
    monkeypatch.setattr(gguf_room, 'find_spec', lambda name: True)
    with pytest.raises(ValueError, match='cannot be read'):
        from_gguf(tmp_path)
    assert not (tmp_path / 'm.float32').exists() and not (tmp_path / 'm.float32.part').exists()
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'letter.txt').write_text('dear')
    with pytest.raises(ValueError, match='holds something else'):
        from_gguf(tmp_path, tmp_path / 'mine')
