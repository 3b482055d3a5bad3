"""A folder that `save_to_disk` of Hugging Face's `datasets` wrote: one dataset, or several called after their splits.

Its Arrow files are mapped, not read at once. The order is that of the dataset.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distilora.data.sources import Source
from distilora.errors import DataError, MissingExtra
from distilora.files.tables import Record

_SEVERAL, _ONE = "dataset_dict.json", ("state.json", "dataset_info.json")


def is_saved(folder: Path) -> bool:
    """Whether a folder is laid out so."""
    return (folder / _SEVERAL).is_file() or all((folder / name).is_file() for name in _ONE)


def saved_source(folder: Path, setting: str = "data.path") -> Source:
    """The source in such a folder; a single dataset is called as it was when it was a split, else train.

    Raises DataError naming `setting` if it is damaged, MissingExtra without datasets.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "train") from None
    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # Arrow, JSON and datasets have errors of their own for a damaged folder
        reason = " ".join(str(error).split())
        raise DataError(f"{setting}: {folder}: cannot be read ({reason}); save the dataset again") from None
    splits: dict[str, Any] = dict(found) if isinstance(found, dict) else {str(found.split or "train"): found}
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
