"""Scoring that goes on: what is done stays, what differs is named, one writer at a time."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import write_csv
from test_score import BAD_CSV, TEXTS, contents, run, shards

from distilora import score, score_shard
from distilora.artifact import sealed
from distilora.errors import ConfigError, OutputError
from distilora.score_shard import Scorer


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["the record", "the join", "the state", "the parts", "a row"])
def test_going_on_ends_as_without_a_stop(
    moment: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, whole, out = tmp_path / "in.csv", tmp_path / "whole", tmp_path / "out"
    source.write_bytes(BAD_CSV)
    run(finished, source, whole, shard_rows=3)

    def killed(*words: Any, **more: Any) -> Any:
        raise Killed

    def stopped_at(number: int, name: str) -> Any:
        called, calls = getattr(score_shard.Place, name), iter(range(1, 1000))
        return lambda *words: (killed if next(calls) == number else called)(*words)

    computed: list[int] = []
    row = Scorer.__call__

    def noted(self: Scorer, shard: Any, *more: Any) -> Any:
        computed.append(shard.number)
        return row(self, shard, *more)

    monkeypatch.setattr(Scorer, "__call__", noted)
    with monkeypatch.context() as patch:
        if moment == "the record":  # of the second shard, after its file
            patch.setattr(score_shard.Place, "write_json", stopped_at(3, "write_json"))
        elif moment == "the join":
            patch.setattr(score, "atomic_text", killed)
        elif moment == "the state":
            patch.setattr(score.Place, "write_json", stopped_at(6, "write_json"))
        elif moment == "the parts":
            patch.setattr(score, "_clear", killed)
        else:
            patch.setattr(Scorer, "_row", killed)
        with pytest.raises(Killed):
            run(finished, source, out, shard_rows=3)
    assert (out / "score.json").is_file()
    before = list(computed)
    run(finished, source, out, shard_rows=3)
    assert contents(out) == contents(whole)
    again = {"the record": [1, 2, 3], "a row": [0, 1, 2, 3]}.get(moment, [])  # nothing that was finished
    assert computed == before + again
    run(finished, source, out, shard_rows=3)
    assert computed == before + again
    assert contents(out) == contents(whole)


def test_a_shard_that_was_taken_away_is_computed_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_csv(tmp_path / "in.csv", [(text, "pos") for text in TEXTS]), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(score, "_finish", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(finished, source, out)
    (out / "shard-00001.parquet").write_bytes(b"cut short")
    assert run(finished, source, out)["resumed"] == 80
    assert [row["text"] for row in shards(out)] == TEXTS


def test_what_differs_is_named(finished: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    source = write_csv(folder / "a.csv", [(text, "pos") for text in TEXTS[:20]])
    run(finished, folder, out)
    before = contents(out)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"shard_rows": 7}, "--shard-rows 50, now 7"), ({"kind": "csv"}, "--format parquet, now csv"),
        ({"abstain_below": 0.9}, "--abstain-below 0.0, now 0.9"), ({"text_column": "text"}, "--text-column None, now text"),
    ]  # fmt: skip
    for change, message in refused:
        with pytest.raises(ConfigError, match=message):
            run(finished, folder, out, **change)
    other = tmp_path / "other"
    shutil.copytree(finished / "model", other)
    fields = json.loads((other / "artifact.json").read_text("utf-8"))
    (other / "artifact.json").write_text(json.dumps(sealed({**fields, "temperature": 2.0})), "utf-8")
    with pytest.raises(ConfigError, match="another model"):
        run(other, folder, out)
    more = write_csv(folder / "b.csv", [("fine", "pos")])
    with pytest.raises(ConfigError, match=r"b\.csv is new since"):
        run(finished, folder, out)
    more.unlink()
    source.write_bytes(source.read_bytes() + b"dull,neg\n")
    with pytest.raises(ConfigError, match=r"a\.csv has changed since"):
        run(finished, folder, out)
    assert contents(out) == before
    assert run(finished, folder, out, overwrite=True, shard_rows=30, kind="jsonl")["rows"] == 21
    assert [path.name for path in out.glob("shard-*")] == ["shard-00000.jsonl"]


def test_killed_while_overwriting_it_starts_anew(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_csv(tmp_path / "in.csv", [(text, "pos") for text in TEXTS]), tmp_path / "out"
    run(finished, source, out)
    with monkeypatch.context() as patch:
        patch.setattr(score, "_clear", lambda *_, **__: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(finished, source, out, overwrite=True)
    assert run(finished, source, out)["resumed"] == 0
    assert [row["text"] for row in shards(out)] == TEXTS


def test_one_writer_at_a_time_and_no_other_folder(finished: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    source, out = write_csv(tmp_path / "in.csv", [("fine", "pos")]), tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(OutputError, match="another process is writing"):
        run(finished, source, out)
    (out / "letter.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"holds letter\.txt"):
            run(finished, source, out, overwrite=overwrite)
    with pytest.raises(ConfigError, match="the same folder as the input"):
        run(finished, tmp_path, tmp_path)
