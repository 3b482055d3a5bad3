"""Suites: the one that comes with the package is large and sound, and a file that is wrong is one line with the fix."""

import re
from pathlib import Path

import pytest

from distilora.errors import ConfigError
from distilora.evaluation.checks.run import make_cases
from distilora.evaluation.checks.suite import read_suite

CHECK = "{name: a, kind: mft, expect: good, templates: [Fine.]}"


def written(folder: Path, text: str) -> str:
    (folder / "own.yaml").write_text(text, "utf-8")
    return str(folder / "own.yaml")


def test_the_built_in_suite_is_large_and_even() -> None:
    suite = read_suite("sentiment")
    own = [check for check in suite.checks if not check.on_data]
    cases = {check.name: make_cases(check, suite, [], seed=0) for check in own}
    assert sum(len(check.templates) for check in own) >= 150
    assert sum(map(len, cases.values())) >= 1000
    assert {check.kind for check in own} == {"mft", "inv", "dir"}
    for check in own:
        assert len(cases[check.name]) >= 12, check.name
        assert len(set(cases[check.name])) == len(cases[check.name])
        for case in cases[check.name]:
            for text in filter(None, case):
                assert not set("{}") & set(text), text
                assert " a a" not in text, text
    known = [check for check in own if check.kind == "mft" and check.capability != "neutral"]
    positive = sum(len(cases[check.name]) for check in known if check.expect == ("positive",))
    assert positive == sum(len(cases[check.name]) for check in known) / 2  # always one answer passes no more than half


def test_texts_depend_on_the_seed_alone() -> None:
    suite = read_suite("sentiment")
    typos = next(check for check in suite.checks if check.name == "typos")
    assert make_cases(typos, suite, [], 1) == make_cases(typos, suite, [], 1) != make_cases(typos, suite, [], 2)


def test_a_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path, f"checks: [{CHECK}, {{name: b, kind: dir, moves: {{good: down}}, by: 0.2, "
                                         "templates: [{from: Fine., to: Bad.}]}]"))  # fmt: skip
    assert suite.name == "own"
    mft, direction = suite.checks
    assert (mft.cases, mft.expect, mft.capability) == (20, ("good",), "general")
    assert (direction.moves, direction.by) == ({"good": -1}, 0.2)
    assert mft.expectation == "the answer is good"
    assert direction.expectation == "good falls by 0.2 or more"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML: while parsing"),
        ("[]", "the file: fields wanted (name, about,"),
        ("chekcs: []", "the file: chekcs: there is no such field; did you mean checks?"),
        ("name: x", "checks: a list of checks wanted"),
        ("checks: [x]", "check 1: fields wanted (name, kind,"),
        ("checks: [{kind: mft}]", "check 1: name: a text wanted, such as 'negated praise'"),
        ("checks: [{name: a, kind: mtf}]", "check 'a': kind: 'mtf' given, mft, inv, dir wanted"),
        ("checks: [{name: a, kind: mft, templates: [x]}]", "check 'a': expect: nothing given; name the label"),
        ("checks: [{name: a, kind: mft, expect: b, within: 1, templates: [x]}]", "check 'a': within: a check of kind mft has none"),
        ("checks: [{name: a, kind: inv, templates: [x]}]", "check 'a': templates: 'x': a pair {from: TEXT, to: TEXT}, or"),
        ("checks: [{name: a, kind: inv, perturb: typos, templates: [{from: x, to: y}]}]", "check 'a': templates: 'x': one text"),
        ("checks: [{name: a, kind: inv, data: true}]", "check 'a': perturb: nothing given"),
        ("checks: [{name: a, kind: inv, perturb: typos}]", "check 'a': templates: a list of texts wanted, or else data: true"),
        ("checks: [{name: a, kind: inv, perturb: typos, data: 1}]", "check 'a': data: 1 given, true or false wanted"),
        ("checks: [{name: a, kind: inv, within: 2, perturb: typos, data: true}]", "check 'a': within: 2 given, a number from"),
        ("checks: [{name: a, kind: dir, perturb: typos, data: true}]", "check 'a': moves: the way of one probability"),
        ("checks: [{name: a, kind: dir, moves: {b: left}, perturb: typos, data: true}]", "check 'a': moves: the way"),
        ("checks: [{name: a, kind: dir, moves: {b: up}, by: 0.1, tolerance: 0, perturb: typos, data: true}]",
         "check 'a': by: given beside tolerance"),
        ("checks: [{name: a, kind: mft, expect: no, templates: [x]}]", "check 'a': expect: False given, a name or a list of names"),
        (f"cases: 0\nchecks: [{CHECK}]", "cases: 0 given, a whole number from 1 to 10000 wanted"),
        (f"checks: [{CHECK}, {CHECK}]", "check 'a': two have that name; rename one"),
        (f"labels: {{bad: x}}\nchecks: [{CHECK}]", "check 'a': 'good' is not among the suite's labels (bad)"),
        (f"labels: {{good: x}}\nscale: [good]\nchecks: [{CHECK}]", "scale: 1 names given, two (low, high) or three"),
        (f"labels: {{good: x}}\noptional: [bad]\nchecks: [{CHECK}]", "optional: 'bad' is not among the suite's labels"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_the_fix(text: str, said: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_suite(path)
    assert str(error.value).removeprefix(f"checks: {path}").lstrip(": ").startswith(said)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_said() -> None:
    with pytest.raises(
        ConfigError, match=r"checks: cannot read sentimnt \(No such file.*name of a suite \(sentiment\)$"
    ):
        read_suite("sentimnt")


def test_the_example_of_the_documentation_is_a_suite(tmp_path: Path) -> None:
    (page,) = (root / "docs" / "checks.md" for root in Path(__file__).parents if (root / "docs" / "checks.md").exists())
    (example,) = re.findall(r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    suite = read_suite(written(tmp_path, example))
    assert [check.kind for check in suite.checks] == ["mft", "inv", "dir", "inv"]
    assert [len(make_cases(check, suite, ["Cold soup."], 0)) for check in suite.checks] == [6, 18, 3, 1]
