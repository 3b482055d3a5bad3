"""Shards on Ray Data: a dataset of shard numbers, mapped by a pool of actors that each hold the model.

An actor does with a shard what the local engine does, so the same files come out. Only counts travel back. The model's
folder travels to the actors through Ray's object store; the encoder that it names must be found on every machine.
"""

import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distilora import hardware
from distilora.artifact.format import Artifact
from distilora.errors import DistiloraError, EngineError, MissingExtra
from distilora.files.stores import Place
from distilora.hardware import flags
from distilora.progress import quiet, say
from distilora.scoring.job import Scoring
from distilora.scoring.shards import Plan, Shard
from distilora.tasks.file import use_task_file, used_task_file

OBJECTS = 128 << 20  # bytes of a local cluster's object store, beside the model's
BAD = (
    ConnectionError,
    RuntimeError,
    ValueError,
    TimeoutError,
)  # what ray.init raises for a cluster that does not answer


def score_shards(settings: Scoring, artifact: Artifact, plan: Plan, todo: Sequence[Shard]) -> Iterator[int]:
    """Computes the shards on a cluster; yields their numbers as they are finished.

    A worker that is lost is started again, with the shards it had (Ray Data's default: any number of times). Raises
    MissingExtra without Ray, EngineError for a cluster that fails, and what a worker met as a DistiloraError.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # of a cluster started here; no word to anyone that was not asked for
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's own log lines say nothing about rows
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra(error.name or "ray", "ray") from None
    model = {name: (artifact.folder / name).read_bytes() for name in ["artifact.json", *artifact.files]}
    with _cluster(ray, settings, sum(map(len, model.values()))):
        threads = _threads(ray, settings)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # ours is there
        job = {
            "settings": settings, "plan": plan.tree(), "model": ray.put(model), "threads": threads, "folder": str(Path.cwd()),
            "task_file": used_task_file(),
        }  # fmt: skip
        numbers = ray.data.from_items([shard.number for shard in todo], override_num_blocks=len(todo))
        results = numbers.map_batches(
            Worker,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(settings.pool, len(todo)), max_tasks_in_flight_per_actor=2),
            num_cpus=threads if settings.address else 1,
            num_gpus=1 if settings.device == "cuda" else 0,
        )
        processors: set[str] = set()
        try:
            for result in results.iter_rows():
                if result["error"]:
                    raise DistiloraError(str(result["error"]))
                if settings.precision == "int8" and result["processor"] not in processors:
                    processors.add(str(result["processor"]))
                    _say_if_mixed(processors)
                yield int(result["shard"])
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise EngineError(f"--engine: Ray failed ({reason}); mend that, then give the same command again") from None


def _say_if_mixed(processors: set[str]) -> None:
    """Low precision rounds otherwise on another kind of processor."""
    if len(processors) > 1:
        say(
            f"note: int8 on processors of {len(processors)} kinds ({'; '.join(sorted(processors))}): last digits differ"
        )


class Worker:
    """Holds the model and computes shards: a batch of numbers in, a batch of what was done out."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.scorer: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Errors for the user are returned: one that is raised would come back wrapped in Ray's."""
        done: dict[str, list[Any]] = {"shard": [], "error": [], "processor": []}
        for number in batch["item"]:
            done["shard"].append(int(number))
            done["processor"].append(" ".join(flags()) or "unknown flags")
            try:
                self.scorer = self.scorer or self._open()
                self.scorer(self.scorer.plan.shards[int(number)])
                done["error"].append("")
            except DistiloraError as error:
                done["error"].append(str(error))
        return done

    def _open(self) -> Any:
        import ray

        from distilora.scoring.score import load_alike
        from distilora.scoring.scorer import Scorer

        quiet()
        if Path(self.job["folder"]).is_dir():  # relative paths mean what they mean where the command was given
            os.chdir(self.job["folder"])
        hardware.use_threads(self.job["threads"])
        if self.job["task_file"]:
            use_task_file(self.job["task_file"])
        settings: Scoring = self.job["settings"]
        with tempfile.TemporaryDirectory(prefix="distilora-") as folder:
            for name, content in ray.get(self.job["model"]).items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            # Weights may stay mapped from their files, which Linux and macOS keep for as long as they are.
            predictor = load_alike(folder, settings)
        return Scorer(predictor, Plan.of(self.job["plan"]), Place(settings.output), settings.kind)


@contextmanager
def _cluster(ray: Any, settings: Scoring, size: int) -> Iterator[None]:
    """The cluster at the address, or one of this process's own, ended with it."""
    ours = not ray.is_initialized()
    try:
        if ours and settings.address:
            _answers(settings.address)
            ray.init(address=settings.address, log_to_driver=False, logging_level=logging.ERROR)
        elif ours:
            ray.init(
                address="local", num_cpus=settings.pool, include_dashboard=False, log_to_driver=False,
                logging_level=logging.ERROR, object_store_memory=OBJECTS + 2 * size,
            )  # fmt: skip
    except BAD as error:
        where = f"the cluster at {settings.address}" if settings.address else "a local cluster"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EngineError(f"--engine: Ray cannot reach or start {where} ({reason}); check --address") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _answers(address: str) -> None:
    """Raises OSError if nobody listens at HOST:PORT, where Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _threads(ray: Any, settings: Scoring) -> int:
    """Threads of a worker: as many as `--threads` says, else an equal share of the cores.

    On a cluster no more than that share, nor than the smallest machine has: Ray would wait for cores that never come.
    """
    if not settings.address:
        return hardware.threads(max(1, hardware.cores() // settings.pool))
    held = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    share = max(1, min(sum(held) // settings.pool, min(filter(None, held), default=1)))
    return min(share, hardware.threads(share))
