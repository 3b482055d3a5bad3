"""Assembles the network that is trained, and the same network again from an artifact.

The Transformers class for the task is built around the encoder's weights; the method (`model/adapters/methods.py`) injects the
trainable weights. In bf16 the frozen weights are stored in bf16; trainable weights, and those that an update is added to, stay
in fp32, so that no update is lost to rounding. On a CPU weights that are used as the file has them stay mapped from it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError

from distilora.config.schema import AdapterConfig
from distilora.errors import ArtifactError, ConfigError, EncoderError
from distilora.model.adapters.methods import ARITHMETICS, METHODS
from distilora.model.adapters.quantisation import check_device, dequantise, import_offline, quantise
from distilora.model.adapters.saved import SAVED_FORMS, Saved
from distilora.model.encoders.families import Architecture, architecture, in_head
from distilora.model.encoders.find import EMBEDDED, Encoder, load_weights
from distilora.model.network import Network
from distilora.model.packed.attention import REGISTERED, register
from distilora.model.plain import plain_folder, plain_run
from distilora.model.quiet import quiet_libraries
from distilora.model.seeds import seeded
from distilora.model.writer import network_of
from distilora.tasks.base import Task

BaseForm = Literal["full", "4bit", "widened"]  # as loaded, in 4 bits, or the 4-bit values in fp32

ALIGNMENT = 64  # bytes, of what PyTorch allocates; weights that are mapped from a file lie anywhere


def new_network(
    encoder: Encoder,
    task: Task,
    adapter: AdapterConfig,
    *,
    precision: str,
    device: torch.device,
    attention: str = "packed",
    dropout: float | None = None,
    seed: int = 0,
    base: BaseForm | None = None,
) -> Network:
    """Build a network to train: pretrained encoder, the method's adapters (B = 0) and a fresh head, both drawn from `seed`.

    `dropout` None keeps the encoder's own; `base` None takes the method's. Raises ConfigError if the adapter does not fit the
    encoder, MissingExtra if the method needs a package that is not installed.
    """
    family, method = encoder.architecture, METHODS[adapter.method]
    blocks = encoder.blocks
    if adapter.last_blocks is not None and adapter.last_blocks > blocks:
        raise ConfigError(f"adapter.last_blocks: {adapter.last_blocks} given, but the encoder has {blocks}; give fewer")
    import_offline()
    with quiet_libraries(), seeded(seed, device):
        model = _transformers_model(encoder, task, attention, dropout)
        _convert_base(model, encoder, base or ("4bit" if method.quantised else "full"), precision, device)
        outer = method.inject(model, family, adapter, blocks)
        for settings in getattr(outer, "peft_config", {}).values():
            settings.base_model_name_or_path, settings.revision = encoder.name, encoder.revision
    return _place(network_of(outer, family, task), precision, device)


def load_network(
    encoder: Encoder,
    task: Task,
    folder: Path,
    *,
    weights: Saved,
    precision: str,
    device: torch.device,
    attention: str = "packed",
    base: BaseForm = "full",
    plain: bool = False,
) -> Network:
    """Load the network of an artifact's folder, to predict with (dropout off); `trained()` are the weights that were loaded.

    `plain` takes PyTorch's modules alone where they compute the same (model/plain.py): quicker to load, updates already added
    in. Raises ArtifactError if the weights are damaged or do not fit this encoder.
    """
    if plain and base == "full" and device.type == "cpu":
        with loading_weights(folder):
            bare = plain_run(encoder, task, folder, weights, attention)
        if bare is not None:
            return _place(network_of(bare, encoder.architecture, task), precision, device).eval()
    import_offline()
    with quiet_libraries():
        model = _transformers_model(encoder, task, attention, None)
        _convert_base(model, encoder, base, precision, device)
        with loading_weights(folder):
            outer = SAVED_FORMS[weights].load(model, folder)
    return _place(network_of(outer, encoder.architecture, task), precision, device).eval()


@contextmanager
def loading_weights(folder: Path) -> Iterator[None]:
    """Turn what loading raises into an ArtifactError."""
    try:
        yield
    except (ValueError, RuntimeError, OSError, KeyError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: weights cannot be loaded ({' '.join(str(error).split())})") from None


def load_merged(
    folder: Path, task: Task, *, precision: str, device: torch.device, attention: str = "packed", plain: bool = False
) -> Network:
    """Load the network of a merged model, a Transformers folder that needs no encoder beside it; `plain` as above.

    Raises ArtifactError if it cannot be loaded.
    """
    if plain and device.type == "cpu":
        with loading_weights(folder):
            settings = json.loads((folder / "config.json").read_text("utf-8"))
            family = architecture(settings["model_type"])
            bare = plain_folder(folder, settings, family, task, attention)
        if bare is not None:
            return _place(network_of(bare, family, task), precision, device).eval()
    import transformers

    with quiet_libraries():
        try:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            family = architecture(config.model_type)
            model = getattr(transformers, task.transformers_class).from_pretrained(
                folder, attn_implementation=_own_kernel(attention, family), dtype=torch.float32, use_safetensors=True,
                trust_remote_code=False,
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ArtifactError(f"{folder}: cannot be loaded ({' '.join(str(error).split())})") from None
    _pack(model, attention, family)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(in_head(name, family))
    return _place(network_of(model, family, task), precision, device).eval()


def _convert_base(model: Any, encoder: Encoder, base: BaseForm, precision: str, device: torch.device) -> None:
    """Put the blocks' weights into the form asked for, in place."""
    if base == "full":
        return
    check_device(device)
    quantise(model, encoder.architecture, precision)
    if base == "widened":
        dequantise(model, encoder.architecture)


def _transformers_model(encoder: Encoder, task: Task, attention: str, dropout: float | None) -> Any:
    import transformers

    auto = getattr(transformers, task.transformers_class)
    labels = task.labels or tuple(f"OUTPUT_{i}" for i in range(task.outputs))
    names: dict[str, Any] = {} if encoder.architecture.decoder else {
        "id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}
    }  # fmt: skip
    kind = {} if task.problem_type is None else {"problem_type": task.problem_type}
    config = transformers.AutoConfig.for_model(**encoder.config | names | kind)
    if dropout is not None:
        for key, value in config.to_dict().items():  # those that config.json leaves to their defaults, too
            if "dropout" in key and isinstance(value, int | float):
                setattr(config, key, dropout)
    kernel = _own_kernel(attention, encoder.architecture)
    if encoder.name == EMBEDDED:  # its weights stay in the file, mapped, until something needs them otherwise
        concrete = getattr(transformers, task.transformers_class.replace("AutoModel", "DistilBert"))
        weights = {f"{concrete.base_model_prefix}.{name}": value for name, value in load_weights(encoder).items()}
        model = concrete.from_pretrained(
            None, config=config, state_dict=weights, attn_implementation=kernel, dtype=torch.float32
        )
        return _pack(model, attention, encoder.architecture)
    try:
        model = auto.from_pretrained(
            str(encoder.folder), config=config, attn_implementation=kernel, dtype=torch.float32, use_safetensors=True,
            trust_remote_code=False,
        )  # fmt: skip
        return _pack(model, attention, encoder.architecture)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise EncoderError(f"encoder.name: {encoder.name} cannot be loaded ({' '.join(str(error).split())})") from None


def _own_kernel(attention: str, family: Architecture) -> str:
    """Name the Transformers kernel that a model is loaded with."""
    return attention if family.attention_registry and attention != "packed" else "eager"


def _pack(model: Any, attention: str, family: Architecture) -> Any:
    if attention == "packed" and family.attention_registry:
        register()
        model.set_attn_implementation(REGISTERED)
    return model


def _place(network: Network, precision: str, device: torch.device) -> Network:
    for name, parameter in network.named_parameters():
        # a product with one column is summed in an order that depends on where the weights lie (LOG.md: Bits of a head)
        if in_head(name, network.architecture) and parameter.data_ptr() % ALIGNMENT:
            parameter.data = parameter.data.clone()
    if precision == "bf16":
        in_fp32: set[torch.nn.Parameter] = set()
        if network.packed and device.type == "cpu":
            in_fp32 = _adapted(network) | _embeddings(network)
        for parameter in network.parameters():
            if not parameter.requires_grad and parameter.is_floating_point() and parameter not in in_fp32:
                parameter.data = parameter.data.to(torch.bfloat16)
        for module in network.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                # PEFT would widen each input to fp32 for autocast to narrow again
                cast(Any, module).cast_input_dtype_enabled = False
    return network.to(device)


def _adapted(network: Network) -> set[torch.nn.Parameter]:
    """Collect the weights that updates are added to; they stay in fp32, in which the sum is formed before it is rounded."""
    weights = (row.adapted(module) for row in ARITHMETICS for module in network.modules())
    return {weight for weight in weights if weight is not None}


def _embeddings(network: Network) -> set[torch.nn.Parameter]:
    """Collect the frozen embeddings; few of their rows are read, so they stay mapped from the file.

    Their sum is rounded where it enters the blocks.
    """
    module = network.model.base_model.get_submodule(network.architecture.embeddings)
    if any(parameter.requires_grad for parameter in module.parameters()):
        return set()
    module.register_forward_hook(lambda module, arguments, states: states.to(torch.bfloat16))
    return set(module.parameters())
