"""Settings: recipes and flags of the right type come through, anything else is an error that names the key and the fix."""

import ast
import inspect
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from distilora.config import schema as module
from distilora.config.descriptions import help_text
from distilora.config.measuring import MeasureConfig
from distilora.config.parse import known_keys, parse, read_recipe, read_recorded, to_tree
from distilora.config.schema import DataConfig, RunConfig
from distilora.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def refusal(flags: tuple[str, ...] = (), recipe: dict | None = None, config: type = RunConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(config, flags, recipe)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("flag", "value", "found"),
    [
        ("training.epochs", "7", 7),
        ("training.learning_rate", "3e-4", 3e-4),
        ("training.schedule", "cosine", "cosine"),
        ("training.head_learning_rate", "null", None),
        ("training.head_learning_rate", "0.1", 0.1),
        ("data.strict", "true", True),
        ("data.train_size", "null", None),
        ("data.train_size", "500", 500),
        ("data.labels", "[bad,good]", ("bad", "good")),
        ("data.labels", '["1","2"]', ("1", "2")),
        ("data.path", "123", "123"),
        ("data.text_column", "true", "true"),
        ("adapter.targets", "query_value", "query_value"),
        ("adapter.targets", "[q_lin,v_lin]", ("q_lin", "v_lin")),
    ],
)
def test_flags_take_their_type(flag: str, value: str, found: object) -> None:
    stage, name = flag.split(".")
    for flags in ((f"--{flag}", value), (f"--{flag}={value}",)):
        given = getattr(getattr(parse(RunConfig, flags), stage), name)
        assert given == found
        assert type(given) is type(found)


def test_nothing_given_is_the_defaults() -> None:
    assert parse(RunConfig) == RunConfig()


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("training.epochs", "two", "a whole number"),
        ("training.epochs", 1.5, "a whole number"),
        ("training.learning_rate", "fast", "a number or null"),
        ("training.dropout", "much", "a number or null"),
        ("training.device", "gpu", "one of auto, cpu, cuda, mps"),
        ("data.strict", "maybe", "true or false"),
        ("data.labels", "neg", "a list of names such as [a,b] or null"),
        ("adapter.targets", "some", "one of all, attention, query_value or a list of names such as [a,b]"),
    ],
)
def test_a_wrong_type_says_what_is_wanted(key: str, value: object, wanted: str) -> None:
    stage, name = key.split(".")
    expected = f"{key}: {value} given, {wanted} wanted"
    assert refusal((f"--{key}", str(value))) == expected
    assert refusal(recipe={stage: {name: value}}) == expected


@pytest.mark.parametrize("key", ["training.epochs", "training.device", "data.path", "data.strict", "adapter.targets"])
def test_null_only_where_the_run_decides(key: str) -> None:
    stage, name = key.split(".")
    assert refusal(recipe={stage: {name: None}}).startswith(f"{key}: null given, ")
    assert parse(RunConfig, (), {"data": {"train_size": None}}).data.train_size is None


def test_a_stage_is_no_setting() -> None:
    assert refusal(("--data", "x.csv")).endswith("give one of its settings, such as --data.path")
    assert refusal(recipe={"training": None}) == "training: None given, settings of that stage wanted"
    assert refusal(recipe={"training": 3}) == "training: 3 given, settings of that stage wanted"


def test_a_flag_without_its_value() -> None:
    assert refusal(("--training.epochs",)) == "training.epochs: nothing given, a whole number wanted"


def test_a_stray_word_is_named() -> None:
    assert refusal(("stray",)) == "unrecognized arguments: stray; a setting is given as --stage.field value"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("training.epoch", "training.epochs"),
        ("training.lr_rate", "training.learning_rate"),
        ("trainning.epochs", "training.epochs"),
        ("epochs", "training.epochs"),
        ("adapter.rank", "adapter.r"),
        ("xyzzy", None),
    ],
)
def test_an_unknown_key_names_the_nearest(given: str, meant: str | None, tmp_path: Path) -> None:
    hint = f"; did you mean {{}}{meant}?" if meant else None
    flag = refusal((f"--{given}", "1"))
    *stages, name = given.split(".")
    tree: object = 1
    for part in reversed([*stages, name]):
        tree = {part: tree}
    with pytest.raises(ConfigError) as caught:
        read_recipe(write(tmp_path, yaml.safe_dump(tree)))
    assert flag.startswith(f"--{given}: there is no such setting")
    assert "there is no such setting" in str(caught.value)
    if hint:
        assert flag.endswith(hint.format("--"))
    if hint and stages != ["trainning"]:  # there the stage itself is unknown, and its key is named
        assert str(caught.value) == f"{given}: there is no such setting{hint.format('')}"
    elif hint:
        assert str(caught.value) == "trainning: there is no such setting; did you mean training?"


def test_flags_win_over_the_recipe() -> None:
    recipe = {"output": "runs/a", "training": {"epochs": 1, "seed": 3}, "data": {"labels": ["a", "b"]}}
    config = parse(RunConfig, ("--training.epochs", "2", "--data.labels=null"), recipe)
    assert (config.output, config.training.epochs, config.training.seed) == ("runs/a", 2, 3)
    assert config.data.labels is None
    assert recipe["training"] == {"epochs": 1, "seed": 3}  # read, not written to


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"data": {"heldout": 1.0}}, "data.heldout"),
        ({"data": {"heldout": -0.1}}, "data.heldout"),
        ({"data": {"validation_size": 1}}, "data.validation_size"),
        ({"data": {"max_length": 7}}, "data.max_length"),
        ({"data": {"train_size": 1}}, "data.train_size"),
        ({"data": {"labels": ["a"]}}, "data.labels"),
        ({"data": {"labels": ["a", "a"]}}, "data.labels"),
        ({"data": {"test_split": "heldout", "heldout": 0.0}}, "data.heldout"),
        ({"data": {"test_split": "none", "test_path": "t.csv"}}, "data.test_path"),
        ({"data": {"test_split": "heldout", "test_path": "t.csv"}}, "data.test_path"),
        ({"data": {"order_column": "id"}}, "data.order_column"),
        ({"data": {"unlabelled_split": "unsupervised"}}, "data.unlabelled_split"),
        ({"data": {"train_split": "all", "validation_split": "all"}}, "data.validation_split"),
        ({"adapter": {"r": 0}}, "adapter.r"),
        ({"adapter": {"alpha": 0.0}}, "adapter.alpha"),
        ({"adapter": {"dropout": 1.0}}, "adapter.dropout"),
        ({"adapter": {"last_blocks": 0}}, "adapter.last_blocks"),
        ({"training": {"epochs": 0}}, "training.epochs"),
        ({"training": {"update_size": 0}}, "training.update_size"),
        ({"training": {"validations": 0}}, "training.validations"),
        ({"training": {"checkpoint_every": 0}}, "training.checkpoint_every"),
        ({"training": {"learning_rate": 0.0}}, "training.learning_rate"),
        ({"training": {"learning_rate": 1e39}}, "training.learning_rate"),  # no float32: AdamW would end in a traceback
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate"),
        ({"training": {"max_grad_norm": 0.0}}, "training.max_grad_norm"),
        ({"training": {"head_learning_rate": 0.0}}, "training.head_learning_rate"),
        ({"training": {"token_budget": 7}}, "training.token_budget"),
        ({"training": {"weight_decay": -0.1}}, "training.weight_decay"),
        ({"training": {"warmup": 1.1}}, "training.warmup"),
        ({"training": {"dropout": 1.0}}, "training.dropout"),
        ({"training": {"patience": 0}}, "training.patience"),
        ({"training": {"threads": 0}}, "training.threads"),
        ({"evaluation": {"token_budget": 7}}, "evaluation.token_budget"),
        ({"evaluation": {"bootstrap": 99}}, "evaluation.bootstrap"),
        ({"evaluation": {"mistakes": -1}}, "evaluation.mistakes"),
    ],
)
def test_values_out_of_range_or_at_odds(tree: dict, named: str) -> None:
    assert refusal(recipe=tree).startswith(f"{named}: ")


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--data.labels=[bad,good]", "--adapter.targets=[q_lin,v_lin]", "--training.learning_rate=1e-5"),
        ('--data.labels=["1","2"]', "--data.text_column=true", "--data.name=123", "--output=runs/ü: x"),
        ("--training.dropout=0.1", "--training.patience=2", "--adapter.last_blocks=1", "--data.strict=true"),
    ],
)
def test_a_config_survives_yaml(flags: tuple[str, ...], tmp_path: Path) -> None:
    config = parse(RunConfig, flags)
    path = write(tmp_path, yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True))
    assert parse(RunConfig, (), read_recipe(path)) == config


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(recipe: Path) -> None:
    assert parse(RunConfig, (), read_recipe(recipe)) != RunConfig()


def test_yaml_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 reads 5e-4 as text."""
    recipe = read_recipe(write(tmp_path, "training: {learning_rate: 5e-4}"))
    assert parse(RunConfig, (), recipe).training.learning_rate == 5e-4


def test_an_empty_recipe_is_the_defaults(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, "# nothing yet\n")) == {}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("training: {epochs: 1", "is not YAML"),
        ("a: b: c", "is not YAML"),
        ("- training", "must hold settings"),
        ("training", "must hold settings"),
        ("1: 2", "must hold settings"),
    ],
)
def test_a_recipe_that_is_none(text: str, part: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=part) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_of_other_bytes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes("data: {path: 'caf\u00e9.csv'}".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not YAML"):
        read_recipe(path)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.yaml \(No such file or directory\)"):
        read_recipe(tmp_path / "nowhere.yaml")


def docstrings() -> dict[str, str]:
    """Docstring of each setting of a run by its dotted name, from the source."""
    stages = {"data": "DataConfig", "encoder": "EncoderConfig", "adapter": "AdapterConfig"}
    stages |= {
        "training": "TrainingConfig",
        "distillation": "DistillationConfig",
        "summary": "SummaryConfig",
        "generation": "GenerationConfig",
        "evaluation": "EvaluationConfig",
    }
    stages[""] = "RunConfig"
    classes = {node.name: node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)}
    texts = {}
    for stage, name in stages.items():
        body = classes[name].body
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                key = f"{stage}.{field.target.id}".lstrip(".")
                texts[key] = text.value.value
    return texts


def test_help_names_every_setting_with_its_docstring() -> None:
    shown = "".join(help_text(RunConfig, "usage", {}).split())
    described = docstrings()
    nested = ("data", "encoder", "adapter", "training", "distillation", "summary", "generation", "evaluation")
    settings = {key for key in known_keys(RunConfig) if key not in nested}
    assert set(described) == settings
    missing = [k for k, text in described.items() if f"--{k}" not in shown or "".join(text.split()) not in shown]
    assert missing == []


def test_evaluate_has_settings_of_its_own() -> None:
    config = parse(MeasureConfig, ("--data.path", "x.csv", "--data.split", "dev"))
    assert (config.data.path, config.data.split) == ("x.csv", "dev")
    assert refusal(("--data.train_split", "x"), config=MeasureConfig).startswith("--data.train_split: there is no such")


def test_stages_are_frozen() -> None:
    with pytest.raises(AttributeError):
        DataConfig().path = "x"


def test_validation_that_an_earlier_release_carved_out(tmp_path: Path) -> None:
    for recorded, read in (("null", "carved"), ("validation", "validation")):
        (tmp_path / "run.yaml").write_text(f"data: {{path: mine, validation_split: {recorded}}}\n")
        assert read_recorded(tmp_path / "run.yaml") == {"data": {"path": "mine", "validation_split": read}}
