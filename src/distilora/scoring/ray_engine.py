"""Computes shards on Ray Data: a dataset of shard numbers, mapped by a pool of actors that each load the model.

An actor computes a shard as the local engine does, so the files are identical. Only shard numbers and errors are sent back.
On a cluster the model's folder reaches the actors through Ray's object store; the encoder it names must be on every machine.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distilora import hardware
from distilora.artifact.copies import packed, unpack
from distilora.artifact.format import Artifact
from distilora.errors import DistiloraError, EngineError, MissingExtra
from distilora.files.stores import Place
from distilora.hardware import flags
from distilora.progress import quiet, say
from distilora.ray_cluster import cluster_threads, connected, local_threads, silence
from distilora.scoring.job import Scoring
from distilora.scoring.shards import Shard, ShardPlan
from distilora.tasks.file import use_task_file, used_task_file


def score_shards(settings: Scoring, artifact: Artifact, plan: ShardPlan, pending: Sequence[Shard]) -> Iterator[int]:
    """Compute the pending shards on a cluster; yield their numbers as they finish.

    A lost worker is restarted with its shards (Ray Data's default: any number of times). Raises MissingExtra without Ray,
    EngineError if the cluster fails, DistiloraError for an error in a worker.
    """
    silence()
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra(error.name or "ray", "ray") from None
    # actors on this machine read the folder itself: a killed one leaves no copy of it behind
    model = packed(artifact) if settings.address else {}
    with connected(ray, settings.address, settings.pool):
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        threads = cluster_threads(ray, settings.pool) if settings.address else local_threads(settings.pool)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # progress.Progress is shown instead
        job = {
            "settings": settings, "plan": plan.tree(), "model": ray.put(model) if model else None, "threads": threads,
            "folder": str(Path.cwd()), "task_file": used_task_file(),
        }  # fmt: skip
        numbers = ray.data.from_items([shard.number for shard in pending], override_num_blocks=len(pending))
        results = numbers.map_batches(
            Worker,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(settings.pool, len(pending)), max_tasks_in_flight_per_actor=2),
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
            raise EngineError(f"--engine: Ray failed ({reason}); fix that, then give the same command again") from None


def _say_if_mixed(processors: set[str]) -> None:
    """Print a note if there are several kinds of processors, on which int8 rounds differently."""
    if len(processors) > 1:
        say(
            f"note: int8 on processors of {len(processors)} kinds ({'; '.join(sorted(processors))}): last digits differ"
        )


class Worker:
    """Ray actor that loads the model once and maps batches of shard numbers to batches of results."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.scorer: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Compute the shards; return errors as text, since Ray would wrap raised ones in its own."""
        results: dict[str, list[Any]] = {"shard": [], "error": [], "processor": []}
        for number in batch["item"]:
            results["shard"].append(int(number))
            results["processor"].append(" ".join(flags()) or "unknown flags")
            try:
                self.scorer = self.scorer or self._open()
                self.scorer(self.scorer.plan.shards[int(number)])
                results["error"].append("")
            except DistiloraError as error:
                results["error"].append(str(error))
        return results

    def _open(self) -> Any:
        import ray

        from distilora.scoring.score import load_predictor

        quiet()
        if Path(self.job["folder"]).is_dir():  # relative paths refer to the folder of the command
            os.chdir(self.job["folder"])
        hardware.use_threads(self.job["threads"])
        if self.job["task_file"]:
            use_task_file(self.job["task_file"])
        settings: Scoring = self.job["settings"]
        if self.job["model"] is None:
            return self._scorer(load_predictor(settings.run, settings))
        with tempfile.TemporaryDirectory(prefix="distilora-") as folder:
            unpack(ray.get(self.job["model"]), Path(folder))
            # weights may stay mapped from their files; Linux and macOS keep deleted files while they are mapped
            predictor = load_predictor(folder, settings)
            predictor.backend.open()
        return self._scorer(predictor)

    def _scorer(self, predictor: Any) -> Any:
        from distilora.scoring.scorer import Scorer

        settings: Scoring = self.job["settings"]
        return Scorer(predictor, ShardPlan.of(self.job["plan"]), Place(settings.output), settings.kind)
