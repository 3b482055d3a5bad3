"""Holds the table of encoder families: where the parts of each are, and what LoRA adapts.

A family is known by `model_type` in its config.json. `blocks` is the dotted path of the list of blocks inside the
base model, and its last name is the pattern PEFT finds layer numbers by. `head_layers` are all layers between the
encoder's states and the outputs: trained and saved with the adapter, whole. `head` applies them to vectors [N, D].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from distilora.errors import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

Targets = Literal["all", "attention", "query_value"]


@dataclass(frozen=True)
class BlockParts:
    """Names of a post-norm block's layers: h = norm1(x + out(attention)), y = norm2(h + lin2(gelu(lin1 h)))."""

    query: str
    key: str
    value: str
    out: str
    norm1: str
    lin1: str
    lin2: str
    norm2: str


@dataclass(frozen=True)
class Architecture:
    """Row of the table: one family of encoders."""

    model_type: str
    embeddings: str
    blocks: str
    head_layers: tuple[str, ...]
    head: Callable[[Any, "Tensor"], "Tensor"]
    query_value: tuple[str, ...]
    attention: tuple[str, ...]
    feed_forward: tuple[str, ...]
    attention_registry: bool = True  # honours Transformers' attention registry; otherwise it stays padded
    reserved_positions: int = 0  # positions that max_position_embeddings counts but no token may take
    parts: BlockParts | None = None  # of a post-norm block; None: not of this kind, computed by Transformers
    decoder: str = ""  # blocks of its decoder, for families that write text; they have no head

    def targets(self, layers: Targets | tuple[str, ...]) -> list[str]:
        """List the names of the linear layers that LoRA adapts."""
        if isinstance(layers, tuple):
            return list(layers)
        groups = {"query_value": self.query_value, "attention": self.attention}
        return list(groups.get(layers, self.attention + self.feed_forward))


def _distilbert(model: Any, vectors: "Tensor") -> "Tensor":
    import torch

    hidden = torch.nn.functional.relu(model.pre_classifier(vectors))
    return model.classifier(model.dropout(hidden))  # type: ignore[no-any-return]


def _bert(model: Any, vectors: "Tensor") -> "Tensor":
    pooled = model.base_model.pooler(vectors[:, None])  # the pooler takes the first of a row's states
    return model.classifier(model.dropout(pooled))  # type: ignore[no-any-return]


def _deberta(model: Any, vectors: "Tensor") -> "Tensor":
    return model.classifier(model.dropout(model.pooler(vectors[:, None])))  # type: ignore[no-any-return]


def _modernbert(model: Any, vectors: "Tensor") -> "Tensor":
    return model.classifier(model.drop(model.head(vectors)))  # type: ignore[no-any-return]


def _classifier_of_first(model: Any, vectors: "Tensor") -> "Tensor":
    return model.classifier(vectors[:, None])  # type: ignore[no-any-return]


def _no_head(model: Any, vectors: "Tensor") -> "Tensor":
    raise NotImplementedError("a family that writes text has no head")


_DISTILBERT_PARTS = BlockParts(
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm", "ffn.lin1", "ffn.lin2",
    "output_layer_norm",
)  # fmt: skip
_BERT_PARTS = BlockParts(
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
_BERT_ATTENTION = ("query", "key", "value", "attention.output.dense")
_BERT_FEED_FORWARD = ("intermediate.dense", "output.dense")

ARCHITECTURES = {
    row.model_type: row
    for row in (
        Architecture(
            "distilbert", "embeddings", "transformer.layer", ("pre_classifier", "classifier"), _distilbert,
            ("q_lin", "v_lin"), ("q_lin", "k_lin", "v_lin", "out_lin"), ("lin1", "lin2"), parts=_DISTILBERT_PARTS,
        ),
        Architecture(
            "bert", "embeddings", "encoder.layer", ("pooler", "classifier"), _bert,
            ("query", "value"), _BERT_ATTENTION, _BERT_FEED_FORWARD, parts=_BERT_PARTS,
        ),
        Architecture(
            "roberta", "embeddings", "encoder.layer", ("classifier",), _classifier_of_first,
            ("query", "value"), _BERT_ATTENTION, _BERT_FEED_FORWARD, reserved_positions=2,
            parts=_BERT_PARTS,
        ),
        Architecture(
            "electra", "embeddings", "encoder.layer", ("classifier",), _classifier_of_first,
            ("query", "value"), _BERT_ATTENTION, _BERT_FEED_FORWARD, parts=_BERT_PARTS,
        ),
        Architecture(
            "modernbert", "embeddings", "layers", ("head", "classifier"), _modernbert,
            ("attn.Wqkv",), ("attn.Wqkv", "attn.Wo"), ("mlp.Wi", "mlp.Wo"),
        ),
        Architecture(
            "deberta-v2", "embeddings", "encoder.layer", ("pooler", "classifier"), _deberta,
            ("query_proj", "value_proj"), ("query_proj", "key_proj", "value_proj", "attention.output.dense"),
            _BERT_FEED_FORWARD, attention_registry=False,
        ),
        Architecture(
            "mpnet", "embeddings", "encoder.layer", ("classifier",), _classifier_of_first,
            ("attn.q", "attn.v"), ("attn.q", "attn.k", "attn.v", "attn.o"), _BERT_FEED_FORWARD,
            attention_registry=False, reserved_positions=2,
        ),
    )
}  # fmt: skip


_T5 = Architecture(
    "t5", "shared", "encoder.block", (), _no_head, ("q", "v"), ("q", "k", "v", "o"), ("wi", "wi_0", "wi_1", "wo"),
    attention_registry=False, decoder="decoder.block",
)  # fmt: skip
_BART = Architecture(
    "bart", "shared", "encoder.layers", (), _no_head, ("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("fc1", "fc2"), attention_registry=False, decoder="decoder.layers",
)  # fmt: skip
WRITERS = {row.model_type: row for row in (_T5, _BART)}


def architecture(model_type: str) -> Architecture:
    """Look up a family. Raises EncoderError if neither table has one of this name."""
    families = ARCHITECTURES | WRITERS
    if model_type not in families:
        raise EncoderError(f"encoder.name: family {model_type!r} is not supported; supported are {', '.join(families)}")
    return families[model_type]


def in_head(name: str, family: Architecture) -> bool:
    """Tell whether a parameter, by its dotted name, belongs to a head layer."""
    parts = name.split(".")
    return any(layer in parts for layer in family.head_layers) and family.blocks.split(".")[-1] not in parts


def block_count(config: Any) -> int:
    """Read the number of blocks of an encoder's configuration, a mapping or a Transformers object.

    Raises EncoderError if it does not say, as do the functions below.
    """
    return int(_setting(config, "n_layers", "num_hidden_layers", "num_layers", "encoder_layers"))


def head_count(config: Any) -> int:
    """Read the number of attention heads of a block."""
    return int(_setting(config, "n_heads", "num_attention_heads", "num_heads", "encoder_attention_heads"))


def state_width(config: Any) -> int:
    """Read the width D of the states between blocks."""
    return int(_setting(config, "dim", "hidden_size", "d_model"))


def most_positions(config: Any) -> int:
    """Read the number of positions that a text may take; of T5, whose positions are relative, that of its pretraining."""
    return int(_setting(config, "max_position_embeddings", "n_positions", default="512"))


def activation_name(config: Any) -> str:
    """Read the name of the blocks' activation; 'gelu', the default of all families, where the configuration has none."""
    return str(_setting(config, "activation", "hidden_act", default="gelu"))


def _setting(config: Any, *names: str, default: str | None = None) -> Any:
    """Read a setting by the first of its names in the families that is there: DistilBERT's, the usual one, others."""
    values = (config.get(name) if isinstance(config, Mapping) else getattr(config, name, None) for name in names)
    value = next((value for value in values if value), default)
    if value is None:
        raise EncoderError(f"encoder.name: its config.json has no {names[1]}; give a folder as Transformers writes it")
    return value
