"""LitServe with ONNX Runtime: python litserve_app.py WORK PORT HOW

HOW, as JSON: `batch` (most texts of a batch), `wait_s` (longest wait for company), `workers` (processes) and `threads` of
each. A batch is padded to its longest text.
"""

import json
import sys
from pathlib import Path

import litserve
import numpy as np


class Classifier(litserve.LitAPI):
    """One worker: tokenizer and session."""

    def __init__(self, folder: Path, threads: int, **settings):
        super().__init__(**settings)
        self.folder, self.threads = folder, threads

    def setup(self, device):
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        self.session = onnxruntime.InferenceSession(
            str(self.folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))  # truncates
        self.tokenizer.enable_padding()
        task = json.loads((self.folder / "artifact.json").read_text("utf-8"))["task"]
        self.labels = task["settings"]["labels"]

    def decode_request(self, request):
        return request["text"]

    def predict(self, texts):
        """Answer a list of texts; without batching LitServe hands over a single text."""
        if isinstance(texts, str):
            return self.answers([texts])[0]
        return self.answers(texts)

    def answers(self, texts):
        encodings = self.tokenizer.encode_batch(list(texts))
        feed = {
            "input_ids": np.asarray([e.ids for e in encodings], np.int64),
            "attention_mask": np.asarray([e.attention_mask for e in encodings], np.int64),
        }
        (logits,) = self.session.run(["logits"], feed)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
        return [{"label": self.labels[int(s.argmax())], "score": float(s.max())} for s in scores]

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    how = json.loads(sys.argv[3])
    api = Classifier(
        Path(sys.argv[1]) / "onnx", how["threads"], max_batch_size=how["batch"], batch_timeout=how["wait_s"]
    )
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=how["workers"])
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, log_level="warning", generate_client_file=False
    )
