"""A replica on Ray Serve: the service of a process, behind Ray's proxy, in an actor that Ray replaces when it dies.

command                    board                     replicas
SIGTERM -> leave()    ->   leaving() returns     ->  /readyz says no -> grace -> drained -> left(drained)
waits for outcomes()  <-   one for each replica  <-
"""

import asyncio
import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from distilora.artifact.copies import packed, unpack
from distilora.artifact.find import find_model
from distilora.errors import ConfigError
from distilora.hardware import use_threads
from distilora.progress import quiet
from distilora.serving.assembly import assemble
from distilora.serving.cards import run_folder
from distilora.serving.logs import to_stderr
from distilora.serving.settings import Settings
from distilora.tasks.file import use_task_file


@dataclass(frozen=True)
class Job:
    """What replicas are told.

    `board` is the actor to follow; `copies` refers to the models' files by name where replicas may be on other machines, else it is
    None, and they read the folders themselves.
    """

    settings: Settings
    board: Any
    copies: Any
    threads: int
    folder: str
    task_file: str | None
    log_level: int
    grace: float
    seconds: float


class Board:
    """Ray actor by which the command tells replicas to leave, and they tell how they left."""

    def __init__(self) -> None:
        self._leaving = asyncio.Event()
        self._actors: dict[str, Any] = {}
        self._outcomes: dict[str, bool] = {}

    async def join(self, name: str, actor: Any) -> None:
        """Note a replica that serves from now on, and its actor; return when replicas are to leave."""
        self._actors[name] = actor
        await self._leaving.wait()

    async def leave(self) -> None:
        """Tell all replicas to leave, those that are still to come among them."""
        self._leaving.set()

    async def left(self, name: str, drained: bool) -> None:
        """Note that a replica has left, and whether it answered all that it accepted."""
        self._outcomes[name] = drained

    async def state(self) -> tuple[dict[str, Any], dict[str, bool]]:
        """Return the actors of all replicas that ever served, and how those left that have."""
        return self._actors, self._outcomes


class Replica:
    """The service of a process, for `ray.serve.ingress`."""

    def __init__(self, job: Job) -> None:
        if Path(job.folder).is_dir():  # relative paths refer to the folder of the command
            os.chdir(job.folder)
        use_threads(job.threads)
        if job.task_file:
            use_task_file(job.task_file)
        to_stderr(job.log_level)
        quiet()
        self._job = job
        self._service, self._app = assemble(replace(job.settings, runs=self._folders()))
        threading.Thread(target=self._leave_when_told, daemon=True).start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Ray Serve calls this by its name."""
        return self._app

    async def check_health(self) -> None:
        """Raise RuntimeError if the models do not give their check texts the outputs that they ought to; Ray calls this."""
        if not await self._service.sound():
            raise RuntimeError("the models do not compute what they ought to; the replica's log says how")

    def _folders(self) -> Mapping[str, str]:
        """Return the models' folders on this machine."""
        if self._job.copies is None:
            return self._job.settings.runs
        import ray

        self._folder = tempfile.TemporaryDirectory(prefix="distilora-")  # goes with the replica
        folders = {}
        for name, files in ray.get(self._job.copies).items():
            unpack(files, Path(self._folder.name) / name)
            folders[name] = str(Path(self._folder.name) / name)
        return folders

    def _leave_when_told(self) -> None:
        import ray

        context = ray.get_runtime_context()
        name = context.get_actor_id()
        try:
            ray.get(self._job.board.join.remote(name, context.current_actor))
        except ray.exceptions.RayError:  # the command was killed: the service outlives it, on a cluster that does
            return
        drained = asyncio.run(self._service.stop(self._job.grace, self._job.seconds))
        self._service.close()
        ray.get(self._job.board.left.remote(name, drained))


def carried(runs: Mapping[str, str]) -> dict[str, dict[str, bytes]]:
    """Return the files that models are served from, by name: their folders, with card and figures where a run has them beside.

    Raises ConfigError for a model that is no folder of distilora's.
    """
    models = {}
    for name, folder in runs.items():
        artifact = find_model(folder)
        if not (artifact.folder / "artifact.json").is_file():
            raise ConfigError(
                f"--address: distilora did not save {folder}, and copies none but its own; drop --address"
            )
        files, run = packed(artifact), run_folder(artifact)
        if run != artifact.folder:
            files = {f"{artifact.folder.name}/{file}": content for file, content in files.items()}
            beside = [run / file for file in ("README.md", "metrics.json")]
            files |= {file.name: file.read_bytes() for file in beside if file.is_file()}
        models[name] = files
    return models
