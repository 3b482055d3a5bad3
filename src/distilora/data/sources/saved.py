"""Reads a folder that `save_to_disk` of Hugging Face's `datasets` wrote: one dataset, or several named after their splits.

Its Arrow files are mapped into memory, not read at once. Records keep the dataset's order.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distilora.data.sources import Source
from distilora.errors import DataError, MissingExtra
from distilora.files.tables import Record

_DATASET_DICT, _DATASET = "dataset_dict.json", ("state.json", "dataset_info.json")


def is_saved(folder: Path) -> bool:
    """Tell whether a folder has this layout."""
    return (folder / _DATASET_DICT).is_file() or all((folder / name).is_file() for name in _DATASET)


def saved_source(folder: Path, setting: str = "data.path") -> Source:
    """Open such a folder as a source; a single dataset is named after the split it was saved from, else train.

    Raises DataError naming `setting` if it is damaged, MissingExtra without datasets.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "train") from None
    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # Arrow, JSON and datasets raise errors of their own for a damaged folder
        reason = " ".join(str(error).split())
        raise DataError(f"{setting}: {folder}: cannot be read ({reason}); save the dataset again") from None
    splits: dict[str, Any] = dict(saved) if isinstance(saved, dict) else {str(saved.split or "train"): saved}
    columns = next(iter(splits.values())).features if splits else {}
    names = {column: tuple(f.names) for column, f in columns.items() if isinstance(f, datasets.ClassLabel)}

    def read(split: str) -> Iterator[Record]:
        number = 0
        try:
            for number, values in enumerate(splits[split], 1):
                yield Record(f"{folder} {split}: row {number}", values)
        except (ValueError, OverflowError, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{folder} {split}: row {number + 1}: cannot be read ({reason}); correct it") from None

    return Source(str(folder), tuple(splits), read, names)
