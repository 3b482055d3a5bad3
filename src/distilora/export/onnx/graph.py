"""Writing of a merged network as an ONNX graph, by torch.onnx.

    input_ids       int64 [batch, sequence]   from the folder's tokenizer.json, padded with any id
    attention_mask  int64 [batch, sequence]   1 where there is a token, 0 where there is padding
    logits          fp32  [batch, labels], or [batch, sequence, labels] for a task that reads every token

Where nothing follows the Transformers class's head, they are divided by the temperature: the softmax of a classifier is calibrated.

Post-norm families (model/encoders/families.py) are written block by block, the last one for the first token alone, as in
model/packed/attention.py; other families are traced through Transformers' own forward pass.
"""

import logging
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from distilora.errors import ArtifactError, MissingExtra
from distilora.model.encoders.families import Architecture, head_count
from distilora.model.network import Network

OPSET = 20
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "logits"
HIDDEN = -10_000.0  # added to the scores of padding, whose exp() is then 0


def write_onnx(network: Network, path: Path) -> None:
    """Write `network` (merged, fp32, on the CPU) as one ONNX file.

    Raises MissingExtra without onnx and onnxscript, ArtifactError for a task or family that cannot be exported.
    """
    import importlib.util

    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "export")
    if network.task.output_kind == "other":
        raise ArtifactError(
            f"--to: task {network.task.name} has a head of its own, which onnx does not support; use merged"
        )
    module = (_BlockGraph(network) if _has_known_blocks(network) else _WholeGraph(network)).eval()
    ids = torch.ones(3, 12, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=network.most_tokens)}
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, (ids, mask), input_names=list(INPUTS), output_names=[OUTPUT], opset_version=OPSET, dynamo=True,
                dynamic_shapes=(sizes, sizes), verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter raises errors of many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(
            f"--to: a {network.architecture.model_type} encoder cannot be exported to onnx ({reason}); use merged"
        ) from None
    finally:
        logger.setLevel(level)
    assert program is not None
    program.save(str(path), external_data=False)


def _has_known_blocks(network: Network) -> bool:
    return network.architecture.parts is not None and network.blocks is not None and network.pooling != "mean"


class _WholeGraph(nn.Module):
    """Transformers' own forward pass."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.model, self.architecture, self.finish = network.model, network.architecture, network.task.finish
        self.tokens = network.task.output_kind == "tokens"
        self.model.set_attn_implementation("eager")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute logits [batch, labels]."""
        if not self.tokens:
            return self.finish(self.model(input_ids=input_ids, attention_mask=attention_mask).logits)
        hidden = self.model.base_model(input_ids=input_ids, attention_mask=attention_mask)[0]
        return _of_tokens(self.architecture, self.model, hidden)


class _BlockGraph(nn.Module):
    """Embeddings, blocks and head, written out with fused projections."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.model, self.architecture, self.finish = network.model, network.architecture, network.task.finish
        self.tokens = network.task.output_kind == "tokens"
        base = network.model.base_model
        self.embeddings = base.get_submodule(network.architecture.embeddings)
        self.project = getattr(base, "embeddings_project", None)  # ELECTRA's
        self.first_position = network.padding_id + 1 if network.architecture.reserved_positions else 0  # RoBERTa's
        parts = network.architecture.parts
        blocks = list(base.get_submodule(network.architecture.blocks))
        self.blocks = nn.ModuleList(
            _Block(block, parts, head_count(network.model.config), block is blocks[-1] and not self.tokens)
            for block in blocks
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute logits [batch, labels]."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None] + self.first_position
        x = self.embeddings(input_ids=input_ids, position_ids=positions)
        x = x if self.project is None else self.project(x)
        padding = (1 - attention_mask.to(x.dtype))[:, None, None] * HIDDEN  # [batch, 1, 1, sequence]
        for block in self.blocks:
            x = block(x, padding)
        return (
            _of_tokens(self.architecture, self.model, x)
            if self.tokens
            else self.finish(self.architecture.head(self.model, x))
        )


def _of_tokens(architecture: Architecture, model: Any, states: Tensor) -> Tensor:
    """Apply the head to every token: [batch, sequence, D] -> [batch, sequence, outputs]."""
    logits = architecture.head(model, states.flatten(0, 1))
    return logits.view(*states.shape[:2], logits.shape[1])


class _Block(nn.Module):
    """One transformer block; the last one returns [batch, D], the states of the first tokens."""

    def __init__(self, block: Any, parts: Any, heads: int, last: bool) -> None:
        super().__init__()
        query, key, value = (block.get_submodule(name) for name in (parts.query, parts.key, parts.value))
        self.heads, self.last = heads, last
        self.width = query.weight.shape[0]
        self.scale = (self.width // heads) ** -0.5
        if last:
            self.query, self.key, self.value = query, key, value
        else:
            self.query_key_value = _joined([query, key, value], [self.scale, 1.0, 1.0])
        self.out, self.norm1, self.lin1, self.lin2, self.norm2 = (
            block.get_submodule(name) for name in (parts.out, parts.norm1, parts.lin1, parts.lin2, parts.norm2)
        )

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        """Map states [batch, sequence, D] to the same shape, or to [batch, D] in the last block."""
        start, attended = (x[:, 0], self._first(x, padding)) if self.last else (x, self._all(x, padding))
        h = self.norm1(self.out(attended) + start)
        return self.norm2(self.lin2(functional.gelu(self.lin1(h))) + h)  # type: ignore[no-any-return]

    def _all(self, x: Tensor, padding: Tensor) -> Tensor:
        batch, length = x.shape[:2]
        split = self.query_key_value(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = split.unbind(0)
        p = torch.softmax(q @ k.transpose(2, 3) + padding, -1)
        return cast(Tensor, (p @ v).transpose(1, 2).reshape(batch, length, self.width))

    def _first(self, x: Tensor, padding: Tensor) -> Tensor:
        """Attend from the first token without forming keys and values, see model/packed/attention.py."""
        q = (self.query(x[:, 0]) * self.scale).view(-1, self.heads, 1, self.width // self.heads)
        keys, values = (layer.weight.view(1, self.heads, -1, self.width) for layer in (self.key, self.value))
        p = torch.softmax((q @ keys).squeeze(2) @ x.transpose(1, 2) + padding[:, 0], -1)  # [batch, heads, sequence]
        summed = (p @ x)[..., None]  # [batch, heads, D, 1]
        return cast(
            Tensor, (values @ summed).reshape(-1, self.width) + (0 if self.value.bias is None else self.value.bias)
        )


def _joined(layers: list[nn.Linear], scales: list[float]) -> nn.Linear:
    """Concatenate the layers' outputs, each multiplied by its scale, in one layer."""
    with torch.no_grad():
        weight = torch.cat([layer.weight * scale for layer, scale in zip(layers, scales, strict=True)])
        biases = [torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
        bias = torch.cat([part * scale for part, scale in zip(biases, scales, strict=True)])
    joined = nn.Linear(weight.shape[1], weight.shape[0])
    joined.weight, joined.bias = nn.Parameter(weight), nn.Parameter(bias)
    return joined
