"""Puts a service together: models loaded by name, the service of them, the application with all its routes."""

from fastapi import FastAPI

from distilora.serving.app import application
from distilora.serving.corrections import corrections
from distilora.serving.pool import Pool
from distilora.serving.service import Service
from distilora.serving.settings import Settings
from distilora.serving.traces import open_traces
from distilora.tasks.base import Task


def assemble(settings: Settings) -> tuple[Service, FastAPI]:
    """Load the models; return the service and its application. Raises what `Pool.add` raises."""
    pool = Pool(settings.precision)
    for name, folder in settings.runs.items():
        pool.add(name, folder)
    service = Service(
        pool, settings.limits, settings.keys, settings.admin_keys, origins=settings.origins,
        log_requests=settings.log_requests, corrections=settings.corrections is not None, on_ray=settings.on_ray,
        traces=open_traces(settings.otlp_endpoint) if settings.otlp_endpoint else None,
    )  # fmt: skip

    def model(name: str | None) -> tuple[str, Task]:
        chosen = pool.get(name)
        return chosen.name, chosen.predictor.task

    return service, application(service, corrections(settings.corrections, model, settings.limits))
