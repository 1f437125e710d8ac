"""Tokens a second of `local`, and judgements a second, as before 0.4.0 and now, on a model that is stored in bfloat16.

python benchmarks/local.py FOLDER [--out benchmarks/results/local.json] [--prompts 32] [--tokens 64]

FOLDER holds a causal language model in bfloat16, such as SmolLM2-135M-Instruct. Before: computed in the type it is
stored in, prompts in the order asked, every prompt read whole, a judgement read three times. Where the processor has
instructions for bfloat16, ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 takes them away.
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
from promax_nb.profiles import local as room
from promax_nb.profiles.ask import ask
from promax_nb.profiles.local import local
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.template import template
from promax_nb.profiles.write import write


def before(llm, prompts):
    """The texts of batches in the order asked, nothing shared."""
    kept, room.LEAST_SHARED = room.LEAST_SHARED, 10**9
    try:
        texts = []
        for start in range(0, len(prompts), llm.batch):
            texts += [answer.text for answer in llm.complete_many(prompts[start : start + llm.batch])]
    finally:
        room.LEAST_SHARED = kept
    return texts


def timed(function, *arguments):
    """What comes back, and the seconds."""
    began = time.perf_counter()
    found = function(*arguments)
    return found, time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder')
    parser.add_argument('--out', default='benchmarks/results/local.json')
    parser.add_argument('--prompts', type=int, default=32)
    parser.add_argument('--tokens', type=int, default=64)
    asked = parser.parse_args()
    shop = toy_data(120, 80, seed=1)
    items = write(template(), item_prompts(shop), progress=False)
    prompts = user_prompts(shop, items)['prompt'].tolist()[: asked.prompts]
    how = dict(device='cpu', max_new_tokens=asked.tokens, min_new_tokens=asked.tokens)
    old = local(asked.folder, dtype='bfloat16', **how)
    exact = local(asked.folder, dtype='float32', **how)
    new = local(asked.folder, **how)
    for llm in (old, new):
        llm.complete_many(prompts[:2])  # warm
    slow, slow_seconds = timed(before, old, prompts)
    table, seconds = timed(lambda: ask(new, prompts, progress=False))
    plain, plain_seconds = timed(before, exact, prompts)
    labels = [new.tok(f' {word}', add_special_tokens=False)['input_ids'] for word in ('like', 'neutral', 'dislike')]
    ids = [new.token_ids(prompt) for prompt in prompts]

    def judged(function, llm):
        found = []
        for start in range(0, len(ids), 16):
            found += function(llm, ids[start : start + 16], labels)
        return found

    slow_labels, slow_judge = timed(judged, llm_judge._labels_apart, old)
    new_labels, judge = timed(judged, llm_judge.label_logprobs, new)
    exact_labels, _ = timed(judged, llm_judge._labels_apart, exact)
    written = asked.tokens * len(prompts)
    speeds = {'before': slow_seconds, 'float32': plain_seconds, 'now': seconds}
    found = {
        'model': Path(asked.folder).name,
        'processor': platform.processor() or platform.machine(),
        'capability': torch.backends.cpu.get_cpu_capability(),
        'threads': torch.get_num_threads(),
        'limits': {name: os.environ.get(name) for name in ('ATEN_CPU_CAPABILITY', 'ONEDNN_MAX_CPU_ISA')},
        'prompts': len(prompts),
        'prompt_tokens': sum(map(len, ids)),
        'shared_tokens': room.common_start(ids),
        'new_tokens': written,
        'computed_in': str(new.model.dtype).removeprefix('torch.'),
        'tokens_per_second': {name: written / value for name, value in speeds.items()},
        'times': slow_seconds / seconds,
        'same_texts_as_float32': sum(a == b for a, b in zip(table['answer'], plain, strict=True)),
        'same_texts_as_before': sum(a == b for a, b in zip(table['answer'], slow, strict=True)),
        'judge_seconds': {'before': slow_judge, 'now': judge},
        'judge_times': slow_judge / judge,
        'judge_difference': float((torch.tensor(new_labels) - torch.tensor(exact_labels)).abs().max()),
    }
    Path(asked.out).write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    print(json.dumps(found, indent=1))


if __name__ == '__main__':
    main()
