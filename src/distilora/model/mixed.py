"""Answers rows of many adapters over one shared encoder in one pass.

    rows of adapters     2 0 2 1 0            as they come
    packed               0 0 1 2 2            sorted by adapter, one segment each
    blocks               one product with the shared weights, two small ones a segment (packed/segments.py)
    heads                each adapter's own, in fp32, by its task

The encoder's weights are in memory once, however many adapters there are, and the outputs are those of each adapter's own
network up to rounding. The last block computes first tokens alone where no head in the batch asks for more.

Adapters may be added and removed while other threads compute: the table of adapters is replaced, never changed, and a pass keeps
the one that it began with.

Not every run can take part. The encoder must be one that plain.py builds (DistilBERT, BERT, RoBERTa, ELECTRA, with GELU and
packed rows), since the blocks of other families are Transformers' own modules; the adapter must be plain LoRA in the blocks, with
a head of its own, since anything else changes the shared weights or is not added to a layer's output.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilora.batching.rows import Rows
from distilora.errors import ArtifactError
from distilora.model.adapters.low_rank import SavedUpdate, read_updates
from distilora.model.build import loading_weights
from distilora.model.encoders.families import Architecture, BlockParts, in_head
from distilora.model.encoders.find import Encoder
from distilora.model.network import States, packed_input
from distilora.model.packed.blocks import Block, blocks_of
from distilora.model.packed.layout import Packed
from distilora.model.packed.segments import BlockUpdates, Segments, Span, block_updates, run_block, run_block_first
from distilora.model.plain import HEADED, PlainHead, PlainModel, plain_encoder
from distilora.model.precision import WithoutAutocast, computing_in
from distilora.tasks.base import Task

CPU = torch.device("cpu")


@dataclass
class Adapter:
    """Adapter in memory: its updates block by block, its head and its task; `States` reads it as it does a network."""

    task: Task
    architecture: Architecture
    model: PlainHead
    updates: Sequence[BlockUpdates]
    reads_tokens: bool  # whether its head asks for more than first tokens; also set when it first does
    pooling: str = "cls"  # of the families that take part
    device: torch.device = CPU

    def full_precision(self) -> WithoutAutocast:
        """Turn autocast off."""
        return WithoutAutocast(self.device.type)


class MixedEncoder:
    """Encoder without a head, shared by any number of adapters, which are known by number; on a CPU.

    `precision` is bf16 or fp32; heads and embeddings are in fp32 in both, as in a network that predicts.
    """

    def __init__(self, model: PlainModel, family: Architecture, blocks: Sequence[Block], precision: str) -> None:
        assert family.parts is not None
        self.precision, self.architecture = precision, family
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._names = {name for name, _ in model.named_parameters()}
        self._slots = {name: field.name for field, name in zip(fields(BlockParts), astuple(family.parts), strict=True)}
        self._prefix = f"{family.model_type}.{family.blocks}."
        self._width, self._padding = int(model.config.hidden_size), int(model.config.pad_token_id or 0)
        self._base, self._blocks = cast(Any, model.base_model), list(blocks)
        self._adapters: Mapping[int, Adapter] = {}
        self._numbers, self._changing = itertools.count(), Lock()
        for name, parameter in model.base_model.named_parameters():
            if not name.startswith(family.embeddings + "."):  # few rows of these are read, mapped from the file
                parameter.data = parameter.data.to(self._dtype)

    def understands(self, folder: Path) -> bool:
        """Tell whether the adapter of a model's folder is plain LoRA in the blocks, with a head of its own.

        Raises ArtifactError if its files are damaged.
        """
        with loading_weights(folder):
            return self._saved(folder) is not None

    def read(self, folder: Path, task: Task) -> Adapter:
        """Read the adapter of a model's folder. Raises ArtifactError if it is damaged or cannot take part."""
        with loading_weights(folder):
            saved = self._saved(folder) if task.transformers_class == HEADED else None
            if saved is None:
                raise ValueError("no plain LoRA with a head of its own, so it cannot share an encoder")
            by_block, whole = saved
            last = len(self._blocks) - 1
            updates = [
                block_updates(own, block, self._dtype, number == last)
                for number, (own, block) in enumerate(zip(by_block, self._blocks, strict=True))
            ]
            # copied: sums of a product with one column depend on where the weights lie (build.py)
            head = PlainHead(self.architecture, {name: tensor.float().clone() for name, tensor in whole.items()})
            adapter = Adapter(task, self.architecture, head.eval(), updates, task.output_kind == "tokens")
            with torch.inference_mode():
                outputs = self.architecture.head(head, torch.zeros(1, self._width))
            if outputs.shape != (1, task.outputs) or not all(p.isfinite().all() for p in head.parameters()):
                raise ValueError(
                    f"a head of {outputs.shape[-1]} outputs, of which the task has {task.outputs}, or not finite"
                )
        return adapter

    def add(self, adapter: Adapter) -> int:
        """Add an adapter; return its number, which no other will have."""
        with self._changing:
            number = next(self._numbers)
            self._adapters = {**self._adapters, number: adapter}
        return number

    def remove(self, number: int) -> None:
        """Remove an adapter; passes that have begun still use it. Raises ArtifactError if it is not there."""
        with self._changing:
            self._find(number)
            self._adapters = {other: adapter for other, adapter in self._adapters.items() if other != number}

    def __contains__(self, number: int) -> bool:
        """Tell whether an adapter of this number is there."""
        return number in self._adapters

    def run(self, rows: Rows, numbers: Sequence[int]) -> list[NDArray[np.float32]]:
        """Compute the outputs of one micro-batch without gradients: of each of its G groups, in their order.

        Args:
            rows: of any adapters, T tokens in all.
            numbers: the adapter of each group, [G].

        The outputs of a group are those of its task's head for one example, [...]; where their first dimension is tokens, it is
        that of the adapter's longest example here, and NOTHING (batching/outputs.py) fills it up. Raises ArtifactError, before
        anything is computed, if an adapter is not there, ValueError if there are more or fewer numbers than groups.
        """
        if len(numbers) != rows.groups:
            raise ValueError(f"{len(numbers)} numbers of adapters for {rows.groups} groups")
        distinct = {number: place for place, number in enumerate(dict.fromkeys(numbers))}
        adapters = self._find(*distinct)
        place = np.asarray([distinct[number] for number in numbers], np.int64)
        order = np.argsort(place, kind="stable")
        ordered = rows.take(order)
        edges = np.searchsorted(place[order], np.arange(len(adapters) + 1))
        outputs: list[Any] = [None] * rows.groups
        with torch.inference_mode(), computing_in(self.precision, CPU):
            encoded = self._encode(ordered, adapters, ordered.group_offsets[edges])
            for adapter, first, stop, states in zip(adapters, edges[:-1], edges[1:], encoded, strict=True):
                own = ordered if len(adapters) == 1 else ordered.take(np.arange(first, stop))
                parts = adapter.task.head(states(own), own).float().numpy()
                for group, part in zip(order[first:stop], parts, strict=True):
                    outputs[group] = part
        return outputs

    def _encode(
        self, rows: Rows, adapters: Sequence[Adapter], edges: NDArray[np.int64]
    ) -> list[Callable[[Rows], States]]:
        """Encode rows sorted by adapter, each one's from `edges`, [adapters + 1]; return what makes the states of each."""
        packed = Packed(rows, CPU)
        row_spans = [Span(int(start), int(stop)) for start, stop in itertools.pairwise(edges)]
        token_spans = [Span(int(rows.offsets[start]), int(rows.offsets[stop])) for start, stop in row_spans]
        with WithoutAutocast(CPU.type):
            x = self._embedded(rows, packed)
            for number, block in enumerate(self._blocks[:-1]):
                x = run_block(block, x, packed, _segments(token_spans, adapters, number))
        last = _LastBlock(
            self._blocks[-1], x, packed, *(_segments(spans, adapters, -1) for spans in (token_spans, row_spans))
        )
        if any(adapter.reads_tokens for adapter in adapters):
            last.tokens()  # once, and no first states beside them

        def maker(adapter: Adapter, tokens: Span, firsts: Span) -> Callable[[Rows], States]:
            def every() -> Tensor:
                adapter.reads_tokens = True
                return last.tokens()[tokens.start : tokens.stop]

            return lambda own: States(adapter, own, every, lambda: last.first()[firsts.start : firsts.stop])

        return [maker(*parts) for parts in zip(adapters, token_spans, row_spans, strict=True)]

    def _embedded(self, rows: Rows, packed: Packed) -> Tensor:
        """Compute the states that enter the blocks, [size, D]."""
        ids, positions = packed_input(rows, packed, self.architecture, self._padding)
        embeddings = self._base.get_submodule(self.architecture.embeddings)
        x = embeddings(input_ids=ids, position_ids=positions)[0].to(self._dtype)
        return cast(Tensor, self._base.embeddings_project(x) if hasattr(self._base, "embeddings_project") else x)

    def _find(self, *numbers: int) -> list[Adapter]:
        adapters = self._adapters
        missing = [number for number in numbers if number not in adapters]
        if missing:
            raise ArtifactError(f"adapter {missing[0]}: not among those of this encoder; it was removed, add it again")
        return [adapters[number] for number in numbers]

    def _saved(self, folder: Path) -> tuple[list[dict[str, SavedUpdate]], dict[str, Tensor]] | None:
        """Read updates by block and by the names of `BlockParts`, and the head's weights; None: not of this kind."""
        saved = read_updates(folder / "adapter", self._prefix, self._names)
        if saved is None or not all(in_head(name, self.architecture) for name in saved[1]):
            return None
        by_block: list[dict[str, SavedUpdate]] = [{} for _ in self._blocks]
        for layer, update in saved[0].items():
            number, _, part = layer.removeprefix(self._prefix).partition(".")
            slot = self._slots[part]
            if slot in ("norm1", "norm2"):
                return None
            by_block[int(number)][slot] = update
        return by_block, saved[1]


class _LastBlock:
    """Last block of a pass, computed when, and as far as, it is asked for; `tokens` and `rows` are the same segments."""

    def __init__(self, block: Block, x: Tensor, packed: Packed, tokens: Segments, rows: Segments) -> None:
        self._block, self._x, self._packed, self._token_segments, self._row_segments = block, x, packed, tokens, rows
        self._tokens: Tensor | None = None
        self._first: Tensor | None = None

    def tokens(self) -> Tensor:
        """Return the states of all tokens, [size, D]."""
        if self._tokens is None:
            with WithoutAutocast(CPU.type):
                self._tokens = run_block(self._block, self._x, self._packed, self._token_segments)
        return self._tokens

    def first(self) -> Tensor:
        """Return the states of the rows' first tokens, [B, D]."""
        if self._tokens is not None:
            return self._tokens[self._packed.starts]
        if self._first is None:
            with WithoutAutocast(CPU.type):
                self._first = run_block_first(self._block, self._x, self._packed, self._row_segments)
        return self._first


def _segments(spans: Sequence[Span], adapters: Sequence[Adapter], block: int) -> Segments:
    return [(span, adapter.updates[block]) for span, adapter in zip(spans, adapters, strict=True)]


def open_mixed(encoder: Encoder, precision: str, attention: str = "packed") -> MixedEncoder | None:
    """Open an encoder to be shared by adapters; None if it cannot take part (see above)."""
    model = plain_encoder(encoder, attention)
    blocks = None if model is None else blocks_of(model, encoder.architecture)
    return None if model is None or blocks is None else MixedEncoder(model, encoder.architecture, blocks, precision)
