"""What a graphics card does: epochs of every base with and without ProMax, the exact softmax term against torch's own
fused cross entropy and plain autograd, evaluation of everybody, and DPO of a writer of 8 billion parameters.

    python benchmarks/gpu.py --out benchmarks/results/gpu              # under 6 minutes on one H100
    python benchmarks/gpu.py --out /tmp/gpu --mini                     # anywhere, seconds; its numbers mean nothing
    python benchmarks/gpu.py --out benchmarks/results/gpu --only dpo   # one piece: epochs, term, evaluate, dpo, tenfold

Interactions, vectors, texts and weights are generated; nothing is downloaded. Every row is written the moment it is
there, one JSON a piece; what a file holds already is not measured again, what failed or ran out of its time is. An
epoch of more than 60 steps is the time of 30 steps times their number, plus that of drawing its triples, and says so.
"""

import argparse
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from promax_nb.data.storage import write_json
from promax_nb.models.bases import GCCF, MF, LightGCN, SimGCL
from promax_nb.models.evaluate import evaluate
from promax_nb.models.losses import infonce, sdr_loss
from promax_nb.models.objectives import BPR, ProMax
from promax_nb.models.results import versions
from promax_nb.models.train import PairSampler, fit

BASES = {'MF': MF, 'LightGCN': LightGCN, 'GCCF': GCCF, 'SimGCL': SimGCL}
# users, items, events to train on: Amazon-book, and ten times of each
SIZES = {'epochs': (11_000, 9_332, 120_464), 'tenfold': (110_000, 93_320, 1_204_640)}
MINI_SIZES = {'epochs': (60, 50, 600), 'tenfold': (150, 120, 2400)}
SECONDS = {'epochs': 70, 'term': 50, 'evaluate': 40, 'dpo': 150, 'tenfold': 120}  # most that a piece may take
TAU, BATCH, DIM = 0.2, 4096, 32
WARM, COUNTED = 8, 30  # steps before the clock starts, steps that it counts
PEAK = {'H100': 989e12, 'H200': 989e12}  # bfloat16 operations a second, dense, of the data sheets (SXM)

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


class Late(Exception):
    """A piece has used up its time."""


class Enough(Exception):
    """The steps that were to be timed are done."""


# ---- what every piece uses


def wait():
    """Until the card has done what it was told."""
    if DEVICE == 'cuda':
        torch.cuda.synchronize()


def clock() -> float:
    """Seconds, with nothing left to be done on the card."""
    wait()
    return time.perf_counter()


def forget_memory():
    """Begin a new peak."""
    if DEVICE == 'cuda':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib():
    """Most memory of the card since; None without a card."""
    return round(torch.cuda.max_memory_allocated() / 2**30, 3) if DEVICE == 'cuda' else None


def median_seconds(call, repeats: int) -> float:
    """Of some calls, after two that are not counted."""
    times = []
    for _ in range(repeats + 2):
        began = clock()
        call()
        times.append(clock() - began)
    return float(np.median(times[2:]))


def machine() -> dict:
    """Card, driver and versions."""
    facts = {'card': None, 'why': 'no graphics card was at hand', **versions(), 'machine': platform.machine()}
    facts['processors'] = os.cpu_count()
    if DEVICE == 'cpu':
        return facts
    asked = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        driver = 'not told'
    del facts['why']
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    card = {'card': torch.cuda.get_device_name(), 'card memory GiB': round(memory, 1)}
    return facts | card | {'driver': driver, 'cuda': torch.version.cuda}


@contextmanager
def at_most(seconds: float):
    """Raise Late in what takes longer, where the system has an alarm."""

    def ring(*_):
        raise Late(f'more than {seconds:.0f} s')

    if hasattr(signal, 'SIGALRM'):
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if hasattr(signal, 'SIGALRM'):
            signal.setitimer(signal.ITIMER_REAL, 0)


class Piece:
    """The rows of one piece, in a file that always holds all that is known."""

    def __init__(self, file: Path, mini: bool):
        self.file = file
        known = json.loads(file.read_text()) if file.exists() else {}
        facts = machine()
        old = {name: row for name, row in known.get('rows', {}).items() if 'failed' not in row}
        same = known.get('mini', mini) == mini and known.get('on', facts) == facts
        self.kept = {'on': facts, 'mini': mini, 'rows': old if same else {}}

    def row(self, name: str, measure):
        """Measure one row, unless it is there."""
        if name in self.kept['rows']:
            return
        forget_memory()
        began = time.perf_counter()
        try:
            row = measure()
        except Late:
            raise
        except Exception as e:  # one row that breaks must not take the others along
            row = {'failed': f'{type(e).__name__}: {e}'[:600]}
        row['took'] = round(time.perf_counter() - began, 2)
        self.kept['rows'][name] = row
        write_json(self.file, self.kept)
        print(self.file.stem, name, json.dumps(row), flush=True)


def world(users: int, items: int, events: int, seed: int = 0) -> SimpleNamespace:
    """Skewed random interactions in three splits, added ones, and profile vectors in camps."""
    rng = np.random.default_rng(seed)
    liked, eager = 1 / np.arange(1, items + 1) ** 0.6, 1 / np.arange(1, users + 1) ** 0.5

    def pairs(n):
        rows = rng.choice(users, n, p=eager / eager.sum())
        table = sp.csr_matrix((np.ones(n, np.float32), (rows, rng.choice(items, n, p=liked / liked.sum()))))
        table.resize(users, items)
        table.data[:] = 1
        return table

    train = pairs(int(1.06 * events))

    def others(n):
        drawn = pairs(n)
        return sp.csr_matrix(drawn - drawn.multiply(train))

    camps = rng.normal(size=(20, DIM))
    vectors = [camps[rng.integers(20, size=n)] + 0.7 * rng.normal(size=(n, DIM)) for n in (users, items)]
    valid, test, added = others(1000), others(events // 3), others(events // 5)
    parts = {'train': train, 'valid': valid, 'test': test, 'added': added, 'name': 'generated'}
    return SimpleNamespace(**parts, vectors=[table.astype(np.float32) for table in vectors])


# ---- epochs


class Timed(torch.nn.Module):
    """An objective that ends its training after some steps, and knows how long one of them took."""

    def __init__(self, objective):
        super().__init__()
        self.objective, self.steps, self.seconds = objective, 0, math.nan

    def forward(self, *batch):
        if self.steps == WARM:
            self.began = clock()
        if self.steps == WARM + COUNTED:
            self.seconds = (clock() - self.began) / COUNTED
            raise Enough
        self.steps += 1
        return self.objective(*batch)


def epoch_row(build, objective, data, batch: int) -> dict:
    """Seconds of one epoch: the median of three whole ones, or worked out from some steps where it is long."""
    model = build(data, dim=DIM)
    steps = -(-data.train.nnz // batch)
    settings = dict(batch=batch, device=DEVICE, progress=False, patience=1000)
    if steps <= 60:
        told = fit(model, objective, data, epochs=4, eval_every=100, **settings)
        epoch = float(told.history['seconds'].iloc[1:].median())
        return {'epoch': epoch, 'steps': steps, 'extrapolated': False, 'peak GiB': peak_gib()}
    timed = Timed(objective)
    try:
        fit(model, timed, data, epochs=2, eval_every=100, **settings)
    except Enough:
        pass
    sampler = PairSampler(data.train)
    began = time.perf_counter()
    sampler.epoch(np.random.default_rng(0))
    drawing = time.perf_counter() - began
    row = {'epoch': drawing + steps * timed.seconds, 'steps': steps, 'extrapolated': True}
    return row | {'step ms': 1000 * timed.seconds, 'drawing': drawing, 'peak GiB': peak_gib()}


def objectives(data) -> dict:
    """Name -> how to make it."""
    return {'BPR': BPR, 'ProMax': lambda: ProMax(*data.vectors, data.added, tau=TAU)}


def epochs(piece: Piece, mini: bool, size: str = 'epochs'):
    """Every base with every objective."""
    data = world(*(MINI_SIZES if mini else SIZES)[size])
    batch = 32 if mini else BATCH
    for name, make in objectives(data).items():
        made = {}

        def build(make=make, made=made):
            began = clock()
            made['objective'] = make().to(DEVICE)
            return {'seconds': clock() - began, 'peak GiB': peak_gib()}

        piece.row(f'{name}, set up', build)
        for base, cls in BASES.items():
            if f'{base}, {name}' in piece.kept['rows']:
                continue
            if 'objective' not in made:  # the set-up was measured before
                build()
            piece.row(f'{base}, {name}', lambda cls=cls, made=made: epoch_row(cls, made['objective'], data, batch))


def tenfold(piece: Piece, mini: bool):
    """The same at ten times the users, items and interactions."""
    epochs(piece, mini, 'tenfold')


# ---- the exact term


def plain_sdr(u, items, p, w):
    """The same value, every gradient left to autograd."""
    logits = F.normalize(u, dim=1) @ F.normalize(items, dim=1).T / TAU
    return -(w * (p * torch.log_softmax(logits, 1)).sum(1)).mean()


def plain_contrast(u, items, positive):
    """InfoNCE against all items, every gradient left to autograd."""
    return F.cross_entropy(F.normalize(u, dim=1) @ F.normalize(items, dim=1).T / TAU, positive)


def torch_fused(u, items, target):
    """torch's own fused cross entropy: a matrix product and the loss in blocks."""
    options = torch.nn.LinearCrossEntropyOptions()
    rows = F.normalize(u, dim=1) / TAU
    return F.linear_cross_entropy(rows, F.normalize(items, dim=1), target, options=options)


def sides(u, items, p, w, positive, compiled: bool) -> dict:
    """Kind -> side -> function without arguments that gives the loss."""

    def in_bfloat16(call):
        def inside():
            with torch.autocast(DEVICE, torch.bfloat16):
                return call()

        return inside

    kinds = {
        'SDR': {
            'ours': lambda: sdr_loss(u, items, p, w, TAU),
            'plain autograd': lambda: plain_sdr(u, items, p, w),
        },
        'contrast': {
            'ours': lambda: infonce(u, items, positive, tau=TAU),
            'plain autograd': lambda: plain_contrast(u, items, positive),
        },
    }
    if hasattr(F, 'linear_cross_entropy'):
        weighted = w[:, None] * p  # the loss is linear in its target
        kinds['SDR']['torch fused'] = lambda: torch_fused(u, items, weighted)
        kinds['contrast']['torch fused'] = lambda: torch_fused(u, items, positive)
    if compiled:
        sdr, contrast = torch.compile(plain_sdr), torch.compile(plain_contrast)
        kinds['SDR']['plain, compiled'] = lambda: sdr(u, items, p, w)
        kinds['contrast']['plain, compiled'] = lambda: contrast(u, items, positive)
    for calls in kinds.values():
        calls['ours, bfloat16'] = in_bfloat16(calls['ours'])
    return kinds


def term_row(call, u, items, reference, repeats: int) -> dict:
    """Milliseconds of value and gradients, peak above the inputs, distance from the reference."""

    def once():
        u.grad = items.grad = None
        loss = call()
        loss.backward()
        return loss.detach()

    once()
    forget_memory()
    before = torch.cuda.memory_allocated() / 2**30 if DEVICE == 'cuda' else 0.0
    seconds = median_seconds(once, repeats)
    peak = peak_gib()
    loss = once()
    exact, gradients = reference
    pairs = zip((u.grad, items.grad), gradients, strict=True)
    apart = [float((ours.double() - wanted).norm() / wanted.norm()) for ours, wanted in pairs]
    facts = {'loss off by': abs(float(loss) / exact - 1), 'gradient off by': max(apart)}
    return {'ms': 1000 * seconds, 'peak GiB': None if peak is None else round(peak - before, 3), **facts}


def reference_of(kind: str, u, items, p, w, positive) -> tuple:
    """Value and gradients in double precision."""
    wide = [table.detach().double().requires_grad_() for table in (u, items)]
    loss = plain_sdr(*wide, p.double(), w.double()) if kind == 'SDR' else plain_contrast(*wide, positive)
    loss.backward()
    return float(loss.detach()), [table.grad for table in wide]


def term(piece: Piece, mini: bool):
    """A batch of users against all items at both sizes; compiled at the larger one."""
    rows, repeats = (64, 3) if mini else (BATCH, 20)
    columns = (50, 120) if mini else (9_332, 93_320)
    piece.kept['torch has a fused cross entropy'] = hasattr(F, 'linear_cross_entropy')
    for number, n in enumerate(columns):
        draw = torch.Generator(DEVICE).manual_seed(n)
        tables = [torch.randn(k, DIM, generator=draw, device=DEVICE).requires_grad_() for k in (rows, n)]
        p = torch.softmax(torch.randn(rows, n, generator=draw, device=DEVICE), 1)
        w = torch.rand(rows, generator=draw, device=DEVICE)
        positive = torch.randint(n, (rows,), generator=draw, device=DEVICE)
        for kind, calls in sides(*tables, p, w, positive, bool(number) and not mini).items():
            reference = reference_of(kind, *tables, p, w, positive)
            for side, call in calls.items():
                name = f'{kind}, {rows} x {n}, {side}'
                piece.row(name, lambda call=call, t=tables, r=reference: term_row(call, *t, r, repeats))


# ---- evaluation


def everybody(piece: Piece, mini: bool):
    """Full ranking of all users who have something held out, on the card and on the processor."""
    for size, (users, items, events) in (MINI_SIZES if mini else SIZES).items():
        data = world(users, items, events)
        draw = torch.Generator().manual_seed(1)
        tables = tuple(torch.randn(n, DIM, generator=draw, dtype=torch.float64) for n in (users, items))
        where = ('cpu', 'cuda') if DEVICE == 'cuda' else ('cpu',)
        for device in where if size == 'epochs' else where[-1:]:
            on = tuple(table.float().to(device) for table in tables)

            def measure(on=on, data=data):
                evaluate((on[0][:200], on[1]), data.test[:200], data.train[:200])  # warm
                began = clock()
                metrics = evaluate(on, data.test, data.train)
                tested = int((np.diff(data.test.indptr) > 0).sum())
                facts = {'seconds': clock() - began, 'users': tested, 'peak GiB': peak_gib()}
                return facts | {name: metrics[name] for name in ('recall@20', 'ndcg@20')}

            piece.row(f'{users} x {items}, {device}', measure)


# ---- DPO of a large writer

LLAMA = dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32)
LLAMA |= dict(num_key_value_heads=8, vocab_size=128_256, max_position_embeddings=8192, rope_theta=500_000.0)
SMALL = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
SMALL |= dict(num_key_value_heads=2, vocab_size=600, max_position_embeddings=256)


def large_writer(mini: bool):
    """A Llama of the shape of Llama-3-8B with random weights in bfloat16 (float32 in miniature), and a tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from promax_nb.lettingo.tiny import tiny_tokenizer, world_values

    tok = tiny_tokenizer(world_values(), [])
    marks = dict(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32 if mini else torch.bfloat16)
    try:
        with torch.device(DEVICE):
            model = LlamaForCausalLM(LlamaConfig(**(SMALL if mini else LLAMA), **marks, attn_implementation='sdpa'))
    finally:
        torch.set_default_dtype(torch.float32)
    return model, tok


def large_pairs(n: int, prompt: int, text: int):
    """Pairs of invented texts, all of one length in tokens."""
    import pandas as pd

    from promax_nb.lettingo.tiny import world_values

    rng, values = np.random.default_rng(0), world_values()
    tables = {'user': range(n)}
    for column, length in (('prompt', prompt), ('chosen', text), ('rejected', text)):
        tables[column] = [' '.join(rng.choice(values, length)) for _ in range(n)]
    return pd.DataFrame(tables)


def diary(file: Path, last: int | None, end):
    """A callback that writes loss, tokens and seconds of every step, and ends the process after step `last`."""
    from transformers import TrainerCallback

    class Diary(TrainerCallback):
        def on_step_begin(self, args, state, control, **kw):
            self.began = clock()

        def on_step_end(self, args, state, control, **kw):
            self.seconds = clock() - self.began

        def on_log(self, args, state, control, logs=None, **kw):
            if 'loss' not in (logs or {}):
                return
            entry = {'step': state.global_step, 'loss': state.log_history[-1]['loss']}
            entry |= {'seconds': self.seconds, 'tokens': logs.get('num_tokens'), 'peak GiB': peak_gib()}
            with file.open('a') as book:
                book.write(json.dumps(entry) + '\n')
                book.flush()
                os.fsync(book.fileno())
            if state.global_step == last:
                end()

    return Diary()


def kill_myself():
    """What a power cut does."""
    os.kill(os.getpid(), signal.SIGKILL)


STEPS, SAVED, LAST = 10, 4, 7  # all, between checkpoints, the one after which the first process dies


def train_writer(folder: Path, mini: bool, launch: int, end=kill_myself):
    """One launch of the training; the first one ends after step LAST."""
    from datasets import Dataset

    from promax_nb.lettingo.align import make_trainer
    from promax_nb.lettingo.align_folder import last_checkpoint
    from promax_nb.lettingo.align_inputs import training_rows
    from promax_nb.lettingo.align_settings import AlignConfig
    from promax_nb.lettingo.tiny import quiet_libraries

    quiet_libraries()
    model, tok = large_writer(mini)
    batch, prompt, text = (2, 20, 8) if mini else (4, 896, 120)
    pairs = large_pairs(STEPS * batch, prompt, text)
    weights = sum(p.numel() for p in model.parameters())
    settings = dict(lora=16, max_steps=STEPS, batch=batch, lr=1e-4, max_length=8192, log_steps=1, save_steps=SAVED)
    config = AlignConfig(**settings, precompute=False, gradient_checkpointing=not mini)
    rows = Dataset.from_dict(training_rows(pairs, tok, 'dpo'))
    watch = diary(folder / f'launch-{launch}.jsonl', LAST if launch == 1 else None, end)
    trainer = make_trainer(model, tok, rows, config, folder, watch)
    shape = model.config
    looked_up = shape.vocab_size * shape.hidden_size  # the embedding: no operation
    facts = {'weights': weights, 'matrix weights': weights - looked_up, 'pairs a step': batch, 'lora': config.lora}
    facts |= {'layers': shape.num_hidden_layers, 'width': shape.hidden_size}
    facts['trained weights'] = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    write_json(folder / 'shape.json', facts)
    trainer.train(resume_from_checkpoint=last_checkpoint(folder / 'checkpoints'))


def entries(folder: Path, launch: int) -> dict:
    """Step -> what a launch wrote of it."""
    file = folder / f'launch-{launch}.jsonl'
    lines = file.read_text().splitlines() if file.exists() else []
    return {entry['step']: entry for entry in map(json.loads, lines)}


def utilisation(shape: dict, tokens_a_step: float, seconds: float) -> dict:
    """Operations of a step over those that the card could do; the adapters' own are left out (below 1 %)."""
    length = tokens_a_step / (2 * shape['pairs a step'])
    product = 2 * shape['matrix weights']  # operations of one token, one pass
    attention = 2 * shape['layers'] * length * shape['width']  # causal: half of all pairs of tokens
    card = torch.cuda.get_device_name() if DEVICE == 'cuda' else ''
    peak = next((value for name, value in PEAK.items() if name in card), None)
    told = {'counted': 'products of the frozen weights: writer, reference, gradients of activations; attention 4 times'}
    for name, again in (('MFU', 0), ('with recomputation', 1)):
        rate = ((3 + again) * product + (4 + again) * attention) * tokens_a_step / seconds
        told[f'TFLOP/s, {name}'] = rate / 1e12
        told[name] = None if peak is None else rate / peak
    return told


def writer_row(folder: Path) -> dict:
    """What both launches say together."""
    first, second = entries(folder, 1), entries(folder, 2)
    shape = json.loads((folder / 'shape.json').read_text())
    if max(first, default=0) != LAST or max(second, default=0) != STEPS:
        raise RuntimeError(f'the launches ended at steps {max(first, default=0)} and {max(second, default=0)}')
    counted = [first[step] for step in sorted(first) if step > 2]
    seconds = float(np.median([entry['seconds'] for entry in counted]))
    tokens = (first[LAST]['tokens'] - first[2]['tokens']) / (LAST - 2)
    both = sorted(set(first) & set(second))
    losses = {step: [first[step]['loss'], second[step]['loss']] for step in both}
    apart = [abs(a - b) for a, b in losses.values()]
    row = {**shape, 'step seconds': seconds, 'tokens a step': tokens, 'tokens/s': tokens / seconds}
    row |= utilisation(shape, tokens, seconds) | {'peak GiB': first[LAST]['peak GiB']}
    resumed = {'went on at step': min(second), 'losses of both': losses, 'losses apart by at most': max(apart)}
    return row | resumed | {'losses': [entry['loss'] for entry in (first | second).values()]}


def dpo(piece: Piece, mini: bool):
    """A process that is killed after some steps, and one that goes on from its checkpoint."""
    missing = [name for name in ('trl', 'peft', 'datasets') if find_spec(name) is None]

    def measure():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            for launch in (1, 2):
                call = [sys.executable, __file__, '--out', scratch, '--launch', str(launch)] + ['--mini'] * mini
                done = subprocess.run(call, capture_output=True, text=True)
                wanted = -signal.SIGKILL if launch == 1 else 0
                if done.returncode != wanted:
                    raise RuntimeError(f'launch {launch} ended with {done.returncode}: {done.stderr[-400:]}')
            return writer_row(folder)

    if missing:
        piece.row('8b, LoRA', lambda: {'failed': f'not installed here: {", ".join(missing)}'})
    else:
        piece.row('mini, LoRA' if mini else 'Llama-3-8B shape, LoRA', measure)


PIECES = {'epochs': epochs, 'term': term, 'evaluate': everybody, 'dpo': dpo, 'tenfold': tenfold}


def main(words=None):
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--out', type=Path, required=True, help='folder for one JSON a piece')
    a.add_argument('--only', help=f'pieces, separated by commas: {", ".join(PIECES)}')
    a.add_argument('--mini', action='store_true', help='sizes that take seconds on a processor')
    a.add_argument('--seconds', type=float, default=1.0, help='multiplies the time that each piece may take')
    a.add_argument('--launch', type=int, help=argparse.SUPPRESS)
    a = a.parse_args(words)
    a.out.mkdir(parents=True, exist_ok=True)
    if a.launch:
        return train_writer(a.out, a.mini, a.launch)
    for name in a.only.split(',') if a.only else PIECES:
        piece = Piece(a.out / f'{name}.json', a.mini)
        try:
            with at_most(a.seconds * SECONDS[name]):
                PIECES[name](piece, a.mini)
        except Late as late:
            print(f'{name}: {late}; what is there is kept, call again to go on', flush=True)


if __name__ == '__main__':
    main()
