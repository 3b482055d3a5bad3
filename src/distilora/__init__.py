"""distilora: parameter-efficient fine-tuning of small text encoders, from data to a measured, reloadable model.

import distilora

config = distilora.parse(distilora.RunConfig, recipe=distilora.read_recipe("recipes/imdb-embedded.yaml"))
distilora.train(config)
predictor = distilora.load("runs/imdb-embedded")
predictor("A slow start, but the last hour is superb.")
"""

import importlib
from typing import TYPE_CHECKING, Any

from distilora.version import __version__ as __version__

if TYPE_CHECKING:
    from distilora.config import MeasureConfig, RunConfig
    from distilora.errors import DistiloraError
    from distilora.evaluation import evaluate
    from distilora.explanation import Explanation, explain
    from distilora.export import export_run
    from distilora.predict import Predictor, load
    from distilora.run import Run, train
    from distilora.settings import parse, read_recipe

_HOMES = {
    "RunConfig": "config",
    "MeasureConfig": "config",
    "parse": "settings",
    "read_recipe": "settings",
    "DistiloraError": "errors",
    "evaluate": "evaluation",
    "Predictor": "predict",
    "load": "predict",
    "Explanation": "explanation",
    "explain": "explanation",
    "export_run": "export",
    "Run": "run",
    "train": "run",
}
__all__ = [
    "DistiloraError",
    "Explanation",
    "MeasureConfig",
    "Predictor",
    "Run",
    "RunConfig",
    "evaluate",
    "explain",
    "export_run",
    "load",
    "parse",
    "read_recipe",
    "train",
]


def __dir__() -> list[str]:
    """What is public, imported or not yet."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `import distilora` needs neither torch nor time."""
    if name not in _HOMES:
        raise AttributeError(f"module 'distilora' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"distilora.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
