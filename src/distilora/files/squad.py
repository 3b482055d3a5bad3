"""Reads a file in the layout of SQuAD (Rajpurkar et al. 2016, 2018): articles of paragraphs of questions, as one record each.

{"data": [{"title": ..., "paragraphs": [{"context": ..., "qas": [{"id": ..., "question": ..., "answers": [...]}]}]}]}
"""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from distilora.errors import DataError
from distilora.files.records import Record, Reject

_LAYOUT = re.compile(rb'\s*\{\s*(?:"version"\s*:\s*"[^"]*"\s*,\s*)?"data"\s*:\s*\[')


def is_squad(beginning: bytes) -> bool:
    """Tell whether a file that begins so has the layout."""
    return _LAYOUT.match(beginning) is not None


def squad_records(stream: BinaryIO, name: str) -> Iterator[Record | Reject]:
    """Yield a record for each question: id, title, question, context and answers {text: [...], answer_start: [...]}.

    Raises DataError if the file is not JSON; a paragraph of another form is a Reject.
    """
    try:
        articles = json.loads(stream.read().decode("utf-8-sig"))["data"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{name}: not JSON ({getattr(error, 'msg', error)}); correct it") from None
    row = 0
    for number, article in enumerate(articles, 1):
        try:
            questions = list(_questions(article))
        except (KeyError, TypeError, AttributeError) as error:
            row += 1
            yield Reject(f"{name}: article {number}", f"not in the layout of SQuAD ({error!r}); correct it", row)
            continue
        for values in questions:
            row += 1
            yield Record(f"{name}: row {row}", values, row)


def _questions(article: Any) -> Iterator[dict[str, Any]]:
    for paragraph in article["paragraphs"]:
        for question in paragraph["qas"]:
            answers = question.get("answers") or []
            yield {
                "id": question.get("id"),
                "title": article.get("title"),
                "question": question["question"],
                "context": paragraph["context"],
                "answers": {
                    "text": [answer["text"] for answer in answers],
                    "answer_start": [answer["answer_start"] for answer in answers],
                },
            }
