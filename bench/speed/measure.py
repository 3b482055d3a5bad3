"""What the Trainer contenders are measured by: wall time of their steps, memory, accuracy. Prints one line of JSON."""

import json
import re
import threading
import time
from pathlib import Path

import numpy as np
from transformers import TrainerCallback

STARTED = time.monotonic()


def memory(field):
    """RssAnon or VmRSS of this process, MB (10^6 bytes)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024 / 1e6


def accuracy(predicted):
    """For Trainer's compute_metrics."""
    return {"accuracy": float(np.mean(predicted.predictions.argmax(-1) == predicted.label_ids))}


class Stopwatch(TrainerCallback):
    """Times every step. The peak is looked at every 10 ms."""

    def __init__(self):
        self.times = []
        self.imported, self.peak, self.resident = memory("RssAnon"), 0.0, 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self):
        while True:
            self.peak, self.resident = max(self.peak, memory("RssAnon")), max(self.resident, memory("VmRSS"))
            time.sleep(0.01)

    def on_train_begin(self, args, state, control, **more):
        self.startup = time.monotonic() - STARTED
        self.times.append(time.monotonic())

    def on_step_end(self, args, state, control, **more):
        self.times.append(time.monotonic())


def finish(name, watch, trainer, data):
    """One line: seconds of each step, the batch, memory, and the held-out accuracy of a whole training."""
    row = {
        "contender": name,
        "batch": trainer.args.per_device_train_batch_size,
        "startup_s": watch.startup,
        "step_s": np.diff(watch.times).tolist(),
        "peak_mb": watch.peak - watch.imported,
        "resident_mb": watch.resident,
    }
    if data is not None:
        row |= {part: trainer.evaluate(data[part])["eval_accuracy"] for part in ("validation", "heldout")}
    print(json.dumps(row))
