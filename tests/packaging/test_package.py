"""What is published works by itself: wheel and sdist hold what they should and run in an empty environment without extras."""

import email
import email.message
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
EXTRAS = {"torch", "transformers", "peft", "accelerate", "scikit-learn", "matplotlib", "onnxruntime", "pyarrow"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True, timeout=60)
    return folder


def wheel_names(dist: Path) -> set[str]:
    (path,) = dist.glob("*.whl")
    return set(zipfile.ZipFile(path).namelist())


def sdist_names(dist: Path) -> set[str]:
    """Names in the sdist, its top folder aside."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def metadata(dist: Path) -> email.message.Message:
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def source_names() -> set[str]:
    """Every file of the package in the checkout, relative to src/."""
    files = (ROOT / "src" / "distilora").rglob("*")
    return {
        file.relative_to(ROOT / "src").as_posix()
        for file in files
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".tmp"
    }


def test_the_wheel_is_the_package_and_no_more(dist: Path) -> None:
    names = {name for name in wheel_names(dist) if ".dist-info/" not in name}
    assert names == source_names()
    assert "distilora/py.typed" in names
    assert len([name for name in names if Path(name).name == "report.html.j2"]) == 1


def test_the_sdist_holds_what_its_tests_need(dist: Path) -> None:
    names = sdist_names(dist)
    assert {name.removeprefix("src/") for name in names if name.startswith("src/")} == source_names()
    needed = {"tests", "bench", "recipes", "docs", "constraints.txt", "LICENSE"}
    assert {name.partition("/")[0] for name in names} >= needed
    assert {f"recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")} <= names
    assert not [name for name in names if name.startswith(("results/", "runs/", ".git/")) or "__pycache__" in name]
    shipped = "src/distilora/shipped/"  # the only weights in it
    assert not [name for name in names if name.endswith(".safetensors") and not name.startswith(shipped)]


def test_a_type_checker_is_told(dist: Path) -> None:
    assert "Typing :: Typed" in (metadata(dist).get_all("Classifier") or [])


@pytest.mark.parametrize("form", ["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
def test_an_empty_environment(dist: Path, form: str, tmp_path: Path) -> None:
    (package,) = dist.glob(form)
    venv.create(tmp_path / "venv", with_pip=True)
    python, distilora = (str(tmp_path / "venv" / "bin" / name) for name in ("python", "distilora"))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, env=CLEAN, cwd=tmp_path, timeout=60)

    install = [python, "-m", "pip", "install", "-q", "--only-binary", ":all:", "-c", str(ROOT / "constraints.txt")]
    digest = hashlib.sha256(package.read_bytes()).hexdigest()  # without it pip may take an older build of this path
    exactly = f"{package.as_uri()}#sha256={digest}"
    subprocess.run([*install, exactly], check=True, env=CLEAN, cwd=tmp_path, timeout=300)
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json").stdout)
    assert not {each["name"].lower() for each in listed} & EXTRAS

    assert run(distilora, "--version").stdout == f"distilora {metadata(dist)['Version']}\n"
    usage = run(distilora, "--help")
    assert (usage.returncode, usage.stderr) == (0, "")
    listing = usage.stdout.partition("commands:")[2].partition("\n\n")[0]
    commands = set(re.findall(r"^  ([a-z]+) ", listing, re.MULTILINE))
    assert {"train", "evaluate", "predict", "export"} <= commands
    for command in commands:
        told = run(distilora, command, "--help")
        assert (told.returncode, told.stderr) == (0, ""), command
        assert f"distilora {command}" in told.stdout

    (tmp_path / "reviews.csv").write_text("text,label\n" + "superb,pos\ndull,neg\n" * 20, "utf-8")
    train = run(distilora, "train", "--data.path", "reviews.csv", "--output", "run")
    assert train.returncode == 2
    assert re.fullmatch(r"distilora: .* pip install 'distilora\[train\]'.*\n", train.stderr)
    assert not (tmp_path / "run").exists()
