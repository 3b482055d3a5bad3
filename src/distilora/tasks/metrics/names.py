"""Names and formats of the metrics for the report, the model card and the terminal."""

from collections.abc import Mapping
from typing import Any

METRICS = {
    "accuracy": ("Accuracy", "{:.2%}"),
    "macro_f1": ("Macro F1", "{:.2%}"),
    "mcc": ("Matthews correlation", "{:.3f}"),
    "auroc": ("AUROC", "{:.4f}"),
    "log_loss": ("Log loss", "{:.4f}"),
    "brier": ("Brier score", "{:.4f}"),
    "ece": ("Calibration error (ECE, 15 bins)", "{:.4f}"),
    "mae": ("Mean absolute error", "{:.3f}"),
    "quadratic_kappa": ("Quadratic kappa", "{:.3f}"),
    "spearman": ("Spearman correlation", "{:.3f}"),
    "pearson": ("Pearson correlation", "{:.3f}"),
    "rmse": ("Root mean squared error", "{:.3f}"),
    "r2": ("Variance explained (R\N{SUPERSCRIPT TWO})", "{:.3f}"),
    "micro_f1": ("Micro F1", "{:.2%}"),
    "mean_average_precision": ("Mean average precision", "{:.2%}"),
    "exact_match": ("Exact match", "{:.2%}"),
    "f1": ("F1", "{:.2%}"),
    "f1_answerable": ("F1 of the answerable questions", "{:.2%}"),
    "no_answer_accuracy": ("Accuracy on the unanswerable questions", "{:.2%}"),
    "rouge1": ("ROUGE-1", "{:.2%}"),
    "rouge2": ("ROUGE-2", "{:.2%}"),
    "rougeL": ("ROUGE-L", "{:.2%}"),
    "rougeLsum": ("ROUGE-Lsum", "{:.2%}"),
    "hamming_loss": ("Hamming loss", "{:.4f}"),
}
LOWER_IS_BETTER = ("log_loss", "brier", "ece", "mae", "rmse", "hamming_loss")


OF_PROBABILITIES = ("ece", "log_loss", "brier")  # metrics that a temperature changes


def metric_name(name: str) -> str:
    """Return a metric's display name."""
    return METRICS.get(name, (name.replace("_", " "), ""))[0]


def metric_text(name: str, measured: Mapping[str, Any]) -> str:
    """Format a metric with its interval, as '88.12% (86.80 to 89.36)'."""
    pattern = METRICS.get(name, ("", "{:.4g}"))[1]
    if measured["value"] is None:
        return "undefined"
    text = pattern.format(measured["value"])
    if measured.get("low") is not None:
        low, high = (pattern.format(measured[side]).rstrip("%") for side in ("low", "high"))
        text += f" ({low} to {high})"
    return text


def difference_text(name: str, measured: Mapping[str, Any]) -> str:
    """Format the difference of a metric with its interval, as '+0.52 points (-0.21 to +1.24)'."""
    if measured["value"] is None:
        return "undefined"
    pattern, unit = METRICS.get(name, ("", "{:.4g}"))[1].replace("{:", "{:+"), ""
    scale = 1
    if pattern.endswith("%}"):
        pattern, unit, scale = pattern.replace("%}", "f}"), " points", 100
    value, *ends = (
        None if measured.get(key) is None else pattern.format(scale * measured[key]) for key in ("value", "low", "high")
    )
    return f"{value}{unit}" + (f" ({ends[0]} to {ends[1]})" if None not in ends else "")


def share_text(share: float | None) -> str:
    """Format a share as '88.1%', or a dash if it is undefined."""
    return "\N{EN DASH}" if share is None else f"{share:.1%}"
