"""The recipe people copy: Trainer + PEFT, fp32, everything padded to 512, default dropout. Not the best the peers can do.

python -m bench.speed.reference DATA [--reviews N]        DATA as data.py writes it; with --reviews, only the speed on N of them
"""

import argparse

from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

from bench.speed.measure import Stopwatch, accuracy, finish

parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("--reviews", type=int)
args = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(f"{args.data}/encoder")
files = {name: f"{args.data}/{name}.jsonl" for name in ("train", "validation", "heldout")}
data = load_dataset("json", data_files=files).map(
    lambda batch: tokenizer(batch["text"], truncation=True, padding="max_length", max_length=512), batched=True
)

if args.reviews:
    data["train"] = data["train"].shuffle(seed=0).select(range(args.reviews))

model = AutoModelForSequenceClassification.from_pretrained(f"{args.data}/encoder", num_labels=2)
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
        output_dir="unused", num_train_epochs=1 if args.reviews else 3, per_device_train_batch_size=16,
        learning_rate=2e-4, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
    ),
    train_dataset=data["train"],
    eval_dataset=data["validation"],
    compute_metrics=accuracy,
    callbacks=[watch],
)  # fmt: skip
trainer.train()
finish("reference", watch, trainer, None if args.reviews else data)
