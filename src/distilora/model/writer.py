"""Encoder-decoders (T5, BART): they read rows and write text, by Transformers' own forward pass and `generate`.

In training the decoder is given the target's tokens and predicts the next of each (teacher forcing); the task's loss takes its
logits. In prediction it writes by beam search as the task's `generation` says, and the outputs are token ids.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distilora.batching.outputs import NOTHING
from distilora.batching.rows import Rows
from distilora.model.encoders.families import Architecture
from distilora.model.network import Network
from distilora.tasks.base import Task

IGNORED = -100  # label of what is no token, which the loss leaves out


class Writer(Network):
    """Network of an encoder-decoder."""

    def forward(self, rows: Rows, adapter: str | None = None, entering: Tensor | None = None) -> Tensor:
        """Write an answer to each of the rows' G examples: token ids, [G, longest], NOTHING behind the end of each."""
        from transformers import GenerationConfig

        if adapter is not None:
            self.outer.set_adapter(adapter)
        read, mask = self._read(rows)
        config = self.model.config
        settings = GenerationConfig(
            do_sample=False, pad_token_id=self.padding_id, eos_token_id=config.eos_token_id,
            decoder_start_token_id=config.decoder_start_token_id, **self.task.generation,
        )  # fmt: skip
        written = self.model.generate(input_ids=read, attention_mask=mask, generation_config=settings)[:, 1:]
        ended = torch.cumsum((written == config.eos_token_id).int(), 1) - (written == config.eos_token_id).int() > 0
        ids: Tensor = written.float().masked_fill(ended | (written == self.padding_id), float(NOTHING))
        return ids

    def training_outputs(self, rows: Rows, targets: Sequence[Any], entering: Tensor | None = None) -> Tensor:
        """Compute the logits of the targets' tokens, [G, longest, V]; each target has its token ids as `ids`."""
        ids, mask = self._read(rows)
        longest = max(len(target.ids) for target in targets)
        labels = np.full((len(targets), longest), IGNORED, np.int64)
        for row, target in zip(labels, targets, strict=True):
            row[: len(target.ids)] = target.ids
        outputs = self.model(input_ids=ids, attention_mask=mask, labels=torch.from_numpy(labels).to(self.device))
        return outputs.logits  # type: ignore[no-any-return]

    def _read(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Pad the rows, [G, longest], with their mask."""
        lengths = rows.lengths
        inside = np.arange(int(lengths.max(initial=1)))[None] < lengths[:, None]
        ids = np.full(inside.shape, self.padding_id, np.int64)
        ids[inside] = rows.ids
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(inside.astype(np.int64)).to(self.device)


def network_of(outer: Any, family: Architecture, task: Task) -> Network:
    """Put a network around a Transformers class, or the PEFT model around it."""
    return (Writer if family.decoder else Network)(outer, family, task)
