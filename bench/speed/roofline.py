"""How near a training step comes to the processor's ceiling: operations it must do / (its time x the measured peak).

    python -m bench.speed.roofline DATA [--rounds 5] [--length 256] [--device cuda] [--encoder FOLDER]

The peak is that of square matrix products in the precision used, 1,024 and 2,048 wide, the faster one; peak and step are
measured in turns. Operations (a multiplication and an addition are two) of a row of L tokens, width D, feed-forward F,
adapters of rank r beside all layers:

    block, forward                   L (8 D^2 + 4 D F) + 4 L^2 D
    trained block, backward          the same for the gradient of its input, and 4 L^2 D more for attention's; the lowest
                                     trained one needs no input's gradient of its queries, keys and values (6 L D^2)
    adapter of an (in, out) layer    4 L r (in + out), backward only: its product is part of the layer's
    last block                       the first token alone, without keys and values (model/packed/attention.py): 12 L H D, H heads

Padding, softmax, norms, activations, copies and the optimiser count as nothing done.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distilora.batching.batches import Update, plan_batches
from distilora.batching.rows import rows_of
from distilora.batching.tokens import with_truncation
from distilora.config.schema import AdapterConfig
from distilora.hardware import keep_freed_memory, pick_precision, pick_token_budget
from distilora.model.build import new_network
from distilora.model.encoders.find import find_encoder, load_tokenizer
from distilora.tasks.classification import Classification


def operations(
    lengths: "np.typing.NDArray[Any]", blocks: int, trained: int, rank: int, width: int, inner: int, heads: int
) -> float:
    """What a step on rows of these lengths must do; `trained` blocks of `blocks`, at least two of them."""
    n, d, f = lengths.astype(np.float64), width, inner
    layers = n * (8 * d * d + 4 * d * f)
    attention = 4 * n * n * d
    adapters = 4 * n * rank * (4 * 2 * d + 2 * (d + f))
    whole = trained - 1  # trained blocks that all tokens go through
    frozen = (blocks - trained) * (layers + attention)
    forward_and_backward = whole * (2 * layers + 3 * attention + adapters) - 6 * n * d * d
    last = 12 * n * heads * d
    return float((frozen + forward_and_backward + last).sum())


def now(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of matrix products, the best of two sizes."""
    rates = []
    for size in (1024, 2048) if device.type == "cpu" else (4096, 8192):
        a = torch.randn(size, size, device=device).to(dtype)
        for _ in range(3):
            a @ a
        times = []
        for _ in range(8):
            started = now(device)
            a @ a
            times.append(now(device) - started)
        rates.append(2 * size**3 / statistics.median(times))
    return max(rates)


def main() -> None:
    """Prints one line of JSON: a list of rounds with peak, operations, seconds and share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--last-blocks", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--encoder", default="embedded")
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cpu":
        keep_freed_memory()
    precision = pick_precision("auto", device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    encoder, task = find_encoder(args.encoder, None), Classification(("negative", "positive"), "text", "label")
    adapter = AdapterConfig(last_blocks=args.last_blocks)
    network = new_network(encoder, task, adapter, precision=precision, device=device, dropout=0.0).train()
    optimizer = torch.optim.AdamW(network.trained().values(), lr=1e-3)
    lines = [json.loads(line) for line in (args.data / "train.jsonl").read_text("utf-8").splitlines()[:1600]]
    tokenizer = with_truncation(load_tokenizer(encoder), args.length, "left")
    rows = rows_of([[e.ids] for e in tokenizer.encode_batch([line["text"] for line in lines])])
    targets = [line["label"] for line in lines]
    updates = plan_batches(rows.group_lengths, pick_token_budget(None, device), 16)

    def step(update: Update) -> None:
        for batch in update:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                outputs = network(rows.take(batch))
            (task.loss(outputs, [targets[i] for i in batch]).sum() / 16).backward()
        torch.nn.utils.clip_grad_norm_(network.trained().values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    each = 12
    for update in updates[:each]:
        step(update)
    if args.profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            for update in updates[:each]:
                step(update)
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=20))
        return
    width, inner, heads = (encoder.config[name] for name in ("dim", "hidden_dim", "n_heads"))
    rounds = []
    for number in range(args.rounds):
        best = peak(dtype, device)
        part = updates[each * number : each * (number + 1)]
        started = now(device)
        for update in part:
            step(update)
        seconds = now(device) - started
        best = statistics.mean((best, peak(dtype, device)))
        lengths = rows.group_lengths[np.concatenate([batch for update in part for batch in update])]
        done = operations(lengths, 6, args.last_blocks, 16, width, inner, heads)
        rounds.append({
            "peak_per_s": best, "operations": done, "seconds": seconds, "tokens": int(lengths.sum()),
            "share": done / seconds / best,
        })  # fmt: skip
    print(json.dumps({"precision": precision, "length": args.length, "rounds": rounds}))


if __name__ == "__main__":
    main()
