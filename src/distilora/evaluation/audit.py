"""Audit of labelled data: all that looks wrong, as a page, a table, a Label Studio task file, and a summary.

read -> copies -> out-of-fold probabilities -> cleanlab -> issues -> folder, written whole
"""

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.config.measuring import AuditConfig
from distilora.data.audit import (
    CONFLICT,
    LABEL,
    REASONS,
    Finding,
    Table,
    count_leaks,
    find_blank_and_odd,
    find_conflicts,
    find_copies,
    find_leaks,
    read_labelled,
    with_groups,
)
from distilora.data.parts import settle
from distilora.data.sources import Source, open_source
from distilora.errors import ConfigError, OutputError
from distilora.evaluation import label_errors
from distilora.evaluation.label_errors import Judged
from distilora.evaluation.label_studio import task_record, write_tasks
from distilora.evaluation.page import render
from distilora.files.atomic import replacing_folder
from distilora.files.full_disk import writing
from distilora.files.output import check_creatable
from distilora.files.tables import TableWriter
from distilora.progress import say
from distilora.tasks.base import Task
from distilora.tasks.registry import find_task
from distilora.tasks.showing import Table as Shown

FILES = ("audit.html", "issues.csv", "tasks.json", "labels.xml", "summary.json")
COLUMNS = (
    "place",
    "split",
    "row",
    "reason",
    "label",
    "suggested",
    "score",
    "judged_by",
    "detail",
    "text",
)  # of issues.csv
EXPERT, BOTH = "n-gram expert", "n-gram expert and run"  # judges of a row; the run is none of what it has seen
SHOWN = 50  # issues of a kind on the page
EXCERPT = 600  # characters of a text on the page and in issues.csv
TITLES = {
    "label": "Labels that look wrong",
    "copies with different labels": "Near copies with different labels",
    "copy across splits": "Copies across splits",
    "blank": "Blank rows",
    "odd": "Odd rows",
}


@dataclass(frozen=True)
class Issue:
    """Finding with the label in the data, the one suggested instead ("" for none), the label's score and its judges.

    A blank row has no score (None) and no judges ("").
    """

    finding: Finding
    label: str
    suggested: str
    score: float | None
    judged_by: str


def audit(config: AuditConfig, overwrite: bool = False) -> dict[str, Any]:
    """Search the data for what looks wrong and write the folder `config.output`; return summary.json.

    Raises DataError naming the field (and row) at fault, ConfigError for a task without classes, a run of other labels or an
    output that is something else, MissingExtra without cleanlab, OutputError if the folder cannot be written.
    """
    folder = Path(config.output)
    check_folder(folder, overwrite)
    label_errors.check_cleanlab()
    config = replace(config, data=settle(config.data, audited_source(config)))
    task = audited_task(config)
    table = read_labelled(config.data, task, task.label_column)
    copies = find_copies(table)
    judged, by_run, models = _judged(config, task, table, with_groups(table, copies), copies.clusters)
    findings = [
        *_wrong_labels(task, judged, by_run),
        *find_conflicts(table, copies),
        *find_leaks(table, copies),
        *find_blank_and_odd(table),
    ]
    issues = _issues(table, task, judged, by_run, findings)
    counts = Counter(issue.finding.reason for issue in issues)
    summary = {
        "audit": 1,
        "source": table.source,
        "task": task.name,
        "labels": list(task.labels),
        "rows": {split: sum(row.split == split for row in table.rows) for split in table.splits},
        "test": table.test,
        "issues": {reason: counts[reason] for reason in REASONS},
        "copies_across_splits": count_leaks(table, copies),
        **models,
        "notes": table.notes,
    }
    _write(folder, overwrite, table, task, issues, judged, summary)
    return summary


def audited_task(config: AuditConfig) -> Task:
    """Set up the task for the data. Raises ConfigError if it has no classes that an n-gram model can tell apart."""
    task = find_task(config.task).from_source(config.data, audited_source(config))
    if task.ngram_classes is None:
        raise ConfigError(f"task: {task.name} has no classes whose labels could be audited; give one that has")
    return task


def audited_source(config: AuditConfig) -> Source:
    """Open DATA."""
    data = config.data
    return open_source(data.path, data.name, data.revision, separator=data.separator)


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raise ConfigError unless `folder` is free, or holds nothing but an audit to be overwritten."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output: {folder} is a file; give a folder")
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if present and not ("summary.json" in present and present <= set(FILES)):
        raise ConfigError(f"output: {folder} holds files that do not belong to an audit; give another folder")
    if present and not overwrite:
        raise ConfigError(f"output: {folder} exists already; give another folder, or --overwrite")
    check_creatable(folder)


def _judged(
    config: AuditConfig, task: Task, table: Table, groups: NDArray[np.int64], clusters: NDArray[np.int64]
) -> tuple[Judged, NDArray[np.bool_], dict[str, Any]]:
    """Judge the labels of all rows, [M], a blank row's by a score of NaN; tell which rows the run judged, too, [M].

    Returns the models' part of the summary last.
    """
    assert task.ngram_classes is not None  # audited_task
    filled = table.filled
    targets = np.asarray([row.target for row in table.rows], np.int64)
    fitted = np.asarray([table.rows[i].split != table.test for i in filled], bool)
    texts = [table.rows[i].cleaned for i in filled]
    probabilities = label_errors.expert_probabilities(
        texts, targets[filled], task.ngram_classes, groups[filled], fitted
    )
    models: dict[str, Any] = {"run": None}
    by_run = np.zeros(len(table.rows), bool)
    if config.run is not None:
        of_run, unseen = label_errors.run_probabilities(config.run, table, task.labels, clusters[filled])
        probabilities[unseen] = (probabilities[unseen] + of_run[unseen]) / 2
        by_run[filled] = unseen
        models["run"] = {"name": config.run, "answered": int(unseen.sum()), "seen": int((~unseen).sum())}
    judged = label_errors.judge_apart(targets[filled], probabilities, fitted)
    models["agreement"] = float(np.mean(judged.likeliest == targets[filled]))
    return judged.spread(filled, targets), by_run, models


def _wrong_labels(task: Task, judged: Judged, by_run: NDArray[np.bool_]) -> list[Finding]:
    findings = []
    for i in map(int, np.flatnonzero(judged.wrong)):
        judges_say = f"{BOTH} say" if by_run[i] else f"{EXPERT} says"
        likeliest = task.target_name(int(judged.likeliest[i]))
        findings.append(Finding(i, LABEL, f"{judges_say} {likeliest} ({judged.probability[i]:.0%})"))
    return findings


def _issues(
    table: Table, task: Task, judged: Judged, by_run: NDArray[np.bool_], findings: list[Finding]
) -> list[Issue]:
    """Complete the findings; those of a kind stand together. Labels that look wrong, and copies, have the lowest score in front."""
    issues = []
    for finding in findings:
        i, target = finding.index, table.rows[finding.index].target
        differs = finding.reason in (LABEL, CONFLICT) and judged.likeliest[i] != target
        suggested = str(task.target_name(int(judged.likeliest[i]))) if differs else ""
        score = None if np.isnan(judged.score[i]) else float(judged.score[i])
        judged_by = "" if score is None else BOTH if by_run[i] else EXPERT
        issues.append(Issue(finding, str(task.target_name(target)), suggested, score, judged_by))
    order = {reason: n for n, reason in enumerate(REASONS)}
    by_score = (LABEL, CONFLICT)
    return sorted(
        issues, key=lambda i: (order[i.finding.reason], (i.score or 0.0) if i.finding.reason in by_score else 0.0)
    )


def _write(
    folder: Path,
    overwrite: bool,
    table: Table,
    task: Task,
    issues: list[Issue],
    judged: Judged,
    summary: dict[str, Any],
) -> None:
    """Write the folder under a temporary name, then move it."""
    title = f"Audit of {table.source}"
    page = render(
        "audit.html.j2", title=title, summary=summary, titles=TITLES, tables=_tables(table, issues), notes=table.notes
    )
    tasks = _tasks(table, task, issues, judged)
    try:
        with writing(folder, "audit again"), replacing_folder(folder) as temporary:
            (temporary / "audit.html").write_text(page, "utf-8")
            with TableWriter(temporary / "issues.csv", COLUMNS) as out:
                out.write([_record(table, issue) for issue in issues])
            write_tasks(temporary, tasks, task.labels)
            (temporary / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", "utf-8")
            if overwrite:
                for name in FILES:
                    (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"output: {folder} cannot be written ({error.strerror}); give another folder") from None
    say(f"{folder}: {len(issues):,} issues, {len(tasks):,} tasks for Label Studio")


def _record(table: Table, issue: Issue) -> dict[str, Any]:
    """Make an issue's row of issues.csv."""
    row = table.rows[issue.finding.index]
    score = None if issue.score is None else round(issue.score, 4)
    values = (row.place, row.split, row.number, issue.finding.reason, issue.label, issue.suggested, score,
              issue.judged_by, issue.finding.detail, excerpt(row.cleaned))  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _tables(table: Table, issues: list[Issue]) -> list[Shown]:
    """Lay out the issues of each kind as a table, its worst SHOWN rows."""
    shown = []
    for reason in REASONS:
        of_kind = [_record(table, issue) for issue in issues if issue.finding.reason == reason]
        if not of_kind:
            continue
        columns = ["place", "label", *(["suggested"] if reason in (LABEL, CONFLICT) else []), "score", "detail", "text"]
        rows = [["" if record[name] is None else str(record[name]) for name in columns] for record in of_kind[:SHOWN]]
        more = f" (the first {SHOWN} of {len(of_kind):,}; issues.csv has all)" if len(of_kind) > SHOWN else ""
        shown.append(Shown(TITLES[reason] + more, columns, rows, text=("text",)))
    return shown


def _tasks(table: Table, task: Task, issues: list[Issue], judged: Judged) -> list[dict[str, Any]]:
    """Make a task for each row whose label looks wrong or differs from a copy's, worst first."""
    tasks: dict[int, dict[str, Any]] = {}
    for issue in issues:
        finding = issue.finding
        if finding.reason not in (LABEL, CONFLICT) or finding.index in tasks:
            continue
        suggested = issue.suggested or issue.label
        certainty = float(judged.probability[finding.index])
        tasks[finding.index] = task_record(
            table.rows[finding.index], issue.label, suggested, certainty, finding.reason, finding.detail
        )
    return list(tasks.values())


def excerpt(text: str) -> str:
    """Cut a text to its first EXCERPT characters."""
    return text if len(text) <= EXCERPT else text[:EXCERPT].rstrip() + " ..."
