"""PyTorch settings that change the last bits of a result: read in one process, set in another.

A library user may have changed any of them before training; the fresh process of the round trip must compute under the same.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class _Setting(NamedTuple):
    get: Callable[[], Any]
    set: Callable[[Any], object]


def _attribute(owner: Any, name: str) -> _Setting:
    return _Setting(lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _set_deterministic(mode: str) -> None:
    torch.use_deterministic_algorithms(mode != "off", warn_only=mode == "warn")


def _deterministic() -> str:
    if not torch.are_deterministic_algorithms_enabled():
        return "off"
    return "warn" if torch.is_deterministic_algorithms_warn_only_enabled() else "on"


def _matmul_precision() -> str | list[str]:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set through PyTorch's newer names, one for each library
        return [library.matmul.fp32_precision for library in _libraries()]


def _set_matmul_precision(precisions: str | list[str]) -> None:
    if isinstance(precisions, str):
        torch.set_float32_matmul_precision(precisions)
        return
    for library, precision in zip(_libraries(), precisions, strict=True):
        library.matmul.fp32_precision = precision


def _libraries() -> tuple[Any, Any]:
    return torch.backends.mkldnn, torch.backends.cuda


_SETTINGS = {
    "threads": _Setting(torch.get_num_threads, torch.set_num_threads),
    "float32_matmul_precision": _Setting(_matmul_precision, _set_matmul_precision),
    "deterministic": _Setting(_deterministic, _set_deterministic),
    "mkldnn": _Setting(
        lambda: torch._C._get_mkldnn_enabled(), lambda on: torch._C._set_mkldnn_enabled(on)
    ),  # its attribute is frozen by PyTorch
    "cudnn_tf32": _attribute(torch.backends.cudnn, "allow_tf32"),
    "cudnn_deterministic": _attribute(torch.backends.cudnn, "deterministic"),
    "cudnn_benchmark": _attribute(torch.backends.cudnn, "benchmark"),
    "bf16_reduced_precision": _attribute(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"),
    "flash_attention": _Setting(torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    "memory_efficient_attention": _Setting(
        torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp
    ),
}


def settings() -> dict[str, Any]:
    """Read this process's settings by name, as JSON values."""
    return {name: setting.get() for name, setting in _SETTINGS.items()}


def compute_under(other: dict[str, Any]) -> None:
    """Set this process's settings to those of another process. Raises KeyError for a name unknown to `settings`."""
    for name, value in other.items():
        if _SETTINGS[name].get() != value:
            _SETTINGS[name].set(value)
