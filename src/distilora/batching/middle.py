"""Truncates a text in its middle: of n tokens that are allowed, its first ceil(n / 4) and its last ones are kept.

At 512 tokens, two of them special, that is 128 + 382, the best of the ways to read a long text that Sun et al. compare (How to
fine-tune BERT for text classification, CCL 2019). The tokenizers library cuts only at an end and a tokenizer.json cannot say
middle, so whoever reads with that file alone reads otherwise. A shorter text is encoded as without truncation.
"""

from collections.abc import Sequence
from typing import Any

from tokenizers import Encoding, Tokenizer

from distilora.errors import ConfigError


class MiddleTruncated:
    """Tokenizer whose encodings have `max_length` tokens at most, special ones included; in all else the one it wraps."""

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        tokenizer.no_truncation()
        self.tokenizer, self.max_length = tokenizer, max_length

    def __getattr__(self, name: str) -> Any:
        """Look up everything else in the tokenizer."""
        if name == "tokenizer":  # not there yet, while a copy is made
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    def encode(self, text: str, *args: Any, **settings: Any) -> "Encoding | Shortened":
        """Encode a text. Raises ConfigError for a pair of texts that is too long."""
        return self._shortened(self.tokenizer.encode(text, *args, **settings))

    def encode_batch(self, texts: Sequence[str], *args: Any, **settings: Any) -> "list[Encoding | Shortened]":
        """Encode texts. Raises ConfigError for a pair of texts that is too long."""
        return [self._shortened(encoding) for encoding in self.tokenizer.encode_batch(texts, *args, **settings)]

    def _shortened(self, encoding: Encoding) -> "Encoding | Shortened":
        if len(encoding) <= self.max_length:
            return encoding
        if encoding.n_sequences > 1:
            raise ConfigError(
                "data.truncation_side: middle cuts single texts only; give right or left for pairs of texts"
            )
        special = encoding.special_tokens_mask
        before, after = special.index(0), special[::-1].index(0)  # special tokens at either end
        allowed = self.max_length - before - after
        head = before + -(-allowed // 4)
        return Shortened(encoding, head, self.max_length - head)


class Shortened:
    """Encoding less its middle, with the attributes of an `Encoding`: lists with an element for each token that is left.

    `overflowing` holds the whole encoding; `head` is the number of tokens before the cut.
    """

    def __init__(self, whole: Encoding, head: int, tail: int) -> None:
        self.whole, self.head, self.tail = whole, head, tail

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self.head + self.tail

    @property
    def ids(self) -> list[int]:
        """Numbers of the tokens in the vocabulary."""
        return self._kept(self.whole.ids)

    @property
    def tokens(self) -> list[str]:
        """The tokens, as text."""
        return self._kept(self.whole.tokens)

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Start and end of each token in the text, in characters."""
        return self._kept(self.whole.offsets)

    @property
    def special_tokens_mask(self) -> list[int]:
        """1 for each token that the tokenizer adds, such as [CLS]."""
        return self._kept(self.whole.special_tokens_mask)

    @property
    def type_ids(self) -> list[int]:
        """Number of the text that each token belongs to."""
        return self._kept(self.whole.type_ids)

    @property
    def attention_mask(self) -> list[int]:
        """1 for each token, as there is no padding."""
        return self._kept(self.whole.attention_mask)

    @property
    def word_ids(self) -> list[int | None]:
        """Number of the word that each token belongs to; None for special tokens."""
        return self._kept(self.whole.word_ids)

    @property
    def overflowing(self) -> list[Encoding]:
        """The whole encoding, by which a shortened one is told from others."""
        return [self.whole]

    def _kept(self, values: list[Any]) -> list[Any]:
        return values[: self.head] + values[len(values) - self.tail :]
