"""Encodes rows, then applies the task's head: `Network.encode` knows no task, a head no encoder; they meet in `States`.

How a batch is laid out is known to this module alone; a head sees states of rows and tokens, never the padding. There are
three ways through the blocks, with the same results up to rounding:

    packed, our arithmetic (model/packed/blocks.py)     post-norm families on a CPU, nothing random between the layers
    packed, Transformers' modules          other devices, dropout, adapters other than LoRA, ModernBERT; packed/attention.py
                                           tells the rows apart
    padded, Transformers' modules          families without its attention registry, or `encoder.attention` eager or sdpa
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distilora.batching.rows import Rows
from distilora.model.encoders.families import Architecture, in_head, most_positions
from distilora.model.packed.attention import REGISTERED
from distilora.model.packed.blocks import Block, blocks_of, deterministic
from distilora.model.packed.layout import ROUND, Packed
from distilora.model.precision import WithoutAutocast, computing_in
from distilora.tasks.base import Task


class Headed(Protocol):
    """What `States` reads of a network: its head, how its rows are pooled, where it computes."""

    pooling: str
    architecture: Architecture

    @property
    def model(self) -> Any:
        """Modules of the head, under the names that `Architecture.head` reads."""
        ...

    @property
    def device(self) -> torch.device:
        """Device it computes on."""
        ...

    def full_precision(self) -> "WithoutAutocast":
        """Turn autocast off."""
        ...


class States:
    """Last states of the encoder for B rows, T tokens in all, width D; computed when, and as far as, they are asked for."""

    def __init__(
        self, network: Headed, rows: Rows, tokens: Callable[[], Tensor], first: Callable[[], Tensor] | None = None
    ) -> None:
        self._network, self._rows = network, rows
        self._compute_tokens, self._compute_first = tokens, first
        self._tokens: Tensor | None = None

    def first(self) -> Tensor:
        """Return the state of each row's first token, [B, D]."""
        if self._compute_first is not None and self._tokens is None:
            return self._compute_first()
        return self.tokens()[torch.from_numpy(self._rows.offsets[:-1]).to(self._network.device)]

    def mean(self) -> Tensor:
        """Return the mean state of each row, [B, D]."""
        tokens, lengths = self.tokens(), torch.from_numpy(self._rows.lengths).to(self._network.device)
        row_of = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        total = torch.zeros(len(lengths), tokens.shape[1], device=tokens.device)
        return total.index_add(0, row_of, tokens.float()) / lengths[:, None]

    def tokens(self) -> Tensor:
        """Return the state of every token, ragged like `rows.ids`, [T, D]."""
        if self._tokens is None:
            self._tokens = self._compute_tokens()
        return self._tokens

    def pooled(self) -> Tensor:
        """Pool each row as the Transformers class does before its head, [B, D]."""
        return self.mean() if self._network.pooling == "mean" else self.first()

    def head(self, vectors: Tensor) -> Tensor:
        """Apply the Transformers class's own head layers to any vectors, in fp32: [N, D] -> [N, outputs]."""
        with self._network.full_precision():
            return self._network.architecture.head(self._network.model, vectors.float())


class Network(nn.Module):
    """Encoder and a task's head: the Transformers class (`outer`), or a PEFT model with adapters around it."""

    def __init__(self, outer: Any, architecture: Architecture, task: Task) -> None:
        super().__init__()
        self.outer = outer
        self.architecture = architecture
        self.task = task
        config = self.model.config
        self.pooling = getattr(config, "classifier_pooling", "cls")
        self.padding_id = config.pad_token_id or 0
        self.most_tokens = most_positions(config) - architecture.reserved_positions

    @property
    def has_adapter(self) -> bool:
        """Whether a PEFT model with adapters is around the Transformers class."""
        return hasattr(self.outer, "get_base_model")

    @property
    def model(self) -> Any:
        """Transformers class, adapters injected."""
        return self.outer.get_base_model() if self.has_adapter else self.outer

    @property
    def device(self) -> torch.device:
        """Device it computes on."""
        return next(self.parameters()).device

    @property
    def packed(self) -> bool:
        """Whether rows are packed rather than padded."""
        return bool(self.model.config._attn_implementation == REGISTERED)

    @cached_property
    def blocks(self) -> list[Block] | None:
        """Blocks in our arithmetic; None where Transformers' modules compute."""
        ours = self.packed and self.device.type == "cpu"
        return blocks_of(self.model, self.architecture) if ours else None

    @property
    def computes_blocks(self) -> bool:
        """Whether our own arithmetic is used now: nothing is random, and it knows the adapters (`Block.exact`)."""
        return self.blocks is not None and deterministic(self.model) and all(block.exact for block in self.blocks)

    @property
    def cut(self) -> int:
        """Number of blocks below everything that is trained in the encoder, at most all but the last one.

        0 if anything is trained that is neither in a block nor in the head: it may come before the blocks.
        """
        base, within = self.model.base_model, self.architecture.blocks + "."
        lowest = len(base.get_submodule(self.architecture.blocks)) - 1
        for name, parameter in base.named_parameters():
            if not parameter.requires_grad:
                continue
            if name.startswith(within):
                lowest = min(lowest, int(name.removeprefix(within).split(".")[0]))
            elif not in_head(name, self.architecture):
                return 0
        return lowest

    def encode(self, rows: Rows, adapter: str | None = None, entering: Tensor | None = None) -> States:
        """Encode the rows.

        Args:
            adapter: name of a loaded adapter to use from now on; None keeps the active one.
            entering: states entering block `cut`, [T, D], as `lower` gives them; None computes them.
        """
        if adapter is not None:
            self.outer.set_adapter(adapter)
        if not self.packed:
            hidden, inside = self._padded(rows)
            return States(self, rows, lambda: hidden[inside])
        packed = Packed(rows, self.device)
        if not self.computes_blocks:
            ids, positions = self._input(rows, packed)
            hidden = self.model.base_model(input_ids=ids, position_ids=positions, packed=packed)[0][0]
            return States(self, rows, lambda: hidden[: packed.total])
        assert self.blocks is not None
        with self.full_precision() as dtype:
            start = 0 if entering is None else self.cut
            x = self._embedded(rows, packed, dtype) if entering is None else _filled(entering.to(dtype), packed)
            for block in self.blocks[start:-1]:
                x = block(x, packed)
        last = self.blocks[-1]

        def first() -> Tensor:
            with self.full_precision():
                return last.first(x, packed)

        def tokens() -> Tensor:
            with self.full_precision():
                return last(x, packed)[: packed.total]

        return States(self, rows, tokens, first)

    @torch.no_grad()
    def lower(self, rows: Rows) -> Tensor:
        """Compute the states entering block `cut`, [T, D]; for networks that compute their blocks."""
        assert self.blocks is not None
        packed = Packed(rows, self.device)
        with self.full_precision() as dtype:
            x = self._embedded(rows, packed, dtype)
            for block in self.blocks[: self.cut]:
                x = block(x, packed)
        return x[: packed.total]

    def frozen_below(self) -> dict[str, Tensor]:
        """Return the tensors that `lower` reads, by name: those of the embeddings and of the blocks below `cut`."""
        base, family = self.model.base_model, self.architecture
        parts = [family.embeddings, *(f"{family.blocks}.{number}" for number in range(self.cut))]
        parts += ["embeddings_project"] if hasattr(base, "embeddings_project") else []
        return {
            f"{part}.{name}": tensor for part in parts for name, tensor in base.get_submodule(part).state_dict().items()
        }

    def forward(self, rows: Rows, adapter: str | None = None, entering: Tensor | None = None) -> Tensor:
        """Compute the task's outputs for the rows' G examples, [G, ...]."""
        return self.task.head(self.encode(rows, adapter, entering), rows)

    def training_outputs(self, rows: Rows, targets: Sequence[Any], entering: Tensor | None = None) -> Tensor:
        """Compute what the task's loss takes in training: the outputs, [G, ...]; `entering` as in `encode`."""
        return self(rows, entering=entering)  # type: ignore[no-any-return]

    def through_embeddings(self, rows: Rows, embedded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the outputs of the rows' G examples, [G, ...], and return them with the embedding of each token, [T, E].

        If `embedded` is not None, the blocks read it instead, and its gradient can be formed. For one thread at a time:
        meanwhile every other pass through this network would read `embedded`, too.
        """
        embeddings = []

        def exchange(module: nn.Module, arguments: Any, states: Tensor) -> Tensor:
            lengths = [rows.lengths.sum()] if self.packed else rows.lengths  # of what stands in each line of `states`
            ends = torch.tensor(np.asarray(lengths), device=states.device)
            inside = torch.arange(states.shape[1], device=states.device)[None] < ends[:, None]
            embeddings.append(states[inside])
            return states if embedded is None else states.detach().index_put((inside,), embedded.to(states.dtype))

        module = self.model.base_model.get_submodule(self.architecture.embeddings)
        hook = module.register_forward_hook(exchange)
        try:
            outputs = self(rows)
        finally:
            hook.remove()
        return outputs, embeddings[0]

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the trainable parameters, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def full_precision(self) -> "WithoutAutocast":
        """Turn autocast off; the context gives the type it would have computed in."""
        return WithoutAutocast(self.device.type)

    def _input(self, rows: Rows, packed: Packed) -> tuple[Tensor, Tensor]:
        return packed_input(rows, packed, self.architecture, self.padding_id)

    def _embedded(self, rows: Rows, packed: Packed, dtype: torch.dtype) -> Tensor:
        ids, positions = self._input(rows, packed)
        base = self.model.base_model
        x = base.get_submodule(self.architecture.embeddings)(input_ids=ids, position_ids=positions)
        if hasattr(base, "embeddings_project"):  # ELECTRA's, where embeddings are narrower than the blocks
            with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):  # it may be adapted, in fp32
                x = base.embeddings_project(x)
        return cast(Tensor, x[0].to(dtype))

    def _padded(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Compute the last states, padded, [B, longest, D], and the mask of tokens, [B, longest]."""
        lengths = rows.lengths
        longest = min(-(-int(lengths.max(initial=1)) // ROUND) * ROUND, self.most_tokens)
        inside = np.arange(longest)[None] < lengths[:, None]
        ids = np.full(inside.shape, self.padding_id, np.int64)
        ids[inside] = rows.ids
        mask = None if inside.all() else torch.from_numpy(inside.astype(np.int64)).to(self.device)
        positions = {}
        # passed explicitly: the model would not count padding tokens within a text (see explanation/gradients.py)
        if self.architecture.reserved_positions:
            embeddings = self.model.base_model.get_submodule(self.architecture.embeddings)
            first = embeddings.padding_idx + 1
            positions["position_ids"] = torch.arange(first, first + longest, device=self.device)[None]
        input_ids = torch.from_numpy(ids).to(self.device)
        hidden = self.model.base_model(input_ids=input_ids, attention_mask=mask, **positions)[0]
        return hidden, torch.from_numpy(inside).to(self.device)


def packed_input(rows: Rows, packed: Packed, family: Architecture, padding_id: int) -> tuple[Tensor, Tensor]:
    """Lay out token ids and positions as the family's embeddings read them, [1, size] each."""
    # RoBERTa counts positions from the one after its padding's
    positions = packed.positions + (padding_id + 1 if family.reserved_positions else 0)
    return packed.pack(rows.ids, padding_id)[None], positions[None]


def _filled(tokens: Tensor, packed: Packed) -> Tensor:
    """Pad [T, D] with zeros to the packed sequence's [size, D]."""
    return nn.functional.pad(tokens, (0, 0, 0, packed.size - packed.total))


def run_network(
    network: Network, rows: Rows, precision: str, entering: torch.Tensor | None = None
) -> NDArray[np.float32]:
    """Compute the outputs of one micro-batch without gradients; validation and prediction both call it, for the same numbers.

    `entering`: see `Network.encode`.
    """
    with torch.inference_mode(), computing_in(precision, network.device):
        outputs = network(rows, entering=entering)
    return outputs.float().cpu().numpy()  # type: ignore[no-any-return]
