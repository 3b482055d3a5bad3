"""Killed at ten random moments, `distilora score` still puts out every row once, in order, in the very same bytes."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.scored import contents, shards
from support.stopping import temporary
from support.tiny import tiny_reviews

# When to kill each process: after so many more shards, and up to so many seconds.
KILLS = [(0, 0.3), (0, 1.0), (1, 0.3), (2, 0.3), (3, 0.3), (1, 0.3), (4, 0.3), (2, 0.3), (5, 0.3), (3, 0.3)]
ROWS = 24_000  # more than a fast machine scores between the kills
SHARD = 250
DRIVER = """
import json, os, signal, sys, time
import filelock, fsspec, pyarrow.parquet, safetensors.torch, tokenizers, torch, transformers  # once, for all forks
kills, words = json.loads(sys.argv[1]), sys.argv[2:]
parts = words[words.index("--output") + 1] + "/parts"

def finished():
    return sum(name.endswith(".json") and name[0] != "." for name in os.listdir(parts)) if os.path.isdir(parts) else 0

for more, seconds in [*kills, [None, 0]]:
    begun = finished()
    child = os.fork()
    if not child:
        from distilora.cli import main as cli
        os._exit(cli.main(words))
    if more is not None:
        until = time.monotonic() + 100
        while finished() < begun + more and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    print(json.dumps([os.waitpid(child, 0)[1], finished()]), flush=True)
"""


def write_input(path: Path) -> list[str]:
    """A jsonl file in which every eleventh row is bad; gives the good texts."""
    texts = [text for text, _ in tiny_reviews(ROWS, 4)]
    with open(path, "w", encoding="utf-8") as stream:
        for i, text in enumerate(texts):
            stream.write("{broken\n" if i % 11 == 0 else json.dumps({"id": i, "text": text}) + "\n")
    return [text for i, text in enumerate(texts) if i % 11]


@pytest.mark.slow
def test_killed_ten_times(finished: Path, tmp_path: Path) -> None:
    source, whole, out = tmp_path / "in.jsonl", tmp_path / "whole", tmp_path / "out"
    texts = write_input(source)
    words = [
        "--quiet",
        "score",
        str(finished),
        str(source),
        "--shard-rows",
        str(SHARD),
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]

    def run(kills: list[tuple[int, float]], output: Path) -> list[list[int]]:
        command = [sys.executable, "-c", DRIVER, json.dumps(kills), *words, "--output", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280)
        progress = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        assert progress[-1] == [0, 0], done.stderr
        return progress[:-1]

    run([], whole)
    rng = random.Random(7)
    met = run([(more, rng.uniform(0, seconds)) for more, seconds in KILLS], out)
    assert [code for code, _ in met] == [signal.SIGKILL] * 10
    there = [parts for _, parts in met]
    assert there == sorted(there)  # what was finished stays finished
    assert 20 < there[-1] < ROWS // SHARD
    assert [row["text"] for row in shards(out)] == texts
    assert len((out / "rejects.jsonl").read_text().splitlines()) == ROWS - len(texts)
    assert contents(out) == contents(whole)
    assert temporary(out) == []
