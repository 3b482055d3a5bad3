"""Administration, with keys of its own: models are added, replaced and removed while others answer.

Without a file of admin keys the routes do not exist. A model is loaded and checked before it takes the name; one at a time.
"""

import asyncio
import logging
import re
import time
from pathlib import Path

from fastapi import APIRouter, Request, Response

from distilora.artifact.shipped import shipped_folder
from distilora.errors import ConfigError, DistiloraError
from distilora.serving import cards, fields, shapes
from distilora.serving.bodies import parsed, read_body
from distilora.serving.logs import log
from distilora.serving.names import check_name
from distilora.serving.refusals import (
    Invalid,
    NotLoaded,
    TooLarge,
    TooSlow,
    Unauthorised,
    UnknownModel,
    Unsupported,
)  # fmt: skip
from distilora.serving.replies import reply
from distilora.serving.service import Service, call_of


class PutRequest(shapes.Shape):
    """The folder of a finished run, or an export, on the server."""

    folder: str


class Removed(shapes.Shape):
    """The name that was removed."""

    removed: str


def routes(service: Service) -> APIRouter:
    """Create the routes."""
    router = APIRouter(tags=["administration"])
    changing = asyncio.Lock()

    @router.put(
        "/admin/models/{name}",
        summary="Add or replace a model",
        responses={
            200: shapes.given(shapes.ModelCard, "The model, which answers from now on"),
            **shapes.refused(Unauthorised, TooSlow, TooLarge, Unsupported, Invalid, NotLoaded),
        },
        openapi_extra=shapes.body(PutRequest, {"a run": {"folder": "runs/reviews"}}),
    )
    async def put(request: Request, name: str) -> Response:
        raw = await read_body(request, service.limits, service.deadline(call_of(request)) - time.monotonic())
        body = fields.known(parsed(raw, service.limits.json_depth), ("folder",))
        folder = body.get("folder")
        if not isinstance(folder, str) or not folder.strip() or "\0" in folder or len(folder) > 4096:
            raise Invalid("folder: the path of a run's folder wanted", "folder")
        try:
            check_name(name)
        except ConfigError as error:
            raise Invalid(str(error).partition(";")[0] + "; choose another", "name") from None
        await asyncio.to_thread(_check_folder, folder)
        async with changing:
            begun = time.monotonic()
            try:
                model = await asyncio.to_thread(service.pool.add, name, folder)
            except (DistiloraError, OSError) as error:
                raise NotLoaded(f"folder: {_without_paths(str(error), folder)}", "folder") from error
        seconds = round(time.monotonic() - begun, 3)
        log(logging.INFO, "model put", request_id=call_of(request).request_id, model=name, seconds=seconds)
        first = model is service.pool.get(None)
        return reply(await asyncio.to_thread(cards.entry, model, service.limits, first))

    @router.delete(
        "/admin/models/{name}",
        summary="Remove a model",
        responses={
            200: shapes.given(Removed, "It answers no more"), **shapes.refused(Unauthorised, UnknownModel, Invalid)
        },
    )  # fmt: skip
    async def delete(request: Request, name: str) -> Response:
        async with changing:
            try:
                service.pool.remove(name)
            except ConfigError as error:
                raise Invalid(str(error), "name") from None
        log(logging.INFO, "model removed", request_id=call_of(request).request_id, model=name)
        return reply({"removed": name})

    return router


def _check_folder(folder: str) -> None:
    """Raise NotLoaded for what is no folder of this machine, which would be looked for on the Hub, and for an unfinished run."""
    path = Path(folder).expanduser()
    if not path.exists() and shipped_folder(folder) is None:
        raise NotLoaded(
            "folder: the server has no such folder; give the path of a finished run, or of an export", "folder"
        )
    if (path / "model" / "artifact.json").is_file() and not (path / "metrics.json").is_file():
        raise NotLoaded("folder: this run is not finished; finish it with distilora train --resume", "folder")


def _without_paths(message: str, folder: str) -> str:
    """Return the line of an error without the places of the server's disk that it names."""
    for path in {str(Path(folder).expanduser().absolute()), str(Path(folder)), folder}:
        message = re.sub(rf"(?<![\w./-]){re.escape(path)}/(?=\w)", "", message)
        message = re.sub(rf"(?<![\w./-]){re.escape(path)}(?![\w./-])", "it", message)
    return cards.without_paths(message).removeprefix("it: ")
