"""Base of the tasks whose outputs are what the Transformers class's head computes of single tokens, such as spans and sentences."""

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distilora.batching.outputs import NOTHING, Outputs
from distilora.tasks.base import OutputKind, States, Task

if TYPE_CHECKING:
    from torch import Tensor

    from distilora.batching.rows import Rows


class Places(NamedTuple):
    """Tokens that a task reads, [n], the example of each and its number there: its outputs go to [group, number]."""

    token: NDArray[np.int64]
    group: NDArray[np.int64]
    number: NDArray[np.int64]


class TokenTask(Task):
    """Task of outputs [G, longest, D], D numbers for every token that `places` chooses; NOTHING where an example has fewer."""

    output_kind: ClassVar[OutputKind] = "tokens"

    def places(self, rows: "Rows") -> Places:
        """Choose the tokens: by default all of them, an example's rows one after the other."""
        return numbered(np.arange(len(rows.ids)), np.repeat(rows.group, rows.lengths))

    def head(self, states: States, rows: "Rows") -> "Tensor":
        """Compute the outputs from the states of the chosen tokens, [G, longest, D]."""
        import torch

        places = self.places(rows)
        states_of_all = states.tokens()
        token, group, number = (torch.from_numpy(part).to(states_of_all.device) for part in places)
        logits = states.head(states_of_all[token])
        outputs = logits.new_full((rows.groups, _longest(places), self.outputs), float(NOTHING))
        return outputs.index_put((group, number), logits)

    def collect(self, tokens: Outputs, rows: "Rows") -> Outputs:
        """Choose the outputs from those of all tokens, [T, D], as an exported graph gives them."""
        places = self.places(rows)
        outputs = np.full((rows.groups, _longest(places), tokens.shape[1]), NOTHING)
        outputs[places.group, places.number] = tokens[places.token]
        return outputs


def numbered(token: NDArray[Any], group: NDArray[Any]) -> Places:
    """Number the tokens of each example, whose groups rise."""
    starts = np.searchsorted(group, group)
    return Places(token.astype(np.int64), group.astype(np.int64), np.arange(len(group)) - starts)


def _longest(places: Places) -> int:
    return int(places.number.max(initial=0)) + 1
