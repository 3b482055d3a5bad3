"""Reads what a foreign Transformers classifier says of its labels."""

from collections.abc import Mapping
from typing import Any

from distilora.errors import ArtifactError


def transformers_labels(config: Mapping[str, Any], name: str) -> list[str] | None:
    """Read the labels of a classifier's config.json, in order; None if it is not of a classifier.

    Raises ArtifactError for a classifier of a number or of several labels at once; KeyError, ValueError or TypeError if the
    labels are damaged.
    """
    if not any(str(kind).endswith("ForSequenceClassification") for kind in config.get("architectures") or ()):
        return None
    numbered = config.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}
    names = {int(place): str(label) for place, label in numbered.items()}
    labels = [names[place] for place in range(len(names))]
    if len(labels) < 2 or config.get("problem_type") in ("regression", "multi_label_classification"):
        raise ArtifactError(
            f"{name}: gives a number or several labels at once, which distilora does not; give another model"
        )
    return labels
