"""How accuracy grows with reviews in `reference` and `tuned`: their batches, order, precision, without their padding.

    python curve.py reference|tuned DATA OUTPUT [--limit REVIEWS]

What padding costs is measured by reference.py and tuned.py; here the rows of a batch stand one after the other, attended to
each by itself (distilora's attention for Transformers' modules), which changes no result but the dropout's random
draws. Validation is in bf16 after every 1,008 (reference) or 1,024 (tuned) reviews. Restarted, it goes on where it was.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed
from transformers.trainer_pt_utils import LengthGroupedSampler

from distilora.batching.rows import Rows, rows_of
from distilora.hardware import keep_freed_memory
from distilora.model.packed.attention import REGISTERED, register
from distilora.model.packed.layout import Packed

SETTINGS = {
    "reference": {"batch": 16, "rate": 2e-4, "bf16": False, "dropout": None, "grouped": False, "every": 63},
    "tuned": {"batch": 32, "rate": 5e-4, "bf16": True, "dropout": 0.0, "grouped": True, "every": 32},
}
EPOCHS = 3


class Curve:
    """One contender's training, validated at fixed steps."""

    def __init__(self, name: str, data: Path) -> None:
        self.settings = SETTINGS[name]
        set_seed(42)
        register()
        keep_freed_memory()
        self.data, self.tokenizer = data, AutoTokenizer.from_pretrained(data / "encoder")
        self.train, self.validation = self.read("train"), self.read("validation")
        dropout = self.settings["dropout"]
        none = (
            {} if dropout is None else dict.fromkeys(("dropout", "attention_dropout", "seq_classif_dropout"), dropout)
        )
        model = AutoModelForSequenceClassification.from_pretrained(data / "encoder", num_labels=2, **none)
        model.set_attn_implementation(REGISTERED)
        adapter = LoraConfig(
            task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["q_lin", "k_lin", "v_lin", "out_lin"],
            modules_to_save=["pre_classifier", "classifier"],
        )  # fmt: skip
        self.outer = get_peft_model(model, adapter)
        self.model = self.outer.get_base_model()
        if self.settings["bf16"]:
            for module in self.outer.modules():  # what autocast would do at each use
                if isinstance(module, torch.nn.Linear) and not module.weight.requires_grad:
                    module.to(torch.bfloat16)
        self.trained = {name: p for name, p in self.outer.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=0.0, weight_decay=0.0)
        self.per_epoch = math.ceil(self.train[0].groups / self.settings["batch"])
        self.total = self.per_epoch * EPOCHS
        self.step = 0

    def read(self, part: str) -> tuple[Rows, torch.Tensor]:
        """Rows and labels of a part."""
        lines = [json.loads(line) for line in (self.data / f"{part}.jsonl").read_text("utf-8").splitlines()]
        ids = self.tokenizer([line["text"] for line in lines], truncation=True, max_length=512)["input_ids"]
        return rows_of([[row] for row in ids]), torch.tensor([line["label"] for line in lines])

    def logits(self, rows: Rows) -> torch.Tensor:
        """[B, 2]."""
        packed = Packed(rows, torch.device("cpu"))
        ids, positions = packed.pack(rows.ids, 0)[None], packed.positions[None]
        first = self.model.distilbert(input_ids=ids, position_ids=positions, packed=packed)[0][0, packed.starts]
        hidden = torch.relu(self.model.pre_classifier(first))
        return self.model.classifier(self.model.dropout(hidden)).float()

    def order(self, epoch: int) -> list[int]:
        """Examples in Trainer's order."""
        generator = torch.Generator().manual_seed(42 + epoch)
        lengths = self.train[0].lengths.tolist()
        if self.settings["grouped"]:
            return list(LengthGroupedSampler(self.settings["batch"], lengths=lengths, generator=generator))
        return torch.randperm(len(lengths), generator=generator).tolist()

    def update(self, batch: list[int]) -> None:
        """One step: linear decay of the rate, gradients cut to norm 1."""
        self.outer.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings["rate"] * (self.total - self.step) / self.total
        for part in np.array_split(batch, 4):  # the same gradient in less memory
            with torch.autocast("cpu", torch.bfloat16, enabled=self.settings["bf16"]):
                logits = self.logits(self.train[0].take(part))
            loss = torch.nn.functional.cross_entropy(logits, self.train[1][part], reduction="sum") / len(batch)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def right(self, part: tuple[Rows, torch.Tensor]) -> list[int]:
        """1 for each review it gets right, else 0."""
        self.outer.eval()
        rows, labels = part
        order, right = np.argsort(-rows.lengths), np.zeros(len(rows), np.int64)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for batch in np.array_split(order, math.ceil(len(order) / 8)):
                right[batch] = (self.logits(rows.take(batch)).argmax(1) == labels[batch]).numpy()
        return right.tolist()

    def save(self, file: Path) -> None:
        """Weights, moments and place."""
        state = {f"weight.{name}": p.detach() for name, p in self.trained.items()} | {"step": torch.tensor(self.step)}
        for name, p in self.trained.items():
            state |= {f"{key}.{name}": value for key, value in self.optimizer.state[p].items()}
        save_file(state, file.with_suffix(".tmp"))
        os.replace(file.with_suffix(".tmp"), file)

    def load(self, file: Path) -> None:
        """The reverse."""
        state = load_file(file)
        self.step = int(state["step"])
        with torch.no_grad():
            for name, p in self.trained.items():
                p.copy_(state[f"weight.{name}"])
                self.optimizer.state[p] = {key: state[f"{key}.{name}"] for key in ("exp_avg", "exp_avg_sq", "step")}


def main() -> None:
    """Appends a line for each validation to OUTPUT.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=SETTINGS)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--limit", type=int, default=10**9)
    parser.add_argument("--heldout", action="store_true", help="no more training: which held-out reviews it gets right")
    args = parser.parse_args()
    curve, checkpoint = Curve(args.contender, args.data), args.output.with_suffix(".safetensors")
    if checkpoint.exists():
        curve.load(checkpoint)
    if args.heldout:
        right = curve.right(curve.read("heldout"))
        print(json.dumps({"reviews": curve.step * curve.settings["batch"], "right": right}))
        return
    epoch, order, batch = -1, [], curve.settings["batch"]
    started = time.monotonic()
    while curve.step < curve.total and curve.step * batch < args.limit:
        now, number = divmod(curve.step, curve.per_epoch)
        if now != epoch:
            epoch, order = now, curve.order(now)
        curve.update(order[number * batch : (number + 1) * batch])
        if curve.step % curve.settings["every"] == 0 or curve.step == curve.total:
            row = {
                "reviews": curve.step * batch,
                "accuracy": float(np.mean(curve.right(curve.validation))),
                "wall_s": time.monotonic() - started,
            }
            with open(args.output.with_suffix(".jsonl"), "a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            curve.save(checkpoint)
            started = time.monotonic()


if __name__ == "__main__":
    main()
