"""Builds a saved model of plain PyTorch modules, since importing Transformers and PEFT takes longer than the first answer.

The modules stand under the names that the Transformers class gives them, so `encoders/families.py`, `packed/blocks.py` and
`network.py` read both alike. Low-rank updates are added into the weights while these are loaded, by the product that
training forms:

    W + s B A    in fp32, rounded once to the compute precision;    s = alpha / r, of rsLoRA alpha / sqrt(r)

so the outputs are those of the Transformers and PEFT modules, bit for bit. A model that is not exactly of this kind gives None,
and the caller takes those modules.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from distilora.errors import EncoderError
from distilora.model.adapters.saved import SAVED_FORMS, Saved
from distilora.model.encoders.families import (
    Architecture,
    BlockParts,
    activation_name,
    block_count,
    head_count,
    in_head,
    state_width,
)
from distilora.model.encoders.find import EMBEDDED, Encoder, load_weights
from distilora.model.packed.attention import REGISTERED
from distilora.tasks.base import Task

Weights = dict[str, Tensor]  # by the names of the Transformers class
HEADED = "AutoModelForSequenceClassification"
_LEGACY = {"gamma": "weight", "beta": "bias"}  # of a norm, in files of the first years


class PlainModel(nn.Module):
    """Modules of a Transformers classifier: `base_model` (embeddings and blocks) and, if `headed`, the layers of its head."""

    def __init__(self, config: Mapping[str, Any], family: Architecture, weights: Weights, headed: bool = True) -> None:
        super().__init__()
        self.config = _settings(config)
        self.prefix = family.model_type
        base = nn.Module()
        base.embeddings = Embeddings(weights, f"{self.prefix}.embeddings", self.config.layer_norm_eps)
        # ELECTRA's, where embeddings are narrower than the blocks
        if f"{self.prefix}.embeddings_project.weight" in weights:
            base.embeddings_project = _linear(weights, f"{self.prefix}.embeddings_project")
        assert family.parts is not None
        blocks = [
            _block(weights, f"{self.prefix}.{family.blocks}.{number}", family.parts, self.config.layer_norm_eps)
            for number in range(self.config.num_hidden_layers)
        ]
        _put(base, family.blocks, nn.ModuleList(blocks))
        self.add_module(self.prefix, base)
        if headed:
            _HEADS[family.model_type](self, weights)
        self.dropout = nn.Identity()

    @property
    def base_model(self) -> nn.Module:
        """Embeddings and blocks."""
        return self.get_submodule(self.prefix)


class PlainHead(nn.Module):
    """Layers of a head by themselves, under the names that `Architecture.head` reads."""

    def __init__(self, family: Architecture, weights: Weights) -> None:
        super().__init__()
        self.base_model = nn.Module()  # BERT's pooler is there
        _HEADS[family.model_type](self, weights)
        self.dropout = nn.Identity()


class Embeddings(nn.Module):
    """LayerNorm(word + token type 0 + position), added in the order in which Transformers adds them."""

    def __init__(self, weights: Weights, name: str, eps: float) -> None:
        super().__init__()
        self.word_embeddings = _embedding(weights[f"{name}.word_embeddings.weight"])
        self.position_embeddings = _embedding(weights[f"{name}.position_embeddings.weight"])
        types = weights.get(f"{name}.token_type_embeddings.weight")
        self.token_type_embeddings = None if types is None else _embedding(types)
        self.LayerNorm = _norm(weights, f"{name}.LayerNorm", eps)

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """[B, T] of ids and positions -> [B, T, E]."""
        states = self.word_embeddings(input_ids)
        if self.token_type_embeddings is not None:
            states = states + self.token_type_embeddings(torch.zeros_like(input_ids))
        return cast(Tensor, self.LayerNorm(states + self.position_embeddings(position_ids)))


class ClassificationHead(nn.Module):
    """RoBERTa's and ELECTRA's head: out_proj(f(dense(first state)))."""

    def __init__(self, weights: Weights, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.dense, self.out_proj = _linear(weights, "classifier.dense"), _linear(weights, "classifier.out_proj")
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        """[N, 1, D] -> [N, outputs]."""
        return cast(Tensor, self.out_proj(self.activation(self.dense(features[:, 0]))))


class Pooler(nn.Module):
    """Pooler of BERT: tanh(dense(first state))."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.dense = _linear(weights, "bert.pooler.dense")

    def forward(self, states: Tensor) -> Tensor:
        """[N, 1, D] -> [N, D]."""
        return torch.tanh(self.dense(states[:, 0]))


def _distilbert_head(model: PlainModel | PlainHead, weights: Weights) -> None:
    model.pre_classifier, model.classifier = _linear(weights, "pre_classifier"), _linear(weights, "classifier")


def _bert_head(model: PlainModel | PlainHead, weights: Weights) -> None:
    model.base_model.pooler = Pooler(weights)
    model.classifier = _linear(weights, "classifier")


def _roberta_head(model: PlainModel | PlainHead, weights: Weights) -> None:
    model.classifier = ClassificationHead(weights, torch.tanh)


def _electra_head(model: PlainModel | PlainHead, weights: Weights) -> None:
    model.classifier = ClassificationHead(weights, functional.gelu)


_HEADS: dict[str, Callable[[PlainModel | PlainHead, Weights], None]] = {
    "distilbert": _distilbert_head,
    "bert": _bert_head,
    "roberta": _roberta_head,
    "electra": _electra_head,
}


def plain_run(encoder: Encoder, task: Task, folder: Path, saved: Saved, attention: str) -> PlainModel | None:
    """Build the model of a run's artifact around the weights of `encoder`; None: not of this kind."""
    family = encoder.architecture
    if not _is_plain(encoder.config, family, task.transformers_class, attention):
        return None
    weights = _encoder_weights(encoder)
    saved_weights = SAVED_FORMS[saved].read(weights, folder, family)
    if saved_weights is None:
        return None
    changed, trained = saved_weights
    model = _build(encoder.config, family, {**weights, **changed})
    if model is None or not set(changed) <= set(dict(model.named_parameters())):
        return None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return model


def plain_encoder(encoder: Encoder, attention: str) -> PlainModel | None:
    """Build an encoder without a head, its weights in fp32, mapped where they can be; None: not of this kind."""
    family = encoder.architecture
    if not _is_plain(encoder.config, family, HEADED, attention):
        return None
    return _build(encoder.config, family, _encoder_weights(encoder), headed=False)


def plain_folder(
    folder: Path, config: Mapping[str, Any], family: Architecture, task: Task, attention: str
) -> PlainModel | None:
    """Build the model of a whole Transformers classifier's folder; None: not of this kind."""
    if not _is_plain(config, family, task.transformers_class, attention):
        return None
    model = _build(config, family, _read_weights(folder))
    for name, parameter in model.named_parameters() if model else ():
        parameter.requires_grad_(in_head(name, family))
    return model


def _is_plain(config: Mapping[str, Any], family: Architecture, transformers_class: str, attention: str) -> bool:
    return (
        family.model_type in _HEADS and family.parts is not None and attention == "packed"
        and activation_name(config) == "gelu" and transformers_class == HEADED and not config.get("is_decoder")
    )  # fmt: skip


def _build(config: Mapping[str, Any], family: Architecture, weights: Weights, headed: bool = True) -> PlainModel | None:
    try:
        model = PlainModel(config, family, weights, headed)
    except (KeyError, EncoderError):  # a weight or a setting is missing: Transformers tells what that means
        return None
    names = dict(model.named_parameters())
    unknown = [name for name in weights if name not in names and name.startswith(f"{model.prefix}.")]
    unused = ("position_ids", "token_type_ids", "pooler.dense.weight", "pooler.dense.bias")
    return None if any(not name.endswith(unused) for name in unknown) else model.eval()


def _settings(config: Mapping[str, Any]) -> SimpleNamespace:
    """Select the settings that `Network` and the blocks read, by the names of Transformers' classes."""
    roberta = config["model_type"] == "roberta"
    padding = config.get("pad_token_id", 1 if roberta else 0)
    return SimpleNamespace(
        model_type=config["model_type"],
        num_hidden_layers=block_count(config),
        num_attention_heads=head_count(config),
        hidden_size=state_width(config),
        max_position_embeddings=int(config["max_position_embeddings"]),
        layer_norm_eps=float(config.get("layer_norm_eps", 1e-12)) if config["model_type"] != "distilbert" else 1e-12,
        pad_token_id=padding,
        hidden_act="gelu",
        is_decoder=False,
        _attn_implementation=REGISTERED,
    )


def _encoder_weights(encoder: Encoder) -> Weights:
    """Load an encoder's weights by the names of the class with a head; those of any head in the file are left out."""
    prefix = encoder.architecture.model_type
    if encoder.name == EMBEDDED:
        return {f"{prefix}.{name}": tensor for name, tensor in load_weights(encoder).items()}
    weights = _read_weights(encoder.folder)
    if any(name.startswith(f"{prefix}.") for name in weights):
        return {name: tensor for name, tensor in weights.items() if name.startswith(f"{prefix}.")}
    return {f"{prefix}.{name}": tensor for name, tensor in weights.items()}


def _read_weights(folder: Path) -> Weights:
    """Read the tensors of a folder's safetensors, mapped from the files, in fp32."""
    weights: Weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            stem, _, last = name.rpartition(".")
            weights[f"{stem}.{_LEGACY.get(last, last)}"] = tensor.float() if tensor.is_floating_point() else tensor
    return weights


def _block(weights: Weights, name: str, parts: BlockParts, eps: float) -> nn.Module:
    block = nn.Module()
    for part in (parts.query, parts.key, parts.value, parts.out, parts.lin1, parts.lin2):
        _put(block, part, _linear(weights, f"{name}.{part}"))
    for part in (parts.norm1, parts.norm2):
        _put(block, part, _norm(weights, f"{name}.{part}", eps))
    return block


def _put(parent: nn.Module, path: str, module: nn.Module) -> None:
    *way, last = path.split(".")
    for name in way:
        if not hasattr(parent, name):
            parent.add_module(name, nn.Module())
        parent = parent.get_submodule(name)
    parent.add_module(last, module)


def _linear(weights: Weights, name: str) -> nn.Linear:
    weight = weights[f"{name}.weight"]
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # all layers of these families have a bias
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(weights[f"{name}.bias"], requires_grad=False)
    return layer


def _norm(weights: Weights, name: str, eps: float) -> nn.LayerNorm:
    weight = weights[f"{name}.weight"]
    norm = nn.LayerNorm(weight.shape, eps, device="meta")
    norm.weight = nn.Parameter(weight, requires_grad=False)
    norm.bias = nn.Parameter(weights[f"{name}.bias"], requires_grad=False)
    return norm


def _embedding(weight: Tensor) -> nn.Embedding:
    # from_pretrained draws no weights first, which would import PyTorch's compiler
    return cast(nn.Embedding, nn.Embedding.from_pretrained(weight))  # type: ignore[no-untyped-call]
