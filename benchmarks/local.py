"""Tokens a second of `local`, and judgements a second, as before 0.4.0 and now, on a model that is stored in bfloat16.

OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/local.py FOLDER
    [--only items|users|judge] [--out benchmarks/results/local.json]

FOLDER holds a causal language model in bfloat16, such as SmolLM2-135M-Instruct. Before: computed in the type it is
stored in, prompts in the order asked and padded, 16 at a time, by the generate of transformers; a judgement read three
times. The two environment variables take instructions for bfloat16 away from a processor that has them. Every part
runs its sides one after the other in one process; --only measures one part and keeps the others.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch

from promax_nb.data.bookshop import toy_data
from promax_nb.lettingo import llm_judge
from promax_nb.lettingo.histories import split_history
from promax_nb.profiles import local as room
from promax_nb.profiles.ask import ask
from promax_nb.profiles.local import local
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.stems import stems
from promax_nb.profiles.template import template
from promax_nb.profiles.write import write


def before(llm, prompts):
    """The texts of batches in the order asked, padded and read whole."""
    kept, room._reads_apart = room._reads_apart, lambda llm: False
    try:
        texts = []
        for start in range(0, len(prompts), 16):
            texts += [answer.text for answer in llm.complete_many(prompts[start : start + 16])]
    finally:
        room._reads_apart = kept
    return texts


def timed(function, *arguments):
    """What comes back, and the seconds of the processor for each thread: of the clock, were nothing else running."""
    began = time.process_time()
    found = function(*arguments)
    return found, (time.process_time() - began) / torch.get_num_threads()


def shared(ids):
    """Tokens that are not read, of all, because a beginning is read once."""
    different = sorted({tuple(row) for row in ids})

    def read(stem):
        ends = sum(len(different[row]) - stem.end for row in stem.rows)
        return stem.end - stem.begin + ends + sum(map(read, stem.branches))

    return sum(map(len, ids)) - read(stems(different))


def writing(prompts, models, tokens):
    """Tokens written a second: before, in float32 alone, and now."""
    old, exact, new = models
    for llm in models:
        llm.params.update(max_new_tokens=tokens, min_new_tokens=tokens)
        llm.complete_many(prompts[:1])  # warm
    now, seconds = timed(lambda: ask(new, prompts, progress=False)['answer'].tolist())
    plain, plain_seconds = timed(before, exact, prompts)
    slow, slow_seconds = timed(before, old, prompts)
    ids = [new.token_ids(prompt) for prompt in prompts]
    speeds = {'before': slow_seconds, 'float32': plain_seconds, 'now': seconds}
    return {
        'prompts': len(prompts),
        'tokens_of_a_prompt': [min(map(len, ids)), sum(map(len, ids)) / len(ids), max(map(len, ids))],
        'shared_tokens': shared(ids),
        'new_tokens': tokens * len(prompts),
        'batches': [len(batch) for batch in new.batches(prompts)],
        'tokens_per_second': {name: tokens * len(prompts) / value for name, value in speeds.items()},
        'times': slow_seconds / seconds,
        'same_texts_as_float32': sum(a == b for a, b in zip(now, plain, strict=True)),
        'same_texts_as_before': sum(a == b for a, b in zip(now, slow, strict=True)),
    }


def judging(shop, models, users, few):
    """Questions a second of a local judge; `few` of them the slow way."""
    old, exact, new = models
    history = split_history(shop, recent=6, older=8, targets=4)
    profiles = write(template(), user_prompts(shop), progress=False)
    chosen = sorted(history['user'].unique())[:users]
    told = profiles[profiles['id'].isin(chosen)].rename(columns={'id': 'user'})
    prompts = llm_judge.judge_prompts(told[['user', 'profile']], shop, history)['prompt'].tolist()
    labels = [new.tok(word, add_special_tokens=False)['input_ids'] for word in ('like', 'neutral', 'dislike')]
    ids = [new.token_ids(prompt) for prompt in prompts]
    now, seconds = timed(llm_judge.label_logprobs, new, ids, labels)
    slow, slow_seconds = timed(llm_judge._labels_apart, old, ids[:few], labels)
    plain, plain_seconds = timed(llm_judge._labels_apart, exact, ids[:few], labels)
    speeds = {'before': few / slow_seconds, 'float32': few / plain_seconds, 'now': len(ids) / seconds}
    return {
        'questions': {'before': few, 'float32': few, 'now': len(ids)},
        'tokens_of_a_question': sum(map(len, ids)) / len(ids),
        'shared_tokens': shared(ids),
        'questions_per_second': speeds,
        'times': speeds['now'] / speeds['before'],
        'largest_difference_to_float32': float((torch.tensor(now[:few]) - torch.tensor(plain)).abs().max()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder')
    parser.add_argument('--out', default='benchmarks/results/local.json')
    parser.add_argument('--only', choices=['items', 'users', 'judge'])
    parser.add_argument('--items', type=int, default=32)
    parser.add_argument('--users', type=int, default=8)
    parser.add_argument('--tokens', type=int, default=64)
    parser.add_argument('--judged', type=int, default=6, help='users that are judged, 4 questions each')
    asked = parser.parse_args()
    shop = toy_data(120, 80, seed=1)
    models = [local(asked.folder, device='cpu', dtype=dtype) for dtype in ('bfloat16', 'float32', None)]
    parts = {
        'items': lambda: writing(item_prompts(shop)['prompt'].tolist()[: asked.items], models, asked.tokens),
        'users': lambda: writing(user_prompts(shop)['prompt'].tolist()[: asked.users], models, asked.tokens),
        'judge': lambda: judging(shop, models, asked.judged, 4),
    }
    out = Path(asked.out)
    found = json.loads(out.read_text(encoding='utf-8')) if asked.only and out.exists() else {}
    found |= {
        'model': Path(asked.folder).name,
        'processor': platform.processor() or platform.machine(),
        'capability': torch.backends.cpu.get_cpu_capability(),
        'threads': torch.get_num_threads(),
        'limits': {name: os.environ.get(name) for name in ('ATEN_CPU_CAPABILITY', 'ONEDNN_MAX_CPU_ISA')},
        'computed_in': str(models[2].model.dtype).removeprefix('torch.'),
    }
    for name in [asked.only] if asked.only else parts:
        found[name] = parts[name]()
        out.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
