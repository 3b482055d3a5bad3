"""Token classification in one file, through every command: what a task needs is in its class, and no room knows it."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from distilora.data.examples import Example
from distilora.tasks.base import States, Task
from distilora.tasks.registry import register

LENGTH = 64  # tokens of a text


@register
class Tagging(Task):
    """A label for every word, from the state of its first token."""

    name, text_column = "tagging", "text"

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels, self.outputs, self.settings = tuple(labels), len(labels), {"labels": list(labels)}

    @classmethod
    def from_source(cls, config: Any, source: Any) -> Self:
        rows = source.records(config.train_split, "data.train_split")
        return cls(sorted({tag for row in rows for tag in row.values["tags"].split()}))

    def read(self, values: Any) -> Example:
        tags = values.get("tags")
        return Example((values["text"] or "",), tags and tuple(map(self.labels.index, tags.split())))

    def target_name(self, target: Any) -> Any:
        return target and " ".join(self.labels[tag] for tag in target)

    def targets(self, examples: Sequence[Example], tokenizer: Any) -> list[Any]:
        targets = np.full((len(examples), LENGTH), -100)
        for row, example, firsts in zip(targets, examples, self.firsts(examples, tokenizer), strict=True):
            row[firsts] = example.target[: len(firsts)]
        return list(targets)

    def firsts(self, examples: Sequence[Example], tokenizer: Any) -> list[list[int]]:
        """The first token of each word."""
        words = [encoding.word_ids for encoding in tokenizer.encode_batch([e.texts[0] for e in examples])]
        return [[i for i, w in enumerate(ids) if w is not None and w != ids[i - 1]] for ids in words]

    def head(self, states: States, rows: Any) -> Any:
        logits = states.head(states.tokens())
        padded = logits.new_zeros(rows.groups, LENGTH, self.outputs)
        padded[np.repeat(rows.group, rows.lengths), np.concatenate(list(map(np.arange, rows.lengths)))] = logits
        return padded

    def loss(self, outputs: Any, targets: Sequence[Any]) -> Any:
        import torch

        goal = torch.as_tensor(np.stack(targets), device=outputs.device)
        losses = torch.nn.functional.cross_entropy(outputs.float().transpose(1, 2), goal, reduction="none")
        return losses.sum(1) / (goal != -100).sum(1)

    def decode(self, outputs: Any, examples: Sequence[Example], tokenizer: Any) -> list[dict[str, Any]]:
        firsts = self.firsts(examples, tokenizer)
        best = [logits[first].argmax(1) for logits, first in zip(outputs, firsts, strict=True)]
        return [{"tags": " ".join(self.labels[i] for i in places)} for places in best]

    def metrics(self, outputs: Any, targets: Sequence[Any], resamples: int = 0) -> dict[str, Any]:
        goal = np.stack(targets)
        right = (outputs.argmax(2) == goal)[goal != -100]
        return {"word_accuracy": {"value": float(right.mean()), "low": None, "high": None}}


def write(path: Path, count: int, seed: int) -> str:
    from conftest import BAD, GOOD, PLAIN

    rng, tag = random.Random(seed), dict.fromkeys(PLAIN, "O") | dict.fromkeys(GOOD, "GOOD") | dict.fromkeys(BAD, "BAD")
    texts = [rng.choices(list(tag), k=rng.randint(4, 12)) for _ in range(count)]
    rows = ({"text": " ".join(words), "tags": " ".join(tag[word] for word in words)} for words in texts)
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_from_training_to_scoring(encoder: Path, tmp_path: Path) -> None:
    from conftest import tiny_config
    from stopping import write_recipe

    from distilora.cli.main import main

    run, test, file = str(tmp_path / "run"), write(tmp_path / "test.jsonl", 60, 2), ["--task-file", __file__]
    config = tiny_config(tmp_path / "run", Path(write(tmp_path / "train.jsonl", 240, 1)), encoder)
    assert main(["train", write_recipe(tmp_path / "r.yaml", config), "--task", "tagging", *file]) == 0
    assert main(["evaluate", run, "--data.path", test, *file]) == 0
    assert main(["export", run, "--to", "merged", "--output", f"{run}-merged", *file]) == 0
    assert main(["score", f"{run}-merged", test, "--output", f"{run}-out", "--format", "jsonl", *file]) == 0
    rows = map(json.loads, Path(f"{run}-out/shard-00000.jsonl").read_text().splitlines())
    pairs = [pair for row in rows for pair in zip(row["tags"].split(), row["predicted_tags"].split(), strict=True)]
    assert np.mean([tag == predicted for tag, predicted in pairs]) > 0.9
    assert "word accuracy" in (tmp_path / "run" / "report.html").read_text("utf-8")
