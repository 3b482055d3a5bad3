"""Reads names, shapes and a checksum of the tensors in safetensors files, from their headers and without torch.

A file is the length of its header (8 bytes, little-endian), the header (JSON: name -> dtype, shape, data_offsets), and the data.
The checksum is independent of what may differ between copies of the same weights: metadata, order, sharding into several
files.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

CHUNK = 1 << 24


class _Tensor(NamedTuple):
    file: Path
    start: int  # in the file
    size: int  # bytes
    dtype: str
    shape: tuple[int, ...]


def tensor_shapes(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Read the shapes of all tensors of these files, by name. Raises ValueError or OSError if one is no safetensors file."""
    return {name: tensor.shape for name, tensor in _tensors(files).items()}


def tensors_sha256(files: Sequence[Path]) -> str:
    """Compute the SHA-256 of all tensors of these files, sorted by name: name, dtype, shape and bytes; 64 hex digits.

    Raises ValueError or OSError as `tensor_shapes` does.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(files).items()):
        digest.update(json.dumps([name, tensor.dtype, tensor.shape]).encode())
        with open(tensor.file, "rb") as stream:
            stream.seek(tensor.start)
            left = tensor.size
            while left:
                data = stream.read(min(left, CHUNK))
                if not data:
                    raise ValueError(f"{tensor.file}: cut short in {name}")
                digest.update(data)
                left -= len(data)
    return digest.hexdigest()


def _tensors(files: Sequence[Path]) -> dict[str, _Tensor]:
    tensors = {}
    for file in files:
        with open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= file.stat().st_size - 8:
                raise ValueError(f"{file}: no safetensors header")
            header = json.loads(stream.read(length))
        if not isinstance(header, Mapping):
            raise ValueError(f"{file}: no safetensors header")
        try:
            for name, entry in header.items():
                if name != "__metadata__":
                    start, end = entry["data_offsets"]
                    tensors[name] = _Tensor(
                        file, 8 + length + start, end - start, entry["dtype"], tuple(entry["shape"])
                    )
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{file}: damaged safetensors header") from None
    return tensors
