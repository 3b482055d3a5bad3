"""Renders the HTML pages of this room from their templates, which share one layout (page.html.j2)."""

from pathlib import Path
from typing import Any

from distilora.errors import MissingExtra
from distilora.tasks.metrics.names import difference_text, metric_name, metric_text


def render(template: str, **values: Any) -> str:
    """Render a template of this folder; values are escaped. Raises MissingExtra without jinja2."""
    try:
        import jinja2
    except ImportError:
        raise MissingExtra("jinja2", "train") from None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"metric": metric_text, "metric_name": metric_name, "difference": difference_text}
    return environment.get_template(template).render(**values)
