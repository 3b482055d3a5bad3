"""Tiny random encoder-decoders, documents with summaries to copy out of them, and runs on both."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import torch
from support.tiny import PLAIN, tiny_config, tiny_tokenizer


def write_model(folder: Path, family: str, spread: float | None = None) -> Path:
    """A random model; `spread` is the standard deviation of its matrices, where the usual one leaves low-rank updates blind."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    sizes: dict[str, Any] = {
        "vocab_size": tiny_tokenizer().get_vocab_size(),
        "d_model": 32,
        "pad_token_id": 0,
        "eos_token_id": 3,
    }
    if family == "t5":
        sizes |= {"d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    else:
        sizes |= {
            "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 80, "bos_token_id": 2,
            "decoder_start_token_id": 3, "forced_eos_token_id": None,
        }  # fmt: skip
    torch.manual_seed(1)
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(family, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if spread and parameter.dim() == 2:
                parameter.normal_(std=spread)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(), unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_data(path: Path, count: int, seed: int = 0) -> Path:
    """Documents of plain words; the summary is the first three."""
    rng, rows = random.Random(seed), []
    for _ in range(count):
        words = rng.sample(PLAIN, 8)
        rows.append({"text": " ".join(words), "summary": " ".join(words[:3])})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def config_of(base: Path, model: Path, count: int = 60, **changes: Any) -> Any:
    data = write_data(base / "data.jsonl", count)
    changes = {"training__epochs": 2, "generation__longest": 8, "data__validation_size": 10, **changes}
    return dataclasses.replace(tiny_config(base / "run", data, model, **changes), task="abstractive_summarization")
