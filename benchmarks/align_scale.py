"""The full training path at full size with random weights: tokens a second, memory, resume. Needs a graphics card
for the large sizes.

    python benchmarks/align_scale.py OUT --size 8b --lora 16      # one card of 80 GB
    python benchmarks/align_scale.py OUT --size mini              # anywhere, seconds

The weights are random, so nothing is learned; the steps, the memory and the files are those of a real run. The run
is interrupted after half of its
steps and continued, which must give as many steps and finite losses.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SIZES = {
    'mini': dict(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    ),
    '1b': dict(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8
    ),
    '8b': dict(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8
    ),
}


def make(folder: Path, size: str, words: int):
    """A Llama of that size with random weights, its tokenizer, and pairs of invented texts of about `words` words."""
    import pandas as pd
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from promax_nb.lettingo.tiny import practice_texts, tiny_tokenizer, world_values

    texts = practice_texts(world_values(), 256, 6, ['true', 'invented'], 0)
    tok = tiny_tokenizer(world_values(), texts['prompt'].tolist() + texts['text'].tolist())
    filler = ' ; '.join((world_values() * (words // 80 + 1))[: words // 2])
    pairs = texts.iloc[::2].reset_index(drop=True)
    other = texts['text'].iloc[1::2].to_numpy()
    pairs = pd.DataFrame(
        {
            'user': range(len(pairs)),
            'prompt': filler + ' ' + pairs['prompt'],
            'chosen': pairs['text'],
            'rejected': other,
        }
    )
    pairs.to_parquet(folder / 'pairs.parquet')
    marks = dict(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    config = LlamaConfig(
        vocab_size=32_000 if size != 'mini' else len(tok), max_position_embeddings=4096, **marks, **SIZES[size]
    )
    big = torch.cuda.is_available() and size != 'mini'
    with torch.device('cuda' if big else 'cpu'):
        torch.set_default_dtype(torch.bfloat16 if big else torch.float32)
        model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder / 'model')
    tok.save_pretrained(folder / 'model')
    return sum(p.numel() for p in model.parameters())


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('out', type=Path)
    p.add_argument('--size', choices=SIZES, default='mini')
    p.add_argument('--lora', type=int, default=16)
    p.add_argument('--steps', type=int, default=10)
    p.add_argument('--batch', type=int, default=2)
    p.add_argument('--words', type=int, default=1000, help='length of a prompt')
    args = p.parse_args()
    out = args.out
    out.mkdir(parents=True, exist_ok=True)
    weights = make(out, args.size, args.words)
    file = out / 'run.toml'
    half = max(1, args.steps // 2)
    settings = dict(
        model=str(out / 'model'),
        pairs=str(out / 'pairs.parquet'),
        out=str(out / 'run'),
        lora=args.lora,
        max_steps=args.steps,
        batch=args.batch,
        lr=1e-5,
        max_length=4096,
        max_ratio=9.0,
        log_steps=1,
        save_steps=half,
        gradient_checkpointing=args.size != 'mini',
        precompute_batch=args.batch,
    )
    file.write_text(''.join(f'{k} = {json.dumps(v)}\n' for k, v in settings.items()))
    go = [
        sys.executable,
        '-c',
        f'from promax_nb.lettingo.align import align_from_config; align_from_config({str(file)!r})',
    ]
    child = subprocess.Popen(go)
    written = out / 'run' / 'checkpoints' / f'checkpoint-{half}' / 'trainer_state.json'
    while child.poll() is None and not written.exists():
        time.sleep(0.2)
    if child.poll() is None:
        os.kill(child.pid, signal.SIGKILL)
    child.wait()
    killed = child.returncode == -signal.SIGKILL
    subprocess.run(go, check=True)
    import pandas as pd

    card = json.loads((out / 'run' / 'card.json').read_text())
    history = pd.read_parquet(out / 'run' / 'history.parquet')
    assert card['steps'] == args.steps and history['loss'].map(math.isfinite).all()
    told = {k: card[k] for k in ('steps', 'tokens_per_second', 'memory_gb', 'bf16')}
    print(json.dumps({'size': args.size, 'weights': weights, 'killed_and_resumed': killed, **told}))
