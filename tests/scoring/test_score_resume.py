"""Scoring that goes on: what is done stays, what differs is named, one writer at a time."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.scored import BAD_CSV, TEXTS, contents, run, shards
from support.tiny import write_csv

from distilora import hardware
from distilora.artifact.format import sealed
from distilora.errors import ConfigError, OutputError
from distilora.scoring import score
from distilora.scoring import scorer as score_shard
from distilora.scoring.scorer import Scorer


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
            patch.setattr(score, "clear", killed)
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
        ({"shard_rows": 7}, "begun with --shard-rows 50, now with --shard-rows 7"),
        ({"kind": "csv"}, "begun with --format parquet, now with --format csv"),
        ({"abstain_below": 0.9}, "begun with --abstain-below 0.0, now with --abstain-below 0.9"),
        ({"abstain_error": 0.2}, "begun without --abstain-error, now with --abstain-error 0.2"),
        ({"text_column": "text"}, "begun without --text-column, now with --text-column text"),
    ]
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


def stopped(finished: Path, source: Path, out: Path, patch: pytest.MonkeyPatch, **changes: Any) -> dict[str, Any]:
    """Scores until one shard is there; gives score.json."""
    with patch.context() as killing:
        keep, calls = score_shard.Place.keep, iter(range(1, 100))

        def killed(self: Any, path: Path) -> None:
            if next(calls) == 2:
                raise Killed
            keep(self, path)

        killing.setattr(score_shard.Place, "keep", killed)
        with pytest.raises(Killed):
            run(finished, source, out, **changes)
    assert [path.name for path in sorted((out / "parts").iterdir())] == ["00000.json"]
    state: dict[str, Any] = json.loads((out / "score.json").read_text())
    return state


@pytest.mark.parametrize(("first", "then", "precision"), [([], ["avx512_bf16"], "fp32"), (["avx512_bf16"], [], "bf16")])
def test_on_another_processor_it_computes_as_it_began(
    first: list[str], then: list[str], precision: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_csv(tmp_path / "in.csv", [(text, "pos") for text in TEXTS]), tmp_path / "out"
    run(finished, source, tmp_path / "whole", precision=precision)
    monkeypatch.setattr(hardware, "cpu_flags", lambda: first)
    state = stopped(finished, source, out, monkeypatch, precision="auto", device="auto")
    assert state["numerics"] == {"backend": "torch", "precision": precision, "device": "cpu", "base": "auto"}
    monkeypatch.setattr(hardware, "cpu_flags", lambda: then)
    other = {"fp32": "bf16", "bf16": "fp32"}[precision]
    with pytest.raises(ConfigError, match=f"begun with --precision {precision}, now {other}"):
        run(finished, source, out, precision=other)
    assert run(finished, source, out, precision="auto", device="auto")["resumed"] == 50
    assert contents(out) == contents(tmp_path / "whole")


def test_what_this_machine_cannot_compute_with_is_refused(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_csv(tmp_path / "in.csv", [(text, "pos") for text in TEXTS]), tmp_path / "out"
    state = stopped(finished, source, out, monkeypatch)
    state["numerics"]["device"] = "cuda"  # as if begun elsewhere
    (out / "score.json").write_text(json.dumps(state))
    before = contents(out)
    with pytest.raises(ConfigError, match="was begun with --device cuda --precision fp32, not available here") as error:
        run(finished, source, out, device="auto")
    assert "\n" not in str(error.value)
    state["numerics"] |= {"device": "cpu", "precision": "int8"}
    (out / "score.json").write_text(json.dumps(state))
    predictor = SimpleNamespace(backend=SimpleNamespace(precision="fp32"))  # one that fell back
    monkeypatch.setattr(score, "load", lambda *_, **__: predictor)
    with pytest.raises(ConfigError, match="int8 is not available on this machine, where the model computes in fp32"):
        run(finished, source, out, precision="auto")
    assert set(contents(out)) == set(before)


def test_a_job_of_an_older_release_is_refused(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_csv(tmp_path / "in.csv", [(text, "pos") for text in TEXTS]), tmp_path / "out"
    state = stopped(finished, source, out, monkeypatch)
    del state["schema"], state["numerics"]
    (out / "score.json").write_text(json.dumps({**state, "settings": {**state["settings"], "precision": "auto"}}))
    with pytest.raises(ConfigError, match="was begun with another release of distilora; finish it with that"):
        run(finished, source, out)
    assert run(finished, source, out, overwrite=True)["resumed"] == 0


def test_what_a_power_cut_left_empty_is_computed_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_csv(tmp_path / "in.csv", [(text, "pos") for text in TEXTS]), tmp_path / "out"
    stopped(finished, source, out, monkeypatch)
    (out / "parts/00000.json").write_bytes(b"")
    assert run(finished, source, out)["resumed"] == 0
    assert [row["text"] for row in shards(out)] == TEXTS


def test_nothing_of_others_is_removed(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_csv(tmp_path / "in.csv", [(text, "pos") for text in TEXTS]), tmp_path / "out"
    for name in (".notes.tmp", ".shard-00000.parquet.1.tmp/mine", "score.json"):
        path = tmp_path / "others" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"score": 0.9}')
        before = contents(tmp_path / "others")
        for overwrite in (False, True):
            with pytest.raises(ConfigError, match="which scoring did not write"):
                run(finished, source, tmp_path / "others", overwrite=overwrite)
            assert contents(tmp_path / "others") == before
    stopped(finished, source, out, monkeypatch)
    foreign = {"parts/notes.txt", ".notes.tmp", "shard-of-mine.txt", ".shard-00001.parquet.7.tmp/mine"}
    for name in foreign:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    (out / ".shard-00001.parquet.8.tmp").write_text("left by a killed process")
    run(finished, source, out)
    expected = {"rejects.jsonl", "score.json", *(f"shard-0000{i}.parquet" for i in range(3))}
    assert set(contents(out)) == foreign | expected
    assert run(finished, source, out, overwrite=True, shard_rows=200)["shards"] == 1
    assert set(contents(out)) == foreign | (expected - {"shard-00001.parquet", "shard-00002.parquet"})


def test_killed_while_overwriting_it_starts_anew(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_csv(tmp_path / "in.csv", [(text, "pos") for text in TEXTS]), tmp_path / "out"
    run(finished, source, out)
    with monkeypatch.context() as patch:
        patch.setattr(score, "clear", lambda *_, **__: (_ for _ in ()).throw(Killed))
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
