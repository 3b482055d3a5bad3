"""Chooses device, precision and threads, and describes the machine for the record of every run."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distilora.errors import ConfigError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "bf16", "fp32"]
InferencePrecision = Literal["auto", "bf16", "fp32", "int8"]
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86 with AVX-512 or AMX, Arm
_LOW_PRECISION = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_allocator: str | None = None
_threads: int | None = None
# NumPy, PyTorch, Arrow and tokenizers read these when they start their threads; child processes inherit them.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def pick_device(device: Device = "auto") -> "torch.device":
    """Choose the device to compute on. Raises ConfigError if the one asked for is not available."""
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = "cuda" if available["cuda"] else "mps" if available["mps"] else "cpu"
    if not available[device]:
        raise ConfigError(f"device: {device} is not available here; choose cpu")
    return torch.device(device)


def pick_precision(precision: Precision, device: "torch.device") -> Precision:
    """Choose 'bf16' or 'fp32'; 'auto' is bf16 where the processor computes in it natively.

    Raises ConfigError if bf16 is asked for where it is not supported at all.
    """
    import torch

    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and native_bf16()
    if precision == "auto":
        return "bf16" if native else "fp32"
    if precision == "bf16" and device.type == "mps":
        raise ConfigError("precision: bf16 is not supported on mps; choose fp32")
    return precision


def pick_token_budget(budget: int | None, device: "torch.device") -> int:
    """Choose the padded tokens per forward pass: 2,048 on a CPU, whose caches hold no larger batch, 32,768 on a GPU."""
    return budget or (2048 if device.type == "cpu" else 32768)


def use_threads(count: int) -> None:
    """Set the threads that this process and its children compute on: PyTorch, ONNX Runtime, NumPy and tokenizers.

    Libraries that read the environment must not have started their threads yet; PyTorch, if loaded, is set directly. Raises
    ConfigError below 1.
    """
    global _threads
    if count < 1:
        raise ConfigError(f"threads: {count} given, at least 1 wanted")
    _threads = count
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(count)))
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)


@contextmanager
def threads_for(count: int | None) -> Iterator[None]:
    """Apply `use_threads` for the duration of the context; None changes nothing."""
    global _threads
    if count is None:
        yield
        return
    import torch

    count_before, torch_before = _threads, torch.get_num_threads()
    variables_before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    use_threads(count)
    try:
        yield
    finally:
        _threads = count_before
        torch.set_num_threads(torch_before)
        for name, value in variables_before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def threads(otherwise: int | None = None) -> int:
    """Return the number of threads to compute on: that of `use_threads`, else `otherwise`, else one per core."""
    return _threads or otherwise or cores()


def keep_freed_memory() -> str | None:
    """Tell glibc to keep freed memory instead of returning it to the system; return its new setting, or None without glibc.

    A step allocates and frees the same large tensors over and over. By default each of them is mapped anew and all its
    pages faulted in again: attention over 8 x 256 tokens took 47 ms that way, and 5.5 ms otherwise (LOG.md: The allocator).
    The setting holds for the rest of the process, the caller's own work included; glibc cannot be asked for the former one.
    """
    global _allocator
    if _allocator is None and sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            # an older glibc accepts no threshold above half of a heap's largest size, 32 MB
            mapped = libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30) or libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)
            done = mapped and libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        except (OSError, AttributeError):
            return None
        _allocator = "glibc, keeps freed memory" if done else None
    return _allocator


def allocator() -> str | None:
    """Return the allocator's setting by `keep_freed_memory`; None if that was never called, or there is no glibc."""
    return _allocator


def cores() -> int:
    """Count the processor cores that this process may use: those of its affinity mask (Linux), else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_flags() -> list[str]:
    """List the instruction-set flags of the processor, where the system tells them (Linux); else none."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.split(":")[0].strip() in ("flags", "Features"):
                return line.split(":", 1)[1].split()
    except OSError:
        pass
    return []


def flags() -> list[str]:
    """List the processor's flags that matter to low precision."""
    available = set(cpu_flags())
    return [flag for flag in _LOW_PRECISION if flag in available]


def native_bf16() -> bool:
    """Tell whether the processor multiplies bf16 natively."""
    return bool(_BF16_FLAGS & set(cpu_flags()))


def vnni() -> bool:
    """Tell whether the processor multiplies bytes natively; if not, an int8 product may saturate."""
    return bool({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"} & set(flags()))


def cpu_name() -> str:
    """Return the processor's name, or its architecture where the system does not tell the name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name") and line.split(":", 1)[1].strip():
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_resident_mb() -> float:
    """Return the peak resident memory of this process, MB (10^6 bytes), with pages of mapped files and libraries."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
