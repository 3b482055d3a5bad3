"""What this machine computes on, and in which precision; recorded with every run."""

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
# What NumPy, PyTorch, Arrow and tokenizers read when they start their threads; child processes inherit it.
_THREADS_OF = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def pick_device(wanted: Device = "auto") -> "torch.device":
    """The device to compute on. Raises ConfigError if the one asked for is not there."""
    import torch

    have = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = "cuda" if have["cuda"] else "mps" if have["mps"] else "cpu"
    if not have[wanted]:
        raise ConfigError(f"device: {wanted} is not available here; choose cpu")
    return torch.device(wanted)


def pick_precision(wanted: Precision, device: "torch.device") -> Precision:
    """'bf16' or 'fp32'; 'auto' is bf16 where the processor computes in it natively.

    Raises ConfigError if bf16 is asked for where it does not exist at all.
    """
    import torch

    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and bool(_BF16_FLAGS & set(cpu_flags()))
    if wanted == "auto":
        return "bf16" if native else "fp32"
    if wanted == "bf16" and device.type == "mps":
        raise ConfigError("precision: bf16 is not supported on mps; choose fp32")
    return wanted


def pick_token_budget(wanted: int | None, device: "torch.device") -> int:
    """Padded tokens per forward pass: 2,048 on a CPU, where a larger batch falls out of the caches, 32,768 on a GPU."""
    return wanted or (2048 if device.type == "cpu" else 32768)


def use_threads(count: int) -> None:
    """Has this process, and those it starts, compute on `count` threads: PyTorch, ONNX Runtime, NumPy and tokenizers.

    What reads the environment must not have started its threads yet; PyTorch, if loaded, is told. Raises ConfigError below 1.
    """
    global _threads
    if count < 1:
        raise ConfigError(f"threads: {count} given, at least 1 wanted")
    _threads = count
    os.environ.update(dict.fromkeys(_THREADS_OF, str(count)))
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)


@contextmanager
def threads_for(count: int | None) -> Iterator[None]:
    """`use_threads` for as long as the context lasts; None changes nothing."""
    global _threads
    if count is None:
        yield
        return
    import torch

    before = _threads, torch.get_num_threads(), {name: os.environ.get(name) for name in _THREADS_OF}
    use_threads(count)
    try:
        yield
    finally:
        _threads = before[0]
        torch.set_num_threads(before[1])
        for name, value in before[2].items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def threads(otherwise: int | None = None) -> int:
    """Threads to compute on: as many as `use_threads` was told, else `otherwise`, else one per core."""
    return _threads or otherwise or cores()


def keep_freed_memory() -> str | None:
    """Tells glibc to keep freed memory instead of handing it back; what it was told, or None without glibc.

    A step asks for and frees the same large tensors over and over. By default each of them is mapped anew and every page
    of it faulted in again: attention over 8 x 256 tokens took 47 ms so, and 5.5 ms without (LOG.md). This holds for the
    whole process from then on, the caller's own work included; glibc cannot be asked what it did before.
    """
    global _allocator
    if _allocator is None and sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            # an older glibc takes no threshold above half of a heap's greatest size, 32 MB
            mapped = libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30) or libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)
            done = mapped and libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        except (OSError, AttributeError):
            return None
        _allocator = "glibc, keeps freed memory" if done else None
    return _allocator


def allocator() -> str | None:
    """What `keep_freed_memory` told the allocator in this process; None if it was never called, or there is no glibc."""
    return _allocator


def cores() -> int:
    """Count the processor cores that this process may use: those it is bound to where the system tells (Linux), else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_flags() -> list[str]:
    """Instruction-set flags of the processor, where the system tells them (Linux); else empty."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.split(":")[0].strip() in ("flags", "Features"):
                return line.split(":", 1)[1].split()
    except OSError:
        pass
    return []


def flags() -> list[str]:
    """The processor's flags that matter to low precision."""
    have = set(cpu_flags())
    return [flag for flag in _LOW_PRECISION if flag in have]


def vnni() -> bool:
    """Whether the processor multiplies bytes natively; without, an int8 product may saturate."""
    return bool({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"} & set(flags()))


def cpu_name() -> str:
    """The processor's name, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name") and line.split(":", 1)[1].strip():
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_resident_mb() -> float:
    """Peak resident memory of this process so far, MB (10^6 bytes): pages of mapped files and of libraries included."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
