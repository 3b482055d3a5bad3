"""Truncation in the middle: a quarter of the tokens from the beginning, three from the end, and special tokens in place."""

import copy
import pickle
import random
from typing import Any

import numpy as np
import pytest
from support.tiny import PLAIN, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from distilora.batching.middle import MiddleTruncated
from distilora.batching.tokens import tokenise, with_truncation
from distilora.data.examples import Example
from distilora.errors import ConfigError


def bytes_tokenizer() -> Tokenizer:
    """A tokenizer as RoBERTa's, of single bytes, with two tokens before a text and one after it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", "<q>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = [("<s>", 0), ("</s>", 1), ("<q>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("<s> <q> $A </s>", "<s> $A </s> $B </s>", special)
    return tokenizer


def plain_tokenizer() -> Tokenizer:
    """A tokenizer without special tokens."""
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing("$A", "$A $B", [])
    return tokenizer


TOKENIZERS = {"bert": (tiny_tokenizer, 1, 1), "bytes": (bytes_tokenizer, 2, 1), "plain": (plain_tokenizer, 0, 0)}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("max_length", [8, 9, 15, 64])
def test_what_is_kept(name: str, max_length: int) -> None:
    make, before, after = TOKENIZERS[name]
    rng = random.Random(max_length)
    texts = [" ".join(rng.choices([*PLAIN, "Ω", "é", "12"], k=k)) for k in [*range(12), *range(50, 130, 7), 1000]]
    whole = make().encode_batch(texts)
    allowed = max_length - before - after
    head = -(-allowed // 4)
    found = with_truncation(make(), max_length, "middle").encode_batch(texts)
    for text, encoding, full in zip(texts, found, whole, strict=True):
        assert len(encoding.ids) == len(encoding) == min(len(full.ids), max_length)
        assert bool(encoding.overflowing) == (len(full.ids) > max_length)
        content, span = full.ids[before : len(full.ids) - after], slice(before, len(encoding.ids) - after)
        kept = content if len(full.ids) <= max_length else content[:head] + content[len(content) - (allowed - head) :]
        assert encoding.ids[span] == kept
        assert encoding.ids[:before] == full.ids[:before]
        assert encoding.ids[len(encoding.ids) - after :] == full.ids[len(full.ids) - after :]
        length = len(encoding.ids)
        assert encoding.special_tokens_mask == [1] * before + [0] * (length - before - after) + [1] * after
        assert encoding.attention_mask == [1] * length
        others = (encoding.tokens, encoding.type_ids, encoding.word_ids, encoding.offsets)
        assert [len(values) for values in others] == [length] * 4
        starts = [start for start, _ in encoding.offsets[span]]
        assert starts == sorted(starts)
        if name == "bert":
            assert all(text[a:b].startswith(t.removeprefix("##")) or t == "[UNK]" or t == "e"
                       for (a, b), t in zip(encoding.offsets[span], encoding.tokens[span], strict=True))  # fmt: skip


def test_at_512_tokens_it_is_the_split_of_the_paper() -> None:
    encoding: Any = with_truncation(tiny_tokenizer(), 512, "middle").encode(" ".join(["film"] * 128 + ["a"] * 900))
    assert encoding.tokens == ["[CLS]", *["film"] * 128, *["a"] * 382, "[SEP]"]


@pytest.mark.parametrize("side", ["right", "left"])
def test_short_texts_are_those_of_the_other_sides(side: str) -> None:
    rng = random.Random(0)
    examples = [Example((" ".join(rng.choices(PLAIN, k=k)),)) for k in range(63)]
    found = tokenise(with_truncation(tiny_tokenizer(), 64, "middle"), examples)
    wanted = tokenise(with_truncation(tiny_tokenizer(), 64, side), examples)
    assert np.array_equal(found.rows.ids, wanted.rows.ids)
    assert np.array_equal(found.rows.offsets, wanted.rows.offsets)
    assert found.truncated.tolist() == wanted.truncated.tolist()
    assert 0 < sum(found.truncated) < len(examples) or not any(found.truncated)


def test_settings_of_an_encoding() -> None:
    tokenizer = with_truncation(tiny_tokenizer(), 8, "middle")
    encoding: Any = tokenizer.encode(" ".join(PLAIN), add_special_tokens=False)
    assert encoding.tokens == [*PLAIN[:2], *PLAIN[-6:]]
    assert tokenizer.encode_batch([" ".join(PLAIN)], add_special_tokens=False)[0].tokens == encoding.tokens


def test_all_else_is_the_tokenizer_s_own() -> None:
    inner = tiny_tokenizer()
    inner.enable_truncation(5)
    inner.enable_padding(length=32)
    tokenizer = with_truncation(inner, 8, "middle")
    assert isinstance(tokenizer, MiddleTruncated)
    assert tokenizer.token_to_id("film") == tiny_tokenizer().token_to_id("film")
    assert (tokenizer.truncation, tokenizer.padding) == (None, None)
    assert tokenizer.encode("a film").tokens == ["[CLS]", "a", "film", "[SEP]"]
    text = " ".join(PLAIN)
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):  # noqa: S301 - its own
        assert other.encode(text).ids == tokenizer.encode(text).ids


def test_a_pair_that_is_too_long_is_refused() -> None:
    tokenizer: Any = with_truncation(bytes_tokenizer(), 16, "middle")
    assert len(tokenizer.encode("a", "b").ids) == 7
    with pytest.raises(ConfigError, match=r"^data\.truncation_side: middle cuts single texts only; give right or left"):
        tokenizer.encode("a film", "another film")
