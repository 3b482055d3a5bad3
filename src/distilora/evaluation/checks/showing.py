"""Presents the outcome of a suite: a section of the report, and the lines of the terminal. Both take its record."""

from collections.abc import Iterator, Mapping
from typing import Any

from distilora.tasks.metrics.names import share_text
from distilora.tasks.showing import Number, Section, Table

LINES = 2  # failing cases of a check on the terminal
WIDTH = 100  # characters of a text on the terminal
EXCERPT = 600  # characters of a text in the report
Record = Mapping[str, Any]


def checks_section(record: Record) -> Section:
    """Lay out a suite's record for the report."""
    run = [check for check in record["checks"] if not check["skipped"]]
    numbers = [_number(f"Checks passed, {record['own']['cases']:,} cases", record["own"])]
    if record["data"]["cases"]:
        numbers.append(_number(f"On your texts, {record['data']['cases']:,} cases", record["data"]))
    sentences = [
        _beside(record),
        record["reading"],
        "A check of kind mft knows the answer to its texts; inv changes a text and wants the same answer; dir changes a text "
        "and wants a probability to move the stated way. Intervals are Wilson's and take the cases for independent, which "
        "texts from one template are not: they are somewhat too narrow.",
        *_skipped(record),
    ]
    capabilities = [[row["name"], *_share_cells(row)] for row in record["capabilities"]]
    checks = [
        [check["name"], check["capability"], check["kind"], check["expectation"], *_share_cells(check)] for check in run
    ]
    columns = ("cases", "passed", "95%")
    tables = [
        Table("By capability", ("capability", *columns), capabilities),
        Table("By check", ("check", "capability", "kind", "expected", *columns), checks),
        *(_failures(check) for check in run if check["failures"]),
    ]
    return Section(f"Checks: {record['suite']}", numbers, [s for s in sentences if s], tables)


def checks_lines(record: Record) -> list[str]:
    """List the lines of a suite's record: each check with its share, then failing cases."""
    lines = [record["reading"]] if record["reading"] else []
    run = [check for check in record["checks"] if not check["skipped"]]
    width = max((len(check["name"]) for check in run), default=0)
    if run:
        lines.append(f"  {'check':<{width}}  kind   cases  passed  95% interval")
        lines += [
            f"  {check['name']:<{width}}  {check['kind']:<4}  {check['cases']:>6,}  {share_text(check['share']):>6}  "
            f"{_interval(check)}"
            for check in run
        ]
    lines += [sentence for sentence in (_beside(record), *_skipped(record)) if sentence]
    for check in run:
        if check["failures"]:
            lines += [
                "",
                f"{check['name']}: {check['cases'] - check['passed']} of {check['cases']} failed ({check['expectation']})",
            ]
            lines += [line for failure in check["failures"][:LINES] for line in _failure_lines(failure)]
    return lines


def share_line(share: Record) -> str:
    """Format a share with its interval, as '88.1% (86.0% to 90.0%) of 1,170 cases'."""
    return f"{share_text(share['share'])} ({_interval(share)}) of {share['cases']:,} cases"


def _skipped(record: Record) -> list[str]:
    """Say which checks were not run, a sentence for each reason."""
    reasons = dict.fromkeys(check["skipped"] for check in record["checks"] if check["skipped"])
    return [
        f"Not run, because {reason}: "
        + "; ".join(check["name"] for check in record["checks"] if check["skipped"] == reason)
        + "."
        for reason in reasons
    ]


def _beside(record: Record) -> str:
    """Say what the encoder of a combined model would pass alone; an empty string for any other model."""
    if "encoder_alone" not in record:
        return ""
    return f"The encoder alone, without its n-gram expert: {share_line(record['encoder_alone'])} passed."


def _number(name: str, share: Record) -> Number:
    return Number(name, share_text(share["share"]), f"95%: {_interval(share)}" if share["cases"] else "")


def _share_cells(share: Record) -> list[str]:
    return [f"{share['cases']:,}", share_text(share["share"]), _interval(share)]


def _interval(share: Record) -> str:
    return f"{share_text(share['low'])} to {share_text(share['high'])}"


def _failures(check: Record) -> Table:
    failed = check["cases"] - check["passed"]
    title = f"{check['name']}: {failed:,} of {check['cases']:,} failed, {len(check['failures'])} shown ({check['expectation']})"
    if check["kind"] == "mft":
        rows = [[_cut(row["text"], EXCERPT), _answer(row, "label", "p")] for row in check["failures"]]
        return Table("", ("text", "answer"), rows, ("text",), title)
    rows = [
        [_cut(row["text"], EXCERPT), _answer(row, "label", "p"), _cut(row["changed"], EXCERPT, row["text"]),
         _answer(row, "changed_label", "changed_p")]
        for row in check["failures"]
    ]  # fmt: skip
    return Table("", ("text", "answer", "changed to", "answer then"), rows, ("text", "changed to"), title)


def _failure_lines(failure: Record) -> Iterator[str]:
    yield f"  {_cut(failure['text'], WIDTH)}  -> {_answer(failure, 'label', 'p')}"
    if "changed" in failure:
        yield f"    {_cut(failure['changed'], WIDTH, failure['text'])}  -> {_answer(failure, 'changed_label', 'changed_p')}"


def _answer(failure: Record, label: str, p: str) -> str:
    probabilities = ", ".join(f"{name} {value:.3f}" for name, value in failure[p].items())
    return f"{failure[label]} ({probabilities})"


def _cut(text: str, width: int, former: str = "") -> str:
    """Shorten a text to about `width` characters, around the place where it begins to differ from `former`."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    former = " ".join(former.split())
    differs = next(
        (i for i, (a, b) in enumerate(zip(text, former, strict=False)) if a != b), min(len(text), len(former))
    )
    start = max(min(differs - width // 2, len(text) - width), 0)
    return ("… " if start else "") + text[start : start + width].strip() + (" …" if start + width < len(text) else "")
