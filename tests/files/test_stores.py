"""Inputs of a folder: tables of every kind, but JSON only where there is nothing else."""

import gzip
from pathlib import Path

from support.tables import written

from distilora.data.sources import open_source
from distilora.files.stores import find_inputs


def test_json_in_a_folder(tmp_path: Path) -> None:
    written(tmp_path / "train.json", b'[{"text": "a"}]')
    written(tmp_path / "test.json.gz", gzip.compress(b'[{"text": "b"}]'))
    assert [Path(one.path).name for one in find_inputs(str(tmp_path))] == ["test.json.gz", "train.json"]
    assert open_source(str(tmp_path)).splits == ("test", "train")
    written(tmp_path / "train.csv.gz", gzip.compress(b"text\nc\n"))  # beside which they are notes
    assert [Path(one.path).name for one in find_inputs(str(tmp_path))] == ["train.csv.gz"]
    assert open_source(str(tmp_path)).splits == ("train",)
