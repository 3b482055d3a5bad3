"""infinity-emb's own server: python infinity_app.py WORK PORT HOW

HOW, as JSON: `engine` (torch or optimum), `batch` and `dtype`. Its usage statistics are off. Its optimum engine does not
truncate, so a review longer than the model reads is an error there; here it truncates, as its torch engine does.
"""

import json
import os
import sys
from pathlib import Path

# read on import
os.environ |= {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"}

from infinity_emb.cli import cli
from infinity_emb.transformer.classifier import optimum


def truncated(self, sentences):
    return self._pipe(sentences, truncation=True)


if __name__ == "__main__":
    optimum.OptimumClassifier.encode_core = truncated
    how = json.loads(sys.argv[3])
    sys.argv[1:] = [
        "v2", "--model-id", str(Path(sys.argv[1]) / "merged"), "--served-model-name", "reviews", "--engine", how["engine"],
        "--batch-size", str(how["batch"]), "--dtype", how["dtype"], "--device", "cpu", "--host", "127.0.0.1",
        "--port", sys.argv[2], "--log-level", "warning", "--no-model-warmup",
    ]  # fmt: skip
    cli()
