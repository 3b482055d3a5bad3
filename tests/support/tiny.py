"""Tiny things to test on: reviews of two classes, their tokenizer, random encoders of every family, settings that suit them."""

import csv
import random
from pathlib import Path
from types import SimpleNamespace

GOOD = ["superb", "moving", "delightful", "brilliant", "warm", "clever", "charming", "gripping"]
BAD = ["dull", "awful", "boring", "clumsy", "tedious", "lifeless", "stupid", "painful"]
PLAIN = (
    "the a film movie actor plot story scene ending music was is and but with really quite very this that it".split()
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tiny_reviews(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """(text, label) pairs that two words of sentiment decide; all different."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        label = "pos" if i % 2 else "neg"
        words = rng.choices(PLAIN, k=rng.randint(4, 18)) + rng.choices(GOOD if label == "pos" else BAD, k=3)
        rng.shuffle(words)
        rows.append((" ".join(words) + f" {seed * 100000 + i}.", label))
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]], columns: tuple[str, ...] = ("text", "label")) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def tiny_tokenizer():
    """A word-piece tokenizer over the words of the tiny reviews."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = SPECIAL + sorted({*GOOD, *BAD, *PLAIN, "."}) + list("0123456789") + [f"##{d}" for d in "0123456789"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def tiny_model_config(model_type: str = "distilbert", **settings: object):
    """Transformers' config of a family's tiny encoder."""
    from transformers import AutoConfig

    if model_type == "distilbert":
        sizes: dict[str, object] = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vocabulary = tiny_tokenizer().get_vocab_size()
    sizes |= {"vocab_size": vocabulary, "max_position_embeddings": 66, "pad_token_id": 0, **settings}
    return AutoConfig.for_model(model_type, **sizes)


def write_tiny_encoder(folder: Path, model_type: str = "distilbert", **settings: object) -> Path:
    """A random encoder of a family, two blocks of width 32, as Transformers writes a pretrained one."""
    import torch
    from transformers import AutoModel, PreTrainedTokenizerFast

    config = tiny_model_config(model_type, **settings)
    torch.manual_seed(1)
    model = AutoModel.from_config(config)
    with torch.no_grad():  # the usual init leaves so small a model next to blind
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(), unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def divided(config):
    """The parts of the data, with the classification that was set up for it as `task`."""
    from distilora.data.parts import read_parts
    from distilora.data.sources import open_source
    from distilora.tasks.classification import Classification

    task = Classification.from_source(config, open_source(config.path))
    return SimpleNamespace(**vars(read_parts(config, task)), task=task)


def tiny_config(output: Path, data: Path, encoder: Path, **changes: object):
    """A RunConfig for the tiny encoder; `changes` are dotted settings with '__' for the dot."""
    from distilora.config.parse import parse
    from distilora.config.schema import RunConfig

    tree: dict[str, dict[str, object]] = {
        "data": {"path": str(data), "max_length": 64, "validation_size": 40},
        "encoder": {"name": str(encoder)},
        "adapter": {"r": 8, "alpha": 8.0},
        "training": {
            "epochs": 8, "update_size": 16, "learning_rate": 0.01, "precision": "fp32", "validations": 2, "device": "cpu",
            "tracker": "none",
        },
        "evaluation": {"bootstrap": 100},
    }  # fmt: skip
    for key, value in changes.items():
        stage, name = key.split("__")
        tree.setdefault(stage, {})[name] = value
    return parse(RunConfig, (), {"output": str(output), **tree})
