"""One writer to a folder: whoever comes second is told so, and what a killed process leaves is no hindrance."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.stopping import no_fresh_process, temporary, told, write_recipe
from support.tiny import tiny_config

from distilora import progress
from distilora.cli.main import main
from distilora.errors import ConfigError, Interrupted, OutputError
from distilora.files.locks import LOCK, hold, let_go
from distilora.runs.folder import MARK, check_output, claim
from distilora.runs.run import Run, train

COMMAND = [sys.executable, "-m", "distilora"]
HOLD = "import sys, pathlib, distilora.files.locks; distilora.files.locks.hold(pathlib.Path(sys.argv[1]))"
RACE = """
import multiprocessing, sys
from pathlib import Path
from distilora.errors import DistiloraError
from distilora.runs.folder import check_output, claim

overwrite, resume = "overwrite" in sys.argv, "resume" in sys.argv

def race(folder, start, end, won):
    start.wait()
    try:
        check_output(folder, overwrite, resume)
        claim(folder, overwrite, resume)
        won.put(folder.name)
    except DistiloraError:
        pass
    finally:
        end.wait()  # whoever has it keeps it until all have tried

context = multiprocessing.get_context("fork")
won = context.SimpleQueue()
for number in range(15):
    folder = Path(sys.argv[1]) / str(number)
    if overwrite or resume:
        folder.mkdir()
        (folder / "run.yaml").write_text("{output: x, data: {}, encoder: {}, training: {}}")
        (folder / "checkpoints").mkdir()
    start, end = context.Barrier(6), context.Barrier(6)
    racers = [context.Process(target=race, args=(folder, start, end, won)) for _ in range(6)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    print(number, won.get(), won.empty())
"""


@pytest.fixture(autouse=True)
def loud_again() -> Iterator[None]:
    yield
    progress.quiet(False)


@pytest.fixture
def former(tmp_path: Path, finished: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "former")


def held_elsewhere(folder: Path) -> str:
    """What another process says that wants to hold the folder; nothing if it can."""
    done = subprocess.run([sys.executable, "-c", HOLD, str(folder)], stderr=subprocess.PIPE, text=True, timeout=60)
    return done.stderr.strip().split("\n")[-1]


def test_those_that_come_second_are_refused_and_the_first_is_not_disturbed(
    finished: Path, encoder: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distilora.training import loop as fit

    out = tmp_path / "run"
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_config(out, reviews, encoder, training__checkpoint_every=5))
    steps, step = iter(range(10**6)), fit.make_update
    said = []

    def count(*words: object) -> tuple[float, float]:
        if next(steps) == 20:
            commands = [[recipe, "--overwrite"], ["--resume", str(out)], [recipe]]
            seconds = [subprocess.Popen([*COMMAND, "train", *c], stderr=subprocess.PIPE, text=True) for c in commands]
            said.extend((second.communicate(timeout=30)[1], second.returncode) for second in seconds)
        return step(*words)

    monkeypatch.setattr(fit, "make_update", count)
    no_fresh_process(monkeypatch)
    assert main(["train", recipe]) == 0
    busy = f"distilora: output: another process is writing {out}; wait for it, stop it, or give another --output\n"
    assert said == [(busy, 2)] * 3
    assert told(out) == told(finished)
    assert temporary(out) == []


@pytest.mark.slow
def test_two_start_together_and_the_one_that_runs_is_killed(
    finished: Path, encoder: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    config = tiny_config(out, reviews, encoder, training__checkpoint_every=1)
    recipe = write_recipe(tmp_path / "recipe.yaml", config)
    two = [
        subprocess.Popen([*COMMAND, "--quiet", "train", recipe], stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    deadline = time.monotonic() + 120
    while all(process.poll() is None for process in two) and time.monotonic() < deadline:
        time.sleep(0.01)
    refused, runs = sorted(two, key=lambda process: process.poll() is None)
    said = refused.communicate(timeout=1)[1]
    assert (refused.returncode, said.count("\n")) == (2, 1), said
    assert said.startswith(f"distilora: output: another process is writing {out};")
    while not list(out.glob("checkpoints/0*")) and runs.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    runs.kill()
    assert runs.communicate(timeout=60)[1] == ""
    assert runs.returncode == -signal.SIGKILL
    assert (out / LOCK).exists()

    for name in (".README.md.123.tmp", ".metrics.json.123.tmp", "checkpoints/.00000099.123.old.tmp"):
        (out / name).write_text("torn")
    for name in (".model.123.tmp", "checkpoints/.00000099.123.tmp"):
        (out / name / "adapter").mkdir(parents=True)
    no_fresh_process(monkeypatch)
    assert main(["train", "--resume", str(out)]) == 0
    assert temporary(out) == []
    assert sorted(path.name for path in out.iterdir() if path.name != "events") == sorted(
        path.name for path in finished.iterdir() if path.name != "events"
    )
    assert told(out) == told(finished)


@pytest.mark.parametrize("how", ["", "overwrite", "resume"])
def test_of_many_that_start_together_one_has_it(tmp_path: Path, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", RACE, str(tmp_path), how], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == [f"{number} {number} True" for number in range(15)], done.stderr


def test_it_is_held_until_let_go_of(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    hold(tmp_path)
    hold(tmp_path / "link")  # the same process, the same folder: nothing to wait for
    try:
        assert f"another process is writing {tmp_path};" in held_elsewhere(tmp_path / "link")
    finally:
        let_go(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "link"]
    assert held_elsewhere(tmp_path) == ""
    let_go(tmp_path)


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = HOLD + "; print(flush=True); import time; time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(OutputError, match="another process is writing"):
        hold(tmp_path)
    holder.kill()
    holder.communicate()
    assert (tmp_path / LOCK).exists()
    claim(tmp_path, overwrite=False, resume=False)
    let_go(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / MARK]


def test_a_finished_run_holds_nothing(finished: Path) -> None:
    assert temporary(finished) == []


def test_overwrite_replaces_what_is_of_a_run(
    former: Path, encoder: Path, reviews: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("stray.txt", ".notes.tmp"):
        (former / name).write_text("left by hand")
    (former / "checkpoints" / "00000001").mkdir(parents=True)
    config = tiny_config(former, reviews, encoder, training__epochs=1)
    with Run(config, overwrite=True) as run:
        run.read()
        run.build()
        assert (former / "report.html").exists()  # nothing is touched before there is something to write
        run.fit()
        assert sorted(path.name for path in former.iterdir()) == [
            MARK, LOCK, ".notes.tmp", "checkpoints", "environment.json", "run.yaml", "stray.txt"
        ]  # fmt: skip
        assert f"note: {former}: .notes.tmp, stray.txt: not part of a run, left unchanged\n" in capsys.readouterr().err
        assert sorted(path.name for path in (former / "checkpoints").iterdir()) == ["00000008", "00000015"]
    assert not (former / LOCK).exists()


def test_overwrite_killed_at_any_file_can_be_had_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distilora.runs import folder

    class Killed(BaseException):
        pass

    remove = folder._remove
    for deaths in range(len(list(finished.iterdir()))):
        former = shutil.copytree(finished, tmp_path / str(deaths))
        left = iter(range(deaths))

        def mortal(path: Path, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise Killed
            remove(path)

        with monkeypatch.context() as patch:
            patch.setattr(folder, "_remove", mortal)
            with pytest.raises(Killed):
                claim(former, overwrite=True, resume=False)
        let_go(former)
        check_output(former, overwrite=True, resume=False)
        claim(former, overwrite=True, resume=False)
        let_go(former)
        assert list(former.iterdir()) == [former / MARK]


@pytest.mark.parametrize(
    "files",
    [
        {"run.yaml": "output: x\n"},  # as of other tools, too
        {"run.yaml": "output: x\n", "environment.json": "{}"},
        {"run.yaml": "{output: x, data: {}, encoder: {}, training: {}}"},  # one mark
        {"environment.json": '{"versions": {"distilora": "0.1.0"}}'},
        {"run.yaml": "[", ".distilora": '{"holds": "run"}'},
    ],
    ids=str,
)
def test_a_folder_without_two_marks_is_not_overwritten(files: dict[str, str], tmp_path: Path) -> None:
    for name, text in {"thesis.txt": "precious", **files}.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="holds something other than a run and is not overwritten"):
        check_output(tmp_path, overwrite=True, resume=False)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_some_folders_are_never_overwritten(former: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path, why: str) -> None:
        with pytest.raises(ConfigError, match=f"^output: .* {why} and is never overwritten; give another folder$"):
            claim(folder, overwrite=True, resume=False)
        let_go(folder)

    before = sorted(former.rglob("*"))
    monkeypatch.chdir(former)
    refused(Path(), "is the working directory")
    monkeypatch.chdir(former / "model")
    refused(Path(".."), "holds the working directory")
    monkeypatch.chdir(former.parent)
    monkeypatch.setenv("HOME", str(former))
    refused(former, "is your home")
    monkeypatch.setenv("HOME", str(former / "model"))
    refused(former, "holds your home")
    monkeypatch.delenv("HOME")
    (former / ".git").touch()  # a work tree of git's has a file of that name
    refused(former, r"holds a \.git")
    (former / ".git").unlink()
    assert sorted(former.rglob("*")) == before
    check_output(former, overwrite=True, resume=False)


@pytest.mark.parametrize("kept", [{"model"}, {"checkpoints"}, {"environment.json"}])
def test_runs_of_earlier_versions_are_known(kept: set[str], former: Path, tmp_path: Path) -> None:
    (former / "checkpoints").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (former / "evaluations").symlink_to(outside)
    for name in {MARK, "model", "checkpoints", "environment.json"} - kept:
        shutil.rmtree(former / name) if (former / name).is_dir() else (former / name).unlink()
    claim(former, overwrite=True, resume=False)
    let_go(former)
    assert list(former.iterdir()) == [former / MARK]
    assert (outside / "precious").exists()  # a link goes, not what it leads to


def test_killed_before_it_was_known_as_a_run(tmp_path: Path) -> None:
    for name in (LOCK, ".run.yaml.123.tmp"):
        (tmp_path / name).write_text("")
    check_output(tmp_path, overwrite=False, resume=False)
    claim(tmp_path, overwrite=False, resume=False)
    let_go(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / MARK]


def test_a_run_that_cannot_begin_leaves_no_lock(former: Path, encoder: Path, reviews: Path, tmp_path: Path) -> None:
    for folder, overwrite in ((former, True), (tmp_path / "new", False)):
        with pytest.raises(ConfigError, match=r"data\.max_length"):
            Run(tiny_config(folder, reviews, encoder, data__max_length=600), overwrite=overwrite)
    assert not (former / LOCK).exists()
    assert not (tmp_path / "new").exists()
    assert held_elsewhere(former) == ""


def test_a_run_that_fails_leaves_no_lock(
    encoder: Path, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    config = tiny_config(out, reviews, encoder, training__learning_rate=1e29)
    assert main(["--quiet", "train", write_recipe(tmp_path / "recipe.yaml", config)]) == 2
    assert re.match(r"distilora: training\.learning_rate: the .* not finite", capsys.readouterr().err)
    assert temporary(out) == []


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written; root writes where others may not, but not on a read-only mount."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    if os.geteuid():
        yield folder
        return
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"root writes everywhere, and nothing can be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("below", ["", "run", "a/file/run"])
def test_a_folder_that_cannot_be_written(
    below: str, closed: Path, encoder: Path, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = closed / below
    if "file" in below:
        out = tmp_path / below
        out.parent.parent.mkdir()
        out.parent.write_text("in the way")
    config = tiny_config(out, reviews, encoder)
    assert main(["--quiet", "train", write_recipe(tmp_path / "recipe.yaml", config)]) == 2
    line = capsys.readouterr().err
    assert re.fullmatch(
        rf"distilora: output: {re.escape(str(out))} cannot be (written|created) \(.+\); give .+\n", line
    )


def test_stages_are_called_in_order(encoder: Path, reviews: Path, tmp_path: Path) -> None:
    run = Run(tiny_config(tmp_path / "run", reviews, encoder))
    for stage in (run.fit, run.save, run.evaluate, run.finish):
        with pytest.raises(AttributeError, match=r"^\w+: is there after \w+\(\); call that first$"):
            stage()
    assert not (tmp_path / "run").exists()


def test_an_interrupt_after_training_says_how_to_go_on(
    encoder: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distilora.runs.run.verified", interrupted)
    with pytest.raises(
        Interrupted, match=f"^stopped; continue with: distilora train --resume {tmp_path / 'run'}$"
    ) as error:
        train(tiny_config(tmp_path / "run", reviews, encoder, training__epochs=1))
    assert error.value.exit_code == 130
