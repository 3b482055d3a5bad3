"""Finds the threshold of abstention for a stated error rate, from the scores that the model itself gave held-out texts.

Scores of another model are never taken: an int8 graph has its own, and so has each base of a qlora run's adapter. Only bf16
and fp32 of the same weights stand in for one another, and a note says so.
"""

from distilora.artifact.format import Artifact
from distilora.artifact.scores import read_scores
from distilora.config.schema import Base, LexiconUse
from distilora.errors import ConfigError
from distilora.progress import say_once
from distilora.tasks.abstention import Scored, Threshold, check_rate, choose_threshold
from distilora.tasks.registry import find_task

ALIKE = ("bf16", "fp32")  # precisions whose scores differ by rounding alone


def check_abstention(
    artifact: Artifact, abstain_below: float, abstain_error: float | None, base: Base, lexicon: LexiconUse = "auto"
) -> None:
    """Raise ConfigError, before anything heavy is loaded, if a model cannot abstain so."""
    if (abstain_below or abstain_error is not None) and not find_task(artifact.task["name"]).scored:
        field = "abstain_below" if abstain_below else "abstain_error"
        raise ConfigError(f"{field}: given, but answers of task {artifact.task['name']} have no score; drop it")
    if abstain_error is None:
        return
    check_rate(abstain_error)
    if abstain_below:
        raise ConfigError("abstain_error: given together with abstain_below; give one of them")
    if not read_scores(artifact):
        raise ConfigError(
            f"abstain_error: {artifact.folder} holds no scores of held-out texts to choose a threshold by; train or export it "
            "with this release, on a task whose answers have a score, or give a threshold with abstain_below"
        )
    if artifact.lexicon and lexicon == "none":
        raise ConfigError(
            "abstain_error: the model's scores are those with its n-gram expert; drop lexicon, or give a threshold with "
            "abstain_below"
        )
    if artifact.quantisation is not None and base == "full":
        raise ConfigError(
            "abstain_error: the run's scores are those of its adapter on the 4-bit base; drop base, or give a threshold with "
            "abstain_below"
        )


def threshold_for(artifact: Artifact, precision: str, abstain_error: float) -> Threshold:
    """Choose the threshold for what the model computes in.

    Raises ConfigError as `choose_threshold` does, and if the model holds no scores in that precision.
    """
    return choose_threshold(scores_in(artifact, precision, "abstain_error"), abstain_error)


def scores_in(artifact: Artifact, precision: str, field: str) -> Scored:
    """Return the scores of held-out texts in a precision. Raises ConfigError, naming `field`, if there are none in it."""
    scored = read_scores(artifact)
    backend = artifact.backend
    if (scores := scored.get(f"{backend} {precision}")) is not None:
        return scores
    for other in ALIKE if precision in ALIKE else ():
        if (scores := scored.get(f"{backend} {other}")) is not None:
            say_once(
                f"note: the threshold comes from scores in {other}; answers are computed in {precision}, which differs by rounding"
            )
            return scores
    raise ConfigError(
        f"{field}: {artifact.folder} holds scores in {', '.join(scored)}, not in {precision}; give that precision"
    )
