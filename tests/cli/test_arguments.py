"""Arguments of all commands: options of every command at any place, unknown ones named with what is meant."""

import pytest

from distilora.cli.arguments import Parser, add_answering, add_run, take_everywhere
from distilora.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("words", "quiet", "threads", "left"),
    [
        ([], False, None, []),
        (["predict", "RUN", "text"], False, None, ["predict", "RUN", "text"]),
        (["--quiet", "predict", "RUN"], True, None, ["predict", "RUN"]),
        (["predict", "RUN", "--quiet", "text"], True, None, ["predict", "RUN", "text"]),
        (["train", "--threads", "3", "--quiet"], True, 3, ["train"]),
        (["--threads=2", "train"], False, 2, ["train"]),
        (["predict", "--threads", "1", "--", "--quiet", "--threads"], False, 1, ["predict", "--", "--quiet", "--threads"]),
    ],
)  # fmt: skip
def test_options_of_every_command(words: list[str], quiet: bool, threads: int | None, left: list[str]) -> None:
    assert take_everywhere(words) == (quiet, threads, None, left)


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--threads", "0"], "0"),
        (["--threads"], "nothing"),
        (["--threads="], "nothing"),
        (["--threads", "two"], "two"),
        (["--threads", "-1"], "-1"),
        (["--threads", "1.5"], "1.5"),
        (["--threads", "1025"], "1025"),
        (["--threads", "--", "3"], "nothing"),
    ],
)
def test_threads_are_a_number(words: list[str], given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        take_everywhere(words)
    assert str(caught.value) == f"--threads: {given} given, a whole number from 1 to 1024 wanted"


@pytest.fixture
def parser() -> Parser:
    arguments = Parser(prog="distilora x")
    add_run(arguments)
    arguments.add_argument("texts", nargs="*")
    arguments.add_argument("--output", required=True)
    arguments.add_argument("--text-column")
    add_answering(arguments)
    return arguments


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--outptu", "--output"),
        ("--out", "--output"),
        ("--output_dir", "--output"),
        ("--text_column", "--text-column"),
        ("--data.text_column", "--text-column"),
        ("--quite", "--quiet"),
        ("--num-threads", "--threads"),
        ("--abstain-bellow", "--abstain-below"),
        ("--fp16", "--precision"),
        ("-output", "--output"),
        ("--model", "--encoder"),
        ("--xyzzy", None),
        ("-x", None),
    ],
)
def test_an_unknown_option_names_the_nearest(option: str, meant: str | None, parser: Parser) -> None:
    hint = f"did you mean {meant}?" if meant else "see distilora x --help"
    for words in ([option, "1"], ["RUN", f"{option}=1"], ["RUN", "a text", option, "--output", "y"]):
        for parse in (parser.parse_args, parser.parse_intermixed_args):
            with pytest.raises(ConfigError) as caught:
                parse(words)
            assert str(caught.value) == f"{option}: distilora x has no such option; {hint}"


def test_texts_that_look_like_options(parser: Parser) -> None:
    words = ["--output", "y", "RUN", "-- a fine film", "-1", "--", "--out", "-x"]
    assert parser.parse_args(words).texts == ["-- a fine film", "-1", "--out", "-x"]
    assert parser.parse_intermixed_args(["RUN", "--output", "y", "--so dull", "-1"]).texts == ["--so dull", "-1"]


def test_what_argparse_objects_to_is_one_line(parser: Parser) -> None:
    with pytest.raises(ConfigError, match=r"^the following arguments are required: --output; see distilora x --help$"):
        parser.parse_args(["RUN", "a text"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "jax"], "--backend: 'jax' given, auto, torch, onnx, openvino wanted"),
        (["--abstain-below", "half"], "--abstain-below: 'half' given, a number wanted; see distilora x --help"),
        (["--limit", "1.5"], "--limit: '1.5' given, a whole number wanted; see distilora x --help"),
        (["--limit"], "--limit: nothing given, a value wanted; see distilora x --help"),
        (["--backend=jax", "--limit", "x"], "--backend: 'jax' given, auto, torch, onnx, openvino wanted"),
    ],
)
def test_an_objection_names_the_option_and_what_it_accepts(words: list[str], message: str, parser: Parser) -> None:
    parser.add_argument("--limit", type=int)
    for parse in (parser.parse_args, parser.parse_intermixed_args):
        with pytest.raises(ConfigError) as caught:
            parse(["RUN", "--output", "y", *words])
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("abstain_below: 2 given", "--abstain-below: 2 given"),
        ("text-column: no column 'y'", "--text-column: no column 'y'"),
        ("x.device: there is none", "--device: there is none"),
        ("data.label_column: there is none", "data.label_column: there is none"),
        ("--device: there is none", "--device: there is none"),
        ("output: no such run", "output: no such run"),  # a folder of that name
        ("limit: no option of x", "limit: no option of x"),
        ("text 1: the text is blank", "text 1: the text is blank"),
    ],
)
def test_a_field_is_named_as_the_option_it_is_given_by(message: str, named: str, parser: Parser) -> None:
    with pytest.raises(DataError) as caught, parser.naming_options(["output", "a text", "--output", "y"]):
        raise DataError(message)
    assert str(caught.value) == named


def test_help_has_the_options_of_every_command(parser: Parser) -> None:
    text = parser.format_help()
    assert "--threads N" in text
    assert "--quiet" in text
