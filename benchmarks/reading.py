"""What reading the profiles of amazon-industrial costs, and what was tried to halve it.

    python benchmarks/reading.py DATA_FOLDER [--collect benchmarks/results/reading.json] [--texts 240] [--only padding]
        [--cache FOLDER]

padding: tokens of all different texts, and how many are read with padding when batches of 16 are made by characters and
by tokens (amazon-industrial, ml-100k; template profiles).
speed: the same texts, longest first, one thread: processor seconds and agreement (cosine, and cosine of the vectors
without their mean) of torch in float32, torch in 8 bits by tensor and by row (dynamic), and, where onnxruntime and onnx
are installed, ONNX Runtime in float32 and in 8 bits; billions of operations beside them.
halves: all profiles read in float32 and in bfloat16 (a processor that has it), one thread: processor seconds of a whole
`encode`, cosine, recall@20 of profiles alone on validation, and how many of the 20 items are the same (ml-100k,
amazon-industrial; with --cache it resumes, and what was read before is not timed).
cut: recall@20 of profiles alone on validation when only the first tokens of a text are read (amazon-industrial; slow).
"""

import argparse
import copy
import json
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from encoders import worlds
from static import recall

from promax_nb.models.results import versions
from promax_nb.profiles.local import computes_bf16
from promax_nb.profiles.prompts import item_prompts, user_prompts
from promax_nb.profiles.write import write
from promax_nb.retrieval.embed import encode
from promax_nb.retrieval.encoders import find_encoder, load_encoder, token_counts
from promax_nb.retrieval.vectors import unit_rows

BATCH = 16
PARTS = ['padding', 'speed', 'halves', 'cut']


def profiles(data):
    """Template profiles of all users, then of all items."""
    items = write(None, item_prompts(data), progress=False)
    return write(None, user_prompts(data, items), progress=False).profile.tolist() + items.profile.tolist()


def read_with_padding(lengths):
    """Tokens that pass through the model when these texts, in this order, make batches."""
    parts = [lengths[start : start + BATCH] for start in range(0, len(lengths), BATCH)]
    return int(sum(part.max() * len(part) for part in parts))


def padding(texts):
    """Tokens, and tokens with padding, by characters and by tokens."""
    texts = sorted(set(texts), key=lambda text: (-len(text), text))
    lengths = np.array([count for count, _ in token_counts(find_encoder(device='cpu'), texts)])
    ways = {'by characters': lengths, 'by tokens': np.sort(lengths)[::-1]}
    read = {way: read_with_padding(ordered) for way, ordered in ways.items()}
    more = {f'{way}, relative': round(count / int(lengths.sum()), 4) for way, count in read.items()}
    cut = {str(limit): round(float(np.minimum(lengths, limit).sum() / lengths.sum()), 4) for limit in (128, 64, 48)}
    return {'different texts': len(texts), 'tokens': int(lengths.sum())} | read | more | {'tokens left, cut at': cut}


def batches(tokenizer, texts):
    """Padded batches, most tokens first."""
    ids = sorted(tokenizer(texts, truncation=True, max_length=256, verbose=False)['input_ids'], key=len, reverse=True)
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH]
        numbers, mask = (np.zeros((len(part), len(part[0])), np.int64) for _ in range(2))
        for row, each in enumerate(part):
            numbers[row, : len(each)], mask[row, : len(each)] = each, 1
        yield numbers, mask


def pooled(states, mask):
    """Mean of the states that are not padding, of length one."""
    return unit_rows((states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True))


def torch_reader(model, dtype=torch.float32):
    """Batch -> vectors."""

    def read(numbers, mask):
        with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = model(input_ids=torch.from_numpy(numbers), attention_mask=torch.from_numpy(mask))
        return pooled(found.last_hidden_state.float().numpy(), mask)

    return read


def onnx_readers(model, folder):
    """The same by ONNX Runtime, in float32 and in 8 bits; nothing where it is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        return {}

    class States(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = copy.deepcopy(model)
            self.model.set_attn_implementation('eager')

        def forward(self, input_ids, attention_mask):
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    names, any_size = ['input_ids', 'attention_mask'], {0: 'texts', 1: 'tokens'}
    example = torch.ones(2, 16, dtype=torch.int64)
    torch.onnx.export(
        States().eval(),
        (example, example),
        folder / 'whole.onnx',
        input_names=names,
        output_names=['states'],
        dynamic_axes=dict.fromkeys([*names, 'states'], any_size),
        opset_version=17,
        dynamo=False,
    )
    eight = dict(op_types_to_quantize=['MatMul'], per_channel=True, weight_type=QuantType.QInt8)
    quantize_dynamic(folder / 'whole.onnx', folder / 'eight.onnx', **eight)

    def reader(file):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(file, options)
        return lambda numbers, mask: pooled(session.run(None, dict(zip(names, (numbers, mask), strict=True)))[0], mask)

    files = {'ONNX Runtime, float32': 'whole.onnx', 'ONNX Runtime, 8 bits by row': 'eight.onnx'}
    return {name: reader(folder / file) for name, file in files.items()}


def speed(texts, how_many):
    """Reader -> processor seconds, and how far its vectors agree with those of float32."""
    torch.set_num_threads(1)
    some = np.random.default_rng(0).permutation(texts)[:how_many].tolist()
    model = load_encoder(find_encoder(device='cpu'))
    inner, parts = (
        model[0].model if hasattr(model[0], "model") else model[0].auto_model,
        list(batches(model.tokenizer, some)),
    )
    settings = torch.ao.quantization
    kinds = {'by tensor': settings.default_dynamic_qconfig, 'by row': settings.per_channel_dynamic_qconfig}
    readers = {'torch, float32': torch_reader(inner)}
    if computes_bf16('cpu'):
        readers['torch, bfloat16'] = torch_reader(inner, torch.bfloat16)
    for name, kind in kinds.items():
        small = settings.quantize_dynamic(copy.deepcopy(inner), {torch.nn.Linear: kind})
        readers[f'torch, 8 bits {name}'] = torch_reader(small)
    weights = sum(layer.weight.numel() for layer in inner.encoder.modules() if isinstance(layer, torch.nn.Linear))
    sizes = [mask.shape for _, mask in parts]
    attention = sum(
        4 * n * long * long * inner.config.hidden_size * inner.config.num_hidden_layers for n, long in sizes
    )
    operations = (2 * weights * sum(n * long for n, long in sizes) + attention) / 1e9
    rows = {'texts': len(some), 'billions of operations': round(operations, 1)}
    with tempfile.TemporaryDirectory() as folder:
        readers |= onnx_readers(inner, Path(folder))
        whole = None
        for name, read in readers.items():
            read(*parts[-1])
            began = time.process_time()
            found = np.concatenate([read(*part) for part in parts])
            taken = time.process_time() - began
            whole = found if whole is None else whole
            off = [unit_rows(x - whole.mean(0)) for x in (found, whole)]
            agree = {'cosine': (found * whole).sum(1).mean(), 'without the mean': (off[0] * off[1]).sum(1).mean()}
            rows[name] = {'seconds': round(taken, 2)} | {way: round(float(v), 4) for way, v in agree.items()}
            print(name, rows[name], flush=True)
    return rows


def halves(data, texts, cache, was):
    """Processor seconds and what is found, of all profiles in float32 and in bfloat16."""
    torch.set_num_threads(1)
    found, rows = {}, {}
    for dtype in ('float32', 'bfloat16'):
        began = time.process_time()
        found[dtype] = encode(texts, cache=cache, device='cpu', dtype=dtype)
        seconds = round(time.process_time() - began, 1)
        known = cache is not None and was.get(dtype, {}).get('seconds')
        rows[dtype] = {'seconds': max(seconds, known or 0), 'recall@20': recall(data, found[dtype])}
    directions = [unit_rows(vectors) for vectors in found.values()]
    cosine = (directions[0] * directions[1]).sum(1)
    sides = [np.split(each, [data.train.shape[0]]) for each in directions]
    firsts = [np.argpartition(-users @ items.T, 20, axis=1)[:, :20].tolist() for users, items in sides]
    same = np.mean([len(set(one) & set(other)) / 20 for one, other in zip(*firsts, strict=True)])
    rows |= {'texts': len(set(texts)), 'cosine': round(float(cosine.mean()), 6), 'least': round(float(cosine.min()), 6)}
    return rows | {'same of the first 20 items': round(float(same), 4)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', type=Path, help='folder with ml-100k and amazon-industrial')
    p.add_argument('--collect', type=Path, help='JSON file to write; what was measured before and is not now stays')
    p.add_argument('--texts', type=int, default=240, help='texts whose reading is timed')
    p.add_argument('--cut', type=int, default=48, help='tokens of a text that are read')
    p.add_argument('--only', nargs='+', default=PARTS, choices=PARTS)
    p.add_argument('--cache', type=Path, help='where vectors are kept')
    args = p.parse_args()
    warnings.simplefilter('ignore')
    found = {name: data for name, data in worlds(args.data).items() if name != 'bookshop'}
    texts = {name: profiles(data) for name, data in found.items()}
    before = json.loads(args.collect.read_text()) if args.collect and args.collect.exists() else {}
    result = before | {'command': 'python benchmarks/reading.py DATA_FOLDER', 'versions': versions()}
    shop = 'amazon-industrial'
    if 'padding' in args.only:
        result['padding'] = {name: padding(each) for name, each in texts.items()}
        print(result['padding'])
    if 'speed' in args.only:
        processor = torch.backends.cpu.get_cpu_capability() + (', bfloat16' if computes_bf16('cpu') else '')
        result.setdefault('speed', {})[processor] = speed(texts[shop], args.texts)
    if 'halves' in args.only:
        was = result.setdefault('halves', {})
        for name, each in texts.items():
            was[name] = halves(found[name], each, args.cache, was.get(name, {}))
            print(name, was[name], flush=True)
    if 'cut' in args.only:
        vectors = encode(texts[shop], max_length=args.cut, cache=args.cache, device='cpu')
        result['cut'] = {'tokens': args.cut, 'recall@20': recall(found[shop], vectors)}
        print(result['cut'])
    if args.collect:
        args.collect.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
