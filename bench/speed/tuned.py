"""Trainer + PEFT by someone who reads the documentation: bf16, padded to each batch, grouped by length, larger batches.

    python tuned.py DATA [--dropout 0] [--full] [--reviews N] [--tokens N]

`--full` trains all weights instead of an adapter. `--tokens N` has batches of N / 256 reviews of 256 tokens, for memory.
"""

import argparse

import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from bench.speed.measure import Stopwatch, accuracy, finish

parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("--dropout", type=float)
parser.add_argument("--full", action="store_true")
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--tokens", type=int)
parser.add_argument("--reviews", type=int)
args = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(f"{args.data}/encoder")
files = {name: f"{args.data}/{name}.jsonl" for name in ("train", "validation", "heldout")}
length = 256 if args.tokens else 512
data = load_dataset("json", data_files=files).map(
    lambda batch: tokenizer(batch["text"], truncation=True, max_length=length), batched=True
)
if args.tokens:
    data = data.filter(lambda row: len(row["input_ids"]) == length)
    args.batch = args.tokens // length
if args.reviews:
    data["train"] = data["train"].shuffle(seed=0).select(range(args.reviews))

none = (
    {} if args.dropout is None else dict.fromkeys(("dropout", "attention_dropout", "seq_classif_dropout"), args.dropout)
)
model = AutoModelForSequenceClassification.from_pretrained(f"{args.data}/encoder", num_labels=2, **none)
if not args.full:
    model = get_peft_model(
        model,
        LoraConfig(
            task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["q_lin", "k_lin", "v_lin", "out_lin"],
            modules_to_save=["pre_classifier", "classifier"],
        ),
    )  # fmt: skip

watch = Stopwatch()
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="unused", num_train_epochs=1 if args.reviews else 3, per_device_train_batch_size=args.batch,
        learning_rate=5e-5 if args.full else 5e-4, bf16=True, train_sampling_strategy="group_by_length",
        save_strategy="no", report_to="none", disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    ),
    data_collator=DataCollatorWithPadding(tokenizer),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    compute_metrics=accuracy,
    callbacks=[watch],
)  # fmt: skip
trainer.train()
finish("full" if args.full else "tuned", watch, trainer, None if args.reviews else data)
