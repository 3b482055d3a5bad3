"""The pages on extending are followed word for word on tiny encoders: their code is put where they say, their commands are run."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from support.fresh import COMMAND, Fresh, verify_here
from support.stopping import write_recipe
from support.tiny import BAD, GOOD, tiny_config, tiny_reviews, write_tiny_encoder

from distilora.cli.main import main
from distilora.export import export as exporting
from distilora.export import save as saving
from distilora.tasks import file as task_file
from distilora.tasks import registry

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HERE = "import sys\nsys.path.insert(0, sys.argv.pop(1))\n"  # what is given first is imported before what is installed


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    title: str  # the file it belongs in
    code: str


def blocks(page: str) -> list[Block]:
    return [Block(*groups) for groups in BLOCK.findall((ROOT / "docs" / page).read_text("utf-8"))]


def code_for(page: str, file: str) -> list[str]:
    return [block.code for block in blocks(page) if block.title == file]


def put(file: Path, before: str, code: str) -> None:
    """Put code before the one line of a file that begins so."""
    text = file.read_text("utf-8")
    assert text.count(f"\n{before}") == 1, before
    file.write_text(text.replace(f"\n{before}", f"\n{code}{before}"), "utf-8")


def put_row(file: Path, row: str) -> None:
    """Put a row at the end of the file's table."""
    put(file, "    )\n}  # fmt: skip", "".join(f"        {line}\n" for line in row.splitlines()))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source, to be changed as a page says."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return tmp_path / "src"


def test_add_a_task(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "verify", verify_here)  # tests/tasks has a whole run with a fresh process
    monkeypatch.setattr(exporting, "verify", verify_here)
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(task_file, "_used", None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    page = "add-a-task.md"
    (task,) = code_for(page, "stars.py")
    (table,) = (block.code for block in blocks(page) if block.language == "csv")
    (commands,) = (block.code for block in blocks(page) if block.language == "sh")
    header, *rows = table.splitlines()
    assert len(rows) == 3
    made = [f"{text},{4 * sum(w in GOOD for w in text.split()) / 3 + 1}" for text, _ in tiny_reviews(240)]
    (tmp_path / "stars.py").write_text(task)
    (tmp_path / "reviews.csv").write_text("\n".join([header, *rows, *made]))
    write_recipe(
        tmp_path / "tiny.yaml", tiny_config(tmp_path / "run", tmp_path / "reviews.csv", encoder, training__epochs=2)
    )
    for line in commands.splitlines():
        program, command, *words = shlex.split(line.replace("embedded", str(encoder)))
        assert program == "distilora"
        words = ["tiny.yaml", *words] if command == "train" else words
        assert main([command, *words]) == 0
    evaluation = json.loads((tmp_path / "runs/stars/metrics.json").read_text())["evaluations"][0]
    error = evaluation["metrics"]["mean_error"]
    assert 0 < error["low"] <= error["value"] <= error["high"] < 3
    answers = (tmp_path / "answers.csv").read_text().splitlines()
    assert len(answers) == len(rows) + len(made) + 1
    assert (tmp_path / "runs/stars-merged/model.safetensors").is_file()
    assert BAD[0] in answers[2]


def test_add_a_method(encoder: Path, reviews: Path, tmp_path: Path, source: Path, fresh: Fresh) -> None:
    page, schema, methods = (
        "add-a-method.md",
        "src/distilora/config/schema.py",
        "src/distilora/model/adapters/methods.py",
    )
    (names,) = code_for(page, schema)
    functions, row = code_for(page, methods)
    settings, table = tmp_path / schema, tmp_path / methods
    changed, times = re.subn(r"(?m)^MethodName = .*\n", names, settings.read_text("utf-8"))
    assert times == 1
    settings.write_text(changed, "utf-8")
    put(table, "_LOW_RANK_SETTINGS = ", f"{functions}\n\n")
    put_row(table, row)

    recipe = write_recipe(tmp_path / "r.yaml", tiny_config(tmp_path / "run", reviews, encoder, training__epochs=1))
    tree = yaml.safe_load(Path(recipe).read_text())
    del tree["adapter"]
    Path(recipe).write_text(yaml.safe_dump(tree))
    done = fresh(source, "train", recipe, "--adapter.method", "bitfit", code=HERE + COMMAND)
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "run/metrics.json").read_text())
    assert summary["method"] == "bitfit"
    assert summary["training"]["updates"] > 0
    assert summary["round_trip"]["run_precision"]["largest_difference"] == 0

    from safetensors import safe_open

    with safe_open(tmp_path / "run/model/delta/delta.safetensors", "pt") as saved:
        inside = [name for name in saved.keys() if "layer." in name]  # noqa: SIM118 - it is no mapping
    assert len(inside) == 2 * 8  # six linear layers and two norms a block
    assert all(name.endswith(".bias") for name in inside)
    done = fresh(source, "train", recipe, "--adapter.method", "bitfit", "--adapter.dropout", "0.1", code=HERE + COMMAND)
    assert done.code == 2
    assert "method bitfit has no low-rank update" in done.err


COMPARE_WITH_THE_CLASS = """
from pathlib import Path
import torch
from support.families import build
from distilora.batching.rows import rows_of
from distilora.model.encoders.find import find_encoder
network = build(find_encoder(sys.argv[1]))
ids = [[2, 5, 9, 7, 3], [2, 11, 3]]
with torch.no_grad():
    ours = network(rows_of([[row] for row in ids]))
    network.model.set_attn_implementation("eager")
    theirs = torch.cat([network.outer(input_ids=torch.tensor([row])).logits for row in ids])
assert network.computes_blocks or "padded" in sys.argv
torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-5)
"""


def test_add_an_encoder(reviews: Path, tmp_path: Path, source: Path, fresh: Fresh) -> None:
    page, families = "add-an-encoder.md", "src/distilora/model/encoders/families.py"
    (row,) = code_for(page, families)
    (settings,) = code_for(page, "tests/support/families.py")
    put_row(tmp_path / families, row)
    (name,) = re.findall(r'Architecture\(\s*"([^"]+)"', row)
    (look,) = (block.code for block in blocks(page) if block.title == "look.py")
    encoder = write_tiny_encoder(tmp_path / "encoder", name, **eval(f"{{{settings}}}")[name])

    done = fresh(code=look)
    assert done.code == 0, done.err
    assert "XLMRobertaForSequenceClassification" in done.out
    done = fresh(source, encoder, code=HERE + COMPARE_WITH_THE_CLASS)
    assert done.code == 0, done.err
    recipe = write_recipe(tmp_path / "r.yaml", tiny_config(tmp_path / "run", reviews, encoder, training__epochs=1))
    done = fresh(source, "train", recipe, code=HERE + COMMAND)
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "run/metrics.json").read_text())
    assert summary["encoder"]["architecture"] == name
    assert summary["training"]["updates"] > 0
    assert summary["round_trip"]["run_precision"]["largest_difference"] == 0
