"""Reads the texts of measured examples again from their data, each recognised by its digest.

predictions.parquet holds places and digests, no texts. A text that was changed since has another digest and is not shown
for the one that was measured.
"""

from collections.abc import Collection, Iterable

from distilora.data.cleaning import cleaning
from distilora.data.examples import text_digest
from distilora.errors import DistiloraError
from distilora.evaluation.finished import Finished


def read_texts(measurements: Iterable[Finished], digests: Collection[str]) -> tuple[dict[str, str], str]:
    """Read the cleaned texts with these digests; return them by digest, with a note if some are missing.

    The data of the first measurement are read, those of the others only if texts are missing there.
    """
    texts: dict[str, str] = {}
    reasons = []
    for finished in measurements:
        missing = set(digests) - set(texts)
        if not missing:
            break
        try:
            texts |= _texts_of(finished, missing)
        except DistiloraError as error:
            reasons.append(str(error))
    missing = set(digests) - set(texts)
    if not missing:
        return texts, ""
    reason = reasons[0] if reasons else "the data have changed since"
    return texts, f"{len(missing):,} of {len(digests):,} texts cannot be shown, only their places: {reason}"


def _texts_of(finished: Finished, digests: Collection[str]) -> dict[str, str]:
    """Read a measurement's split up to the last of the texts. Raises a DistiloraError if its data cannot be read."""
    clean = cleaning(finished.cleaning["name"], finished.cleaning["version"]).clean
    source, split = finished.open_source()
    first = next(source.records(split, "data.split"), None)
    if first is None:
        return {}
    task = finished.task.for_prediction(list(first.values), finished.task.text_column)
    texts: dict[str, str] = {}
    for record in task.records(source, split, "data.split", []):
        parts = task.read(record.values).texts
        digest = text_digest(parts)
        if digest in digests:
            texts[digest] = " ".join(map(clean, parts))
            if len(texts) == len(digests):
                break
    return texts
