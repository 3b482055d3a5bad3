"""Label Studio's files: tasks with pre-annotations to import, the labelling config they fit, and corrections as exported.

    task        {"data": {"text", "split", "row", "digest", "label", ...}, "predictions": [{"model_version", "score", "result"}]}
    result      {"id", "from_name", "to_name", "type": "choices", "value": {"choices": [LABEL]}}
    export      the same tasks, each with "annotations": [{"was_cancelled", "result"}]

(labelstud.io/guide/task_format and guide/predictions.) Label Studio numbers tasks itself but keeps `data`, so the way back to
the row stands there.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from distilora.data.audit import Row
from distilora.errors import DataError

FROM, TO = "label", "text"  # names in the labelling config
VERSION = "distilora audit"


@dataclass(frozen=True)
class Correction:
    """Label that somebody chose for a row; None if the task was skipped or has no annotation."""

    split: str
    number: int
    digest: str
    given: str  # label when the task was written
    label: str | None


def task_record(row: Row, given: str, suggested: str, probability: float, reason: str, detail: str) -> dict[str, Any]:
    """Make the task of a row, whose pre-annotation is the suggested label with its probability."""
    result = {
        "id": f"{row.split}-{row.number}",
        "from_name": FROM,
        "to_name": TO,
        "type": "choices",
        "value": {"choices": [suggested]},
    }
    data = {"text": row.cleaned, "split": row.split, "row": row.number, "digest": row.digest, "place": row.place,
            "label": given, "suggested": suggested, "reason": reason, "detail": detail}  # fmt: skip
    return {
        "data": data,
        "predictions": [{"model_version": VERSION, "score": round(probability, 4), "result": [result]}],
    }


def labelling_config(labels: Iterable[str]) -> str:
    """Write the labelling config that the tasks fit: the text, what was found, and a choice of one label."""
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in labels)
    return (
        f'<View>\n  <Header value="Label in the data: $label ($reason)"/>\n  <Text name="{TO}" value="$text"/>\n'
        f'  <Choices name="{FROM}" toName="{TO}" choice="single" required="true">\n{choices}\n  </Choices>\n</View>\n'
    )


def read_corrections(path: str | Path) -> list[Correction]:
    """Read the corrections of an export. Raises DataError if it is no JSON export of tasks that an audit wrote."""
    try:
        tasks = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise DataError(f"apply: {path} cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise DataError(f"apply: {path} is not JSON ({error}); export the tasks from Label Studio as JSON") from None
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"apply: {path} holds no list of tasks; export them from Label Studio as JSON")
    corrections = [_correction(task, f"apply: {path}: task {number}") for number, task in enumerate(tasks, 1)]
    twice: set[tuple[str, int]] = set()
    for number, correction in enumerate(corrections, 1):
        key = (correction.split, correction.number)
        if key in twice:
            raise DataError(
                f"apply: {path}: task {number}: row {key[1]} of {key[0]} stands there twice; delete one task"
            )
        twice.add(key)
    return corrections


def _correction(task: dict[str, Any], place: str) -> Correction:
    data = task.get("data")
    if "annotations" not in task or not isinstance(data, dict):
        raise DataError(f"{place}: has no annotations; export as JSON (not JSON-MIN or CSV)")
    try:
        split, number, digest, given = (data[key] for key in ("split", "row", "digest", "label"))
        number = int(number)
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{place}: lacks split, row, digest and label; give the export of an audit's tasks.json"
        ) from None
    return Correction(str(split), number, str(digest), str(given), _chosen(task["annotations"], place))


def _chosen(annotations: Any, place: str) -> str | None:
    """Return the label that the annotations of a task agree on; None if there is none. Raises DataError if they differ."""
    chosen: dict[str, None] = {}
    try:
        for annotation in annotations:
            if annotation.get("was_cancelled"):
                continue
            for result in annotation["result"]:
                if result.get("from_name") == FROM:
                    chosen |= dict.fromkeys(result["value"]["choices"])
    except (AttributeError, KeyError, TypeError):
        raise DataError(f"{place}: its annotations are damaged; export the tasks again") from None
    if len(chosen) > 1:
        raise DataError(f"{place}: its annotations differ ({', '.join(chosen)}); keep one of them in Label Studio")
    return next(iter(chosen), None)


def write_tasks(folder: Path, tasks: Sequence[dict[str, Any]], labels: Sequence[str]) -> None:
    """Write tasks.json, to be imported, and labels.xml, the labelling config."""
    (folder / "tasks.json").write_text(json.dumps(tasks, ensure_ascii=False, indent=1) + "\n", "utf-8")
    (folder / "labels.xml").write_text(labelling_config(labels), "utf-8")
