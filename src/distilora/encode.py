"""Encode, then head. `Network.encode` knows no task and a task's head knows no encoder; they meet in `States`.

How a batch is laid out (padded here) is known to this module alone. Rows come in ragged and are padded at the last
moment; a head sees states of rows and tokens, never the padding.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distilora.architectures import Architecture
from distilora.rows import Rows
from distilora.tasks import Task

# Batches are padded to a multiple of this many tokens: matrix kernels are made anew for each new shape, and on a CPU
# their making costs more than the padding (LOG.md has the figures).
STRIDE = 16


class States:
    """The encoder's last states of B rows, T tokens in all, width D."""

    def __init__(self, hidden: Tensor, lengths: Tensor, network: "Network") -> None:
        self._hidden = hidden  # [B, longest, D]
        self._lengths = lengths  # [B]
        self._network = network

    def first(self) -> Tensor:
        """State of each row's first token, [B, D]."""
        return self._hidden[:, 0]

    def mean(self) -> Tensor:
        """Mean state of each row, [B, D]."""
        total = (self._hidden * self._mask()[..., None]).sum(1)
        return total / self._lengths[:, None]

    def tokens(self) -> Tensor:
        """State of every token, ragged like `rows.ids`, [T, D]."""
        return self._hidden[self._mask()]

    def pooled(self) -> Tensor:
        """Each row as the Transformers class pools it before its head, [B, D]."""
        return self.mean() if self._network.pooling == "mean" else self.first()

    def head(self, vectors: Tensor) -> Tensor:
        """The Transformers class's own head layers on any vectors, [N, D] -> [N, outputs]."""
        return self._network.architecture.head(self._network.model, vectors)

    def _mask(self) -> Tensor:
        return torch.arange(self._hidden.shape[1], device=self._hidden.device)[None] < self._lengths[:, None]


class Network(nn.Module):
    """An encoder and a task's head: the Transformers class (`outer`), or a PEFT model with adapters around it."""

    def __init__(self, outer: Any, architecture: Architecture, task: Task) -> None:
        super().__init__()
        self.outer = outer
        self.architecture = architecture
        self.task = task
        config = self.model.config
        self.pooling = getattr(config, "classifier_pooling", "cls")
        self.padding_id = config.pad_token_id or 0
        self.most_tokens = int(config.max_position_embeddings) - architecture.reserved_positions

    @property
    def has_adapter(self) -> bool:
        """Whether low-rank updates are injected."""
        return hasattr(self.outer, "get_base_model")

    @property
    def model(self) -> Any:
        """The Transformers class, adapters injected."""
        return self.outer.get_base_model() if self.has_adapter else self.outer

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    def encode(self, rows: Rows, adapter: str | None = None) -> States:
        """States of the rows; `adapter` names a loaded adapter to use from now on, None keeps the active one."""
        if adapter is not None:
            self.outer.set_adapter(adapter)
        lengths = rows.lengths
        longest = min(-(-int(lengths.max(initial=1)) // STRIDE) * STRIDE, self.most_tokens)
        inside = np.arange(longest)[None] < lengths[:, None]
        ids = np.full(inside.shape, self.padding_id, np.int64)
        ids[inside] = rows.ids
        mask = None if inside.all() else torch.from_numpy(inside.astype(np.int64)).to(self.device)
        hidden = self.model.base_model(input_ids=torch.from_numpy(ids).to(self.device), attention_mask=mask)[0]
        return States(hidden, torch.from_numpy(lengths).to(self.device), self)

    def forward(self, rows: Rows, adapter: str | None = None) -> Tensor:
        """The task's outputs for the rows' G examples, [G, ...]."""
        return self.task.head(self.encode(rows, adapter), rows)

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
