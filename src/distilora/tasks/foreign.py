"""Reads the labels of a foreign Transformers classifier from its config.json."""

from collections.abc import Mapping
from typing import Any

from distilora.errors import ArtifactError


def transformers_labels(config: Mapping[str, Any], name: str) -> list[str] | None:
    """Read the labels of a classifier's config.json, in order; return None if the model is not a classifier.

    Raises ArtifactError for regression and for multi-label classification; KeyError, ValueError or TypeError for malformed
    labels.
    """
    if not any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ()):
        return None
    numbered = config.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}
    names = {int(index): str(label) for index, label in numbered.items()}
    labels = [names[index] for index in range(len(names))]
    if len(labels) < 2 or config.get("problem_type") in ("regression", "multi_label_classification"):
        raise ArtifactError(
            f"{name}: regression and multi-label classification are not supported; give a model that predicts one label of "
            "several"
        )
    return labels
