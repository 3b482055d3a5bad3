"""Explains answers by leaving words, or sentences, out, as explanation/explain.py does; the shortened copies wait in the queue.

So they are counted against the limits, take turns with other clients, and end with the deadline or when the client hangs up.
"""

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any, Literal, cast

from starlette.requests import Request

from distilora.data.examples import Example
from distilora.errors import DataError
from distilora.explanation.explain import Explanation, explain, parts_of
from distilora.inference.predictor import Predictor
from distilora.serving.batcher import Batcher, Ticket
from distilora.serving.pool import Model, Prepared
from distilora.serving.refusals import ClientGone, DeadlinePassed, Invalid, TooLong
from distilora.serving.service import Computed, Service, call_of, hung_up

Level = Literal["word", "sentence"]
AT_ONCE = 64  # shortened copies in the queue, unless a request may have fewer inputs
WORDS_TOKENS = 65_536  # of all shortened copies: more of them take seconds, and sentences are left out instead of words


def level_for(prepared: Prepared, level: Level | None, left: int, limit: str, field: str) -> tuple[Level, int]:
    """Choose what is left out of an input, and return it with the tokens that it costs: those of all shortened copies.

    Args:
        level: what was asked for; None: words, of a long text sentences.
        left: tokens that the request may still cost, by the limit of that name.

    Raises TooLong where they do not suffice.
    """
    text, tokens = prepared.example.texts[-1], len(prepared.rows.ids)
    words = len(text.split()) * tokens
    sentences = len(parts_of(text, "sentence"))
    if level is None:
        level = "word" if words <= min(WORDS_TOKENS, left) or sentences < 2 else "sentence"
    cost = words if level == "word" else sentences * tokens
    if cost > left:
        shorter = "explain fewer or shorter texts" + (", or by sentence" if level == "word" and sentences > 1 else "")
        raise TooLong(
            f"{field}: its explanation takes {cost:,} tokens by {level}, and {left:,} are left (limit {limit}); {shorter}",
            field,
        )
    return level, cost


class Asking:
    """Stand-in for a Predictor, of which it has what `explain` uses; its examples are computed by the batcher."""

    def __init__(self, model: Model, batcher: Batcher, client: str, deadline: float) -> None:
        predictor = model.predictor
        self.task, self.tokenizer, self.calibrate = predictor.task, predictor.tokenizer, predictor.calibrate
        self.artifact = predictor.artifact
        self._model, self._batcher, self._client, self._deadline = model, batcher, client, deadline
        self._given_up = threading.Event()
        self._ticket: Ticket | None = None

    def give_up(self) -> None:
        """End the explanation; called from another thread."""
        self._given_up.set()
        if self._ticket is not None:
            self._ticket.cancel()

    def example(self, text: Any, place: str) -> Example:
        """Return the example of a text, cleaned."""
        return self._model.predictor.example(text, place)

    def answer(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Answer examples."""
        return next(self.answers([examples]))

    def answers(self, chunks: Iterable[Sequence[Example]]) -> Iterator[list[dict[str, Any]]]:
        """Answer chunks of examples, some at once. Raises ClientGone after `give_up`, and what the batcher raises."""
        for chunk in chunks:
            at_once = min(AT_ONCE, self._batcher.limits.inputs)
            for start in range(0, len(chunk), at_once):
                yield self._computed(chunk[start : start + at_once])

    def _computed(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        tokens = self.task.tokenise(self.tokenizer, examples)
        prepared = [
            Prepared(example, tokens.rows.take([number]), bool(tokens.truncated[number]))
            for number, example in enumerate(examples)
        ]
        self._ticket = self._batcher.submit(self._model.works(prepared), self._client, self._deadline)
        if self._given_up.is_set():
            self._ticket.cancel()
        try:
            return self._model.answers(self._ticket.done.result(), prepared)
        except CancelledError:
            raise ClientGone("the client hung up, or the deadline passed") from None


def explained(asking: Asking, text: Any, level: Level, field: str) -> dict[str, Any]:
    """Explain the answer to an input, as JSON values. Raises Invalid for a text without two parts, and what computing raises."""
    try:
        explanation = explain(cast(Predictor, asking), text, "leave-one-out", level)
    except DataError as error:
        raise Invalid(f"{field}: {error}", field) from None
    return record(explanation)


async def explain_all(
    service: Service, request: Request, computed: Computed, inputs: Sequence[Any], level: Level | None, deadline: float
) -> list[dict[str, Any]]:
    """Explain the answers of a request, one after the other.

    Raises TooLong before anything is computed if they cost more tokens than a request may, and what `explained` raises.
    """
    (left, limit), levels = service.limits.most_tokens, []
    for number, item in enumerate(computed.prepared):
        chosen, cost = level_for(item, level, left, limit, f"input[{number}]")
        levels.append(chosen)
        left -= cost
    call = call_of(request)
    asking = Asking(computed.model, service.batcher, call.client, deadline)
    begun = time.monotonic()

    def work() -> list[dict[str, Any]]:
        return [explained(asking, text, levels[n], f"input[{n}]") for n, text in enumerate(inputs)]

    working = asyncio.ensure_future(service.explain(work))
    gone = asyncio.ensure_future(hung_up(request.receive))
    try:
        left_s = max(deadline - time.monotonic(), 0)
        await asyncio.wait([working, gone], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if gone.done():
            raise ClientGone("the client hung up")
        raise DeadlinePassed(
            "the explanation was not ready in time; explain fewer or shorter texts, or allow more time (timeout_ms)"
        )
    finally:
        gone.cancel()
        if not working.done():
            asking.give_up()
            working.cancel()
        call.add("explain", time.monotonic() - begun)


def record(explanation: Explanation) -> dict[str, Any]:
    """Convert an explanation to JSON values; places are characters of its `text`, which is the input cleaned."""
    return {
        "method": explanation.method,
        "level": explanation.level,
        "label": explanation.label,
        "measure": explanation.measure,
        "text": explanation.text,
        "parts": [
            {"text": part.word, "start": part.start, "end": part.end, "weight": part.weight}
            for part in explanation.parts
        ],
    }
