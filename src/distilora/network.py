"""Assembles the network that is trained, and the same network again from an artifact.

The Transformers class for the task is built around the encoder's weights; PEFT adds the low-rank updates to its blocks
and makes every head layer trainable. In bf16 the frozen weights are stored in bf16, what is trained stays in fp32
(autocast rounds it at each use), so that no update is lost to rounding.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError

from distilora.config import AdapterConfig
from distilora.encode import Network
from distilora.encoders import EMBEDDED, Encoder, load_weights
from distilora.errors import ArtifactError, ConfigError, EncoderError
from distilora.tasks import Task


def new_network(
    encoder: Encoder,
    task: Task,
    adapter: AdapterConfig,
    *,
    precision: str,
    device: torch.device,
    attention: str = "sdpa",
    dropout: float | None = None,
    seed: int = 0,
) -> Network:
    """A network to train: pretrained encoder, fresh adapter (B = 0) and fresh head, drawn from `seed`.

    `dropout` None keeps the encoder's own. Raises ConfigError if the adapter does not fit the encoder.
    """
    from peft import LoraConfig, get_peft_model

    family = encoder.architecture
    blocks = _count_blocks(encoder)
    if adapter.last_blocks is not None and adapter.last_blocks > blocks:
        raise ConfigError(f"adapter.last_blocks: {adapter.last_blocks} given, but the encoder has {blocks}; give fewer")
    with _hushed():
        torch.manual_seed(seed)
        model = _transformers_model(encoder, task, attention, dropout)
        layers = None if adapter.last_blocks is None else list(range(blocks - adapter.last_blocks, blocks))
        settings = LoraConfig(
            task_type="SEQ_CLS" if task.transformers_class.endswith("SequenceClassification") else None,
            r=adapter.r,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            target_modules=family.targets(adapter.targets),
            layers_to_transform=layers,
            layers_pattern=family.blocks.rsplit(".", 1)[-1] if layers is not None else None,
            modules_to_save=list(family.head_layers),
            base_model_name_or_path=encoder.name,
            revision=encoder.revision,
        )
        try:
            peft_model = get_peft_model(model, settings, autocast_adapter_dtype=False)
        except ValueError as error:
            raise ConfigError(f"adapter.targets: {' '.join(str(error).split())}") from None
    return _place(Network(peft_model, family, task), precision, device)


def load_network(
    encoder: Encoder,
    task: Task,
    adapter_folder: Path,
    *,
    precision: str,
    device: torch.device,
    attention: str = "sdpa",
) -> Network:
    """The network of a saved adapter, to predict with (dropout off)."""
    from peft import PeftModel

    with _hushed():
        model = _transformers_model(encoder, task, attention, 0.0)
        try:
            peft_model = PeftModel.from_pretrained(model, adapter_folder, autocast_adapter_dtype=False)
        except (ValueError, RuntimeError, OSError, KeyError, SafetensorError) as error:
            raise ArtifactError(f"{adapter_folder}: cannot be loaded ({' '.join(str(error).split())})") from None
    return _place(Network(peft_model, encoder.architecture, task), precision, device).eval()


def save_adapter(network: Network, folder: Path) -> None:
    """Writes the adapter with every head layer, as PEFT does: adapter_config.json, adapter_model.safetensors."""
    with _hushed():
        network.peft.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty template; the run's own model card says it all


def _transformers_model(encoder: Encoder, task: Task, attention: str, dropout: float | None) -> Any:
    import transformers

    auto = getattr(transformers, task.transformers_class)
    labels = task.labels or tuple(f"OUTPUT_{i}" for i in range(task.outputs))
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    config = transformers.AutoConfig.for_model(**encoder.config | names)
    if dropout is not None:
        for key, value in config.to_dict().items():  # those that config.json leaves to their defaults, too
            if "dropout" in key and isinstance(value, int | float):
                setattr(config, key, dropout)
    if not encoder.architecture.attention_registry:
        attention = "eager"
    if encoder.name == EMBEDDED:
        config._attn_implementation = attention
        model = auto.from_config(config)
        model.base_model.load_state_dict(load_weights(encoder))
        return model
    try:
        return auto.from_pretrained(
            str(encoder.folder), config=config, attn_implementation=attention, dtype=torch.float32,
            use_safetensors=True, trust_remote_code=False,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise EncoderError(f"encoder.name: {encoder.name} cannot be loaded ({' '.join(str(error).split())})") from None


def _count_blocks(encoder: Encoder) -> int:
    return int(encoder.config.get("n_layers") or encoder.config["num_hidden_layers"])


def _place(network: Network, precision: str, device: torch.device) -> Network:
    if precision == "bf16":
        for name, parameter in network.named_parameters():
            # In a loaded network adapter and head are frozen too; they stay in fp32, as they were trained.
            if "lora_" not in name and "modules_to_save" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)
        for module in network.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                cast(
                    Any, module
                ).cast_input_dtype_enabled = False  # PEFT would widen each input to fp32 for autocast to narrow again
    return network.to(device)


@contextmanager
def _hushed() -> Iterator[None]:
    """Keeps Transformers' and PEFT's notices of expected things (fresh head, unmerged adapter) to themselves."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    peft_logger = logging.getLogger("peft")
    peft_before = peft_logger.level
    peft_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)
        peft_logger.setLevel(peft_before)
