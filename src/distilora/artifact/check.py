"""Reads and writes check.npz: check texts with their outputs, by which a loaded model is verified."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.data.examples import Example

CHECK_TEXTS = 32


@dataclass(frozen=True)
class Check:
    """Content of check.npz: examples, their outputs in the run's precision and micro-batches, and in fp32.

    `expert` holds the logits of the n-gram expert, where the model has one.
    """

    examples: list[Example]
    outputs: NDArray[np.float32]
    outputs_fp32: NDArray[np.float32]
    expert: NDArray[np.float32] | None = None


def read_check(folder: Path) -> Check:
    """Read check.npz of a model folder."""
    with np.load(folder / "check.npz", allow_pickle=False) as arrays:
        texts = json.loads(arrays["texts"].tobytes().decode("utf-8"))
        examples = [Example(tuple(parts)) for parts in texts]
        expert = arrays.get("expert")
        return Check(examples, arrays["outputs"], arrays["outputs_fp32"], expert)


def pack_check(check: Check) -> bytes:
    """Serialise a check as the bytes of check.npz."""
    buffer = io.BytesIO()
    texts = json.dumps([list(example.texts) for example in check.examples], ensure_ascii=False)
    arrays: dict[str, Any] = {
        "texts": np.frombuffer(texts.encode("utf-8"), np.uint8),
        "outputs": check.outputs,
        "outputs_fp32": check.outputs_fp32,
    }
    if check.expert is not None:
        arrays["expert"] = check.expert
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def check_examples(examples: Sequence[Example]) -> list[Example]:
    """Choose a check's examples: evenly spaced by length, the shortest and the longest among them."""
    order = sorted(range(len(examples)), key=lambda i: (sum(map(len, examples[i].texts)), i))
    positions = np.unique(np.linspace(0, len(order) - 1, min(CHECK_TEXTS, len(order))).round().astype(int))
    return [Example(examples[order[i]].texts) for i in positions]
