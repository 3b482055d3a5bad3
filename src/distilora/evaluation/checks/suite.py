"""Reads a suite of checks from YAML: slots, the names of labels, and checks of three kinds; docs/checks.md has the format.

    mft   minimum functionality   the answer to a text is known
    inv   invariance              a change of the text must not change the answer
    dir   direction               a change of the text must move a probability the stated way

The kinds are CheckList's (Ribeiro et al. 2020, Beyond Accuracy: Behavioral Testing of NLP Models with CheckList).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilora.config.hints import nearest
from distilora.errors import ConfigError
from distilora.evaluation.checks.perturbations import Perturbation, read_perturbation
from distilora.evaluation.checks.templates import Slots, Template, read_slots, read_template

BUILT_IN = {"sentiment": Path(__file__).with_name("sentiment.yaml")}
KINDS = {"mft": "minimum functionality", "inv": "invariance", "dir": "direction"}
MOST_CASES = 10_000  # of one check
_SUITE_KEYS = ("name", "about", "cases", "labels", "scale", "optional", "slots", "checks")
_CHECK_KEYS = {
    "mft": ("expect",),
    "inv": ("within", "perturb", "data"),
    "dir": ("moves", "tolerance", "by", "perturb", "data"),
}
_SHARED_KEYS = ("name", "kind", "capability", "templates", "cases")


@dataclass(frozen=True)
class Check:
    """Check of one kind: where its texts come from, and what the answers to them must be.

    Its texts are templates, or with `on_data` the user's own. Names of labels are the suite's.
    """

    name: str
    kind: str
    capability: str
    templates: tuple[Template, ...]
    on_data: bool
    perturbation: Perturbation | None  # None: the templates are texts alone (mft) or pairs
    expect: tuple[str, ...]  # mft: the right answers
    within: float | None  # inv: the most that a probability may move; None: only the answer counts
    moves: Mapping[str, int]  # dir: +1 where a name's probability must rise, -1 where it must fall
    tolerance: float  # dir: how far it may go the other way
    by: float  # dir: how far it must go, if not 0
    cases: int  # at most

    @property
    def names(self) -> tuple[str, ...]:
        """Names of labels that the check speaks of."""
        return (*self.expect, *self.moves)

    @property
    def expectation(self) -> str:
        """What must hold of a case, in words."""
        if self.kind == "mft":
            return "the answer is " + " or ".join(self.expect)
        if self.kind == "inv":
            within = "" if self.within is None else f", no probability moves by more than {self.within:g}"
            return f"the answer stays{within}"
        way = f"by {self.by:g} or more" if self.by else f"or moves the other way by at most {self.tolerance:g}"
        return ", ".join(f"{name} {'rises' if sign > 0 else 'falls'} {way}" for name, sign in self.moves.items())


@dataclass(frozen=True)
class Suite:
    """Suite of checks."""

    name: str
    checks: tuple[Check, ...]
    slots: Slots
    labels: Mapping[str, tuple[str, ...]]  # the suite's names -> what models call them; empty: the model's own names
    scale: tuple[str, ...]  # the suite's names of numbered labels, from low to high; empty: numbers are names
    optional: tuple[str, ...]  # names that a model need not have; checks of them are skipped
    digest: str  # SHA-256 of the file


def read_suite(name: str) -> Suite:
    """Read a built-in suite by its name, or one's own from a YAML file.

    Raises ConfigError naming the file, and the check and field at fault.
    """
    import yaml

    path = BUILT_IN.get(name, Path(name).expanduser())
    try:
        content = path.read_bytes()
    except OSError as error:
        known = ", ".join(BUILT_IN)
        raise ConfigError(
            f"checks: cannot read {name} ({error.strerror}); give a YAML file, or the name of a suite ({known})"
        ) from None
    try:
        tree = yaml.safe_load(content.decode())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"checks: {path} is not YAML: {' '.join(str(error).split())}") from None
    try:
        return _suite(tree, path.stem, hashlib.sha256(content).hexdigest())
    except ConfigError as error:
        raise ConfigError(f"checks: {path.name if name in BUILT_IN else path}: {error}") from None


def _suite(tree: Any, stem: str, digest: str) -> Suite:
    _check_keys(tree, _SUITE_KEYS, "the file")
    slots = read_slots(tree.get("slots", {}))
    labels = {name: _names(values, f"labels: {name}") for name, values in _mapping(tree, "labels").items()}
    rows = tree.get("checks")
    if not isinstance(rows, list) or not rows:
        raise ConfigError("checks: a list of checks wanted; docs/checks.md has the format")
    cases = _number(tree.get("cases", 20), "cases", 1, MOST_CASES, whole=True)
    checks = tuple(_check(row, number, slots, int(cases)) for number, row in enumerate(rows, 1))
    names = [check.name for check in checks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"check {twice!r}: two have that name; rename one")
    scale, optional = (_names(tree.get(key, []), key) for key in ("scale", "optional"))
    for check in checks:
        if labels and (unknown := next((name for name in check.names if name not in labels), None)):
            raise ConfigError(
                f"check {check.name!r}: {unknown!r} is not among the suite's labels ({', '.join(labels)})"
            )
    for key, listed in (("scale", scale), ("optional", optional)):
        if unknown := next((name for name in listed if name not in labels), None):
            raise ConfigError(f"{key}: {unknown!r} is not among the suite's labels ({', '.join(labels)})")
    if len(scale) not in (0, 2, 3):
        raise ConfigError(f"scale: {len(scale)} names given, two (low, high) or three (low, middle, high) wanted")
    return Suite(str(tree.get("name", stem)), checks, slots, labels, scale, optional, digest)


def _check(row: Any, number: int, slots: Slots, cases: int) -> Check:
    _check_keys(row, (*_SHARED_KEYS, *{key for keys in _CHECK_KEYS.values() for key in keys}), f"check {number}")
    name = row.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"check {number}: name: a text wanted, such as 'negated praise'")
    try:
        return _check_of(row, name, slots, cases)
    except ConfigError as error:
        raise ConfigError(f"check {name!r}: {error}") from None


def _check_of(row: Mapping[str, Any], name: str, slots: Slots, cases: int) -> Check:
    kind = row.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"kind: {kind!r} given, {', '.join(KINDS)} wanted")
    if foreign := next((key for key in row if key not in (*_SHARED_KEYS, *_CHECK_KEYS[kind])), None):
        raise ConfigError(f"{foreign}: a check of kind {kind} has none; drop it")
    perturbation = read_perturbation(row["perturb"], slots) if "perturb" in row else None
    on_data = row.get("data", False)
    if not isinstance(on_data, bool):
        raise ConfigError(f"data: {on_data!r} given, true or false wanted")
    templates = _templates(row, slots, on_data, paired=kind != "mft" and perturbation is None)
    if on_data and perturbation is None:
        raise ConfigError("perturb: nothing given; a check of your own data needs it, such as typos")
    expect = _names(row.get("expect", []), "expect")
    if kind == "mft" and not expect:
        raise ConfigError("expect: nothing given; name the label that is right")
    within = row.get("within")
    by = _number(row.get("by", 0), "by", 0, 1)
    if by and "tolerance" in row:
        raise ConfigError("by: given beside tolerance; drop one of the two")
    return Check(
        name=name,
        kind=kind,
        capability=str(row.get("capability", "general")),
        templates=templates,
        on_data=on_data,
        perturbation=perturbation,
        expect=expect,
        within=None if within is None else _number(within, "within", 0, 1),
        moves=_moves(row) if kind == "dir" else {},
        tolerance=_number(row.get("tolerance", 0.1), "tolerance", 0, 1),
        by=by,
        cases=int(_number(row.get("cases", cases), "cases", 1, MOST_CASES, whole=True)),
    )


def _templates(row: Mapping[str, Any], slots: Slots, on_data: bool, paired: bool) -> tuple[Template, ...]:
    rows = row.get("templates", [])
    if not isinstance(rows, list) or bool(rows) == on_data:
        raise ConfigError("templates: a list of texts wanted, or else data: true")
    templates = tuple(read_template(text, slots) for text in rows)
    for template in templates:
        if (template.changed is not None) != paired:
            wanted = "a pair {from: TEXT, to: TEXT}, or else perturb:," if paired else "one text"
            raise ConfigError(f"templates: {template.text!r}: {wanted} wanted")
    return templates


def _moves(row: Mapping[str, Any]) -> dict[str, int]:
    moves = _mapping(row, "moves")
    if not moves or not set(map(str, moves.values())) <= {"up", "down"}:
        raise ConfigError(
            "moves: the way of one probability or more wanted, such as {positive: up} or {negative: down}"
        )
    return {str(name): 1 if way == "up" else -1 for name, way in moves.items()}


def _check_keys(tree: Any, accepted: Sequence[str], place: str) -> None:
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{place}: fields wanted ({', '.join(accepted)}); docs/checks.md has the format")
    for key in map(str, tree):
        if key not in accepted:
            meant = nearest(key, accepted)
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(accepted)}"
            raise ConfigError(f"{place}: {key}: there is no such field; {hint}")


def _mapping(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key, {})
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: {value!r} given, names with values wanted")
    return {str(name): content for name, content in value.items()}


def _names(value: Any, field: str) -> tuple[str, ...]:
    """Read one name or a list of them."""
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str | int | float) and not isinstance(name, bool) for name in names):
        raise ConfigError(
            f"{field}: {value!r} given, a name or a list of names wanted; put true, no and the like in quotes"
        )
    return tuple(map(str, names))


def _number(value: Any, field: str, low: int, high: int, whole: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not low <= value <= high:
        raise ConfigError(f"{field}: {value!r} given, a {'whole ' * whole}number from {low} to {high} wanted")
    return float(value)
