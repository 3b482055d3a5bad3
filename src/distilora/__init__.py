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
    from distilora.config.measuring import MeasureConfig
    from distilora.config.parse import parse, read_recipe
    from distilora.config.schema import RunConfig
    from distilora.errors import DistiloraError
    from distilora.evaluation.compare import Comparison, compare
    from distilora.evaluation.evaluate import evaluate
    from distilora.explanation.explain import Explanation, explain
    from distilora.export.export import export_run
    from distilora.inference.predictor import Predictor, load
    from distilora.runs.run import Run, train

_HOMES = {
    "RunConfig": "config.schema",
    "MeasureConfig": "config.measuring",
    "parse": "config.parse",
    "read_recipe": "config.parse",
    "DistiloraError": "errors",
    "evaluate": "evaluation.evaluate",
    "Comparison": "evaluation.compare",
    "compare": "evaluation.compare",
    "Predictor": "inference.predictor",
    "load": "inference.predictor",
    "Explanation": "explanation.explain",
    "explain": "explanation.explain",
    "export_run": "export.export",
    "Run": "runs.run",
    "train": "runs.run",
}
__all__ = [
    "Comparison",
    "DistiloraError",
    "Explanation",
    "MeasureConfig",
    "Predictor",
    "Run",
    "RunConfig",
    "compare",
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
