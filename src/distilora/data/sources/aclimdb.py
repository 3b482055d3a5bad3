"""Reads the original Large Movie Review Dataset (Maas et al., ACL 2011), unpacked or as its .tar.gz.

Reviews lie in {train,test}/{neg,pos}/ID_STARS.txt and train/unsup/ID_0.txt; star ratings are read from the names.
A split is ordered neg by ID, then pos by ID, in folder and archive alike. Line ID (from 0) of {train,test}/urls_LABEL.txt is
the address of the review's film, whose title, such as tt0064354, becomes the column `film` where all these files of a split are
there. The archive is read in place, never unpacked; one with a path that leaves its root is refused whole.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from distilora.data.sources import Source
from distilora.errors import DataError
from distilora.files.tables import Record

LABELS = ("neg", "pos")
SPLITS = {"train": ("train", LABELS), "test": ("test", LABELS), "unsupervised": ("train", ("unsup",))}
_MEMBER = re.compile(r"(?:^|/)(train|test)/(neg|pos|unsup)/(\d+)_(\d+)\.txt$")
_ADDRESSES = re.compile(r"(?:^|/)(train|test)/urls_(neg|pos|unsup)\.txt$")
_TITLE = re.compile(r"/title/(tt\d+)")


def is_aclimdb(folder: Path) -> bool:
    """Tell whether a folder has this layout."""
    return any((folder / split / label).is_dir() for split in ("train", "test") for label in LABELS)


def folder_source(folder: Path) -> Source:
    """Open an unpacked folder as a source."""
    splits = tuple(
        name for name, (part, labels) in SPLITS.items() if any((folder / part / label).is_dir() for label in labels)
    )

    def read(split: str) -> Iterator[Record]:
        part, labels = SPLITS[split]
        present = [label for label in labels if (folder / part / label).is_dir()]
        files = {label: folder / part / f"urls_{label}.txt" for label in present}
        complete = all(file.is_file() for file in files.values())
        titles = {label: _titles(str(file), file.read_bytes()) for label, file in files.items()} if complete else None
        for label in present:
            matches = [(path, _MEMBER.search(path.as_posix())) for path in (folder / part / label).glob("*.txt")]
            for path, match in sorted(((p, m) for p, m in matches if m), key=lambda pm: (int(pm[1][3]), pm[1][4])):
                yield _record(str(path), match, path.read_bytes(), titles)

    return Source(str(folder), splits, read, {"label": LABELS})


def tar_source(path: Path) -> Source:
    """Open an archive as a source. Raises DataError if it is broken, unsafe or of another layout."""
    splits: set[str] = set()
    for match, _ in _members(path, None, _MEMBER):
        splits.update(name for name, (part, labels) in SPLITS.items() if match[1] == part and match[2] in labels)
    if not splits:
        raise DataError(f"{path}: no train/pos/ID_STARS.txt inside; give the original aclImdb archive")

    def read(split: str) -> Iterator[Record]:
        texts, titles = {}, {}
        for match, raw in _members(path, split, _MEMBER, _ADDRESSES):
            if match.re is _MEMBER:
                texts[match[2], int(match[3]), match[4]] = (match, raw)
            else:
                titles[match[2]] = _titles(f"{path}: {match[0].lstrip('/')}", raw)
        complete = {label for label, *_ in texts} <= titles.keys()
        for key in sorted(texts):
            match, raw = texts[key]
            yield _record(f"{path}: {match[0].lstrip('/')}", match, raw, titles if complete else None)

    return Source(str(path), tuple(s for s in SPLITS if s in splits), read, {"label": LABELS})


def _members(path: Path, split: str | None, *names: re.Pattern[str]) -> Iterator[tuple[re.Match[str], bytes]]:
    """Yield the members of `split` called by one of `names`, with their bytes; if it is None, of all splits, without bytes."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
                    raise DataError(
                        f"{path}: {member.name!r} leaves the archive's root or is a link; do not trust this file"
                    )
                match = next((match for name in names if (match := name.search(member.name))), None)
                if match is None or not member.isfile():
                    continue
                if split is None:
                    yield match, b""
                elif match[1] == SPLITS[split][0] and match[2] in SPLITS[split][1]:
                    stream = archive.extractfile(member)
                    assert stream is not None  # a regular file has one
                    yield match, stream.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: broken archive ({error}); download it again") from None


def _titles(place: str, raw: bytes) -> list[str]:
    """Read the title of each line of a file of addresses. Raises DataError for a line without one."""
    titles = []
    for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
        match = _TITLE.search(line)
        if match is None:
            raise DataError(f"{place}: line {number}: no address of a film; download the archive again")
        titles.append(match[1])
    return titles


def _record(place: str, match: re.Match[str], raw: bytes, titles: Mapping[str, list[str]] | None) -> Record:
    """Make a review's record; `titles` are, by label, those of the films, in the order of the reviews' IDs."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: byte {error.start + 1} is not UTF-8; download the archive again") from None
    label = LABELS.index(match[2]) if match[2] in LABELS else -1
    number = int(match[3])
    values = {"text": text, "label": label, "rating": int(match[4]), "id": number}
    if titles is not None:
        if number >= len(titles[match[2]]):
            raise DataError(
                f"{place}: urls_{match[2]}.txt has no line {number + 1}, the film of this review; download the archive "
                "again, or delete the urls files to go without the column film"
            )
        values["film"] = titles[match[2]][number]
    return Record(place, values)
