"""A service of canned models for tests of the page: the routes that the page calls, and a lexicon in place of any network.

It keeps the contract of the real service: places are code points, NDJSON is answered line by line, every answer has the headers.
"""

import json
import math
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PAGE = Path(__file__).parents[2] / "src" / "distilora" / "serving" / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
POLICY = (  # the strictest under which the page must work
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
GOOD = {"superb": 1.9, "love": 1.4, "gripping": 1.6, "good": 0.9, "beautifully": 1.1, "last": 0.15, "warm": 0.8}
BAD = {"slow": 0.9, "dull": 1.7, "wooden": 1.2, "boring": 1.9, "bad": 1.3, "start": 0.1, "predictable": 0.8}
BINS = [  # of a run of the first recipe
    {"confidence": 0.52, "accuracy": 0.46, "count": 46}, {"confidence": 0.57, "accuracy": 0.59, "count": 91},
    {"confidence": 0.64, "accuracy": 0.63, "count": 84}, {"confidence": 0.7, "accuracy": 0.73, "count": 105},
    {"confidence": 0.77, "accuracy": 0.74, "count": 120}, {"confidence": 0.84, "accuracy": 0.83, "count": 170},
    {"confidence": 0.9, "accuracy": 0.88, "count": 250}, {"confidence": 0.97, "accuracy": 0.98, "count": 1624},
]  # fmt: skip
CARD = """---
library_name: "peft"
---

# imdb

all-MiniLM-L6-v2, fine-tuned for classification into negative, positive; method: LoRA.

## Figures

| metric | test (n = 25,000) |
|---|---|
| Accuracy | 94.04% (93.75 to 94.32) |

**Read this**: the figures are of `test`.

- one <b>item</b>
- another

    distilora predict imdb "A text to judge."
"""


def _model(name: str, task: str, labels: tuple[str, ...], figures: dict[str, dict[str, float]]) -> dict:
    return {
        "name": name, "task": task, "labels": list(labels), "figures": figures, "engine": "shared encoder, bf16",
        "measured_on": {"split": "test", "examples": 25_000} if figures else None, "limits": {}, "first": name == "imdb",
    }  # fmt: skip


MODELS = [
    _model("imdb", "classification", ("negative", "positive"), {
        "accuracy": {"value": 0.9404, "low": 0.9375, "high": 0.9432}, "mcc": {"value": 0.881, "low": 0.875, "high": 0.887},
        "auroc": {"value": 0.9842, "low": 0.983, "high": 0.9854}, "ece": {"value": 0.0108, "low": None, "high": None},
    }),
    _model("genres", "classification", ("negative", "positive"), {"ece": {"value": 0.31, "low": None, "high": None}}),
    _model("moods", "classification", ("negative", "positive"), {}),
    _model("topics", "multilabel", ("acting", "music", "plot", "pictures", "sound", "humour", "length", "ending"), {}),
    _model("stars", "regression", (), {"mae": {"value": 0.61, "low": 0.58, "high": 0.64}}),
    _model("answers", "question_answering", (), {"f1": {"value": 0.781, "low": 0.77, "high": 0.79}}),
    _model("sums", "summarization", (), {"rouge1": {"value": 0.412, "low": 0.40, "high": 0.42}}),
]  # fmt: skip


def odds(text: str) -> float:
    words = re.findall(r"\w+", text.lower())
    return sum(GOOD.get(word, 0) - BAD.get(word, 0) for word in words)


def positive(text: str) -> float:
    return 1 / (1 + math.exp(-odds(text)))


def classify(model: dict, text: str, explain: bool) -> dict:
    truncated = len(text.split()) > 400
    if model["task"] == "multilabel":
        scores = [(label, 0.92 if label in text else 0.08) for label in model["labels"]]
        rows = [
            {"label": label, "score": p, "answered": p > 0.5} for label, p in sorted(scores, key=lambda one: -one[1])
        ]
        return {"labels": rows, "truncated": truncated}
    p = positive(text)
    if model["task"] == "regression":
        answer, measured, label = {"value": 1 + 9 * p}, lambda text: 1 + 9 * positive(text), "value"
    else:
        label = "positive" if p >= 0.5 else "negative"
        sides = sorted([("positive", p), ("negative", 1 - p)], key=lambda one: -one[1])
        answer = {
            "label": label, "score": max(p, 1 - p), "abstain": "abstain" in text,
            "labels": [{"label": name, "score": share} for name, share in sides],
        }  # fmt: skip
        measured = positive if p >= 0.5 else lambda text: 1 - positive(text)
    answer["truncated"] = truncated
    if explain:
        cleaned = " ".join(text.split())
        parts = []
        for word in re.finditer(r"\S+", cleaned):
            weight = measured(cleaned) - measured(cleaned[: word.start()] + cleaned[word.end() :])
            part = {"text": word[0], "start": word.start(), "end": word.end()}
            parts.append({**part, "weight": None if "unread" in word[0] else weight})
        answer["explanation"] = {
            "method": "leave-one-out", "level": "word", "label": label, "measure": "probability", "text": cleaned, "parts": parts,
        }  # fmt: skip
    return answer


def span(question: str, context: str) -> dict:
    """The first word of the context that begins with a capital and is not in the question, as an answer."""
    found = next((word for word in re.finditer(r"\b[A-Z]\w+(?: [A-Z]\w+)*", context) if word[0] not in question), None)
    if found is None:
        return {"answer": "", "start": -1, "end": -1, "score": 0.83, "no_answer": 0.83, "truncated": False}
    return {
        "answer": found[0],
        "start": found.start(),
        "end": found.end(),
        "score": 0.88,
        "no_answer": 0.03,
        "truncated": False,
    }


def summarise(text: str, most: int) -> dict:
    chosen = list(re.finditer(r"[^.!?\s][^.!?]*[.!?]", text))[:most]
    sentences = [{"text": one[0], "start": one.start(), "end": one.end()} for one in chosen]
    return {"summary": " ".join(one["text"] for one in sentences), "sentences": sentences, "truncated": False}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "StandIn"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/v1/models":
            return self._json({"models": MODELS, "corrections": True})
        if path.startswith("/v1/models/"):
            model = next(one for one in MODELS if one["name"] == path.rsplit("/", 1)[1])
            more = (
                {"card": CARD, "reliability": BINS} if model["name"] == "imdb" else {"card": None, "reliability": None}
            )
            return self._json({**model, **more})
        file = PAGE / ("index.html" if path == "/" else path.removeprefix("/page/"))
        if file.parent != PAGE or not file.is_file():
            return self._json({"error": {"kind": "not_found", "message": "no such page"}}, 404)
        return self._send(file.read_bytes(), TYPES[file.suffix])

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-type"] == "application/x-ndjson":
            return self._stream(parse_qs(url.query)["model"][0], body)
        asked = json.loads(body)
        self.server.asked.append((url.path, asked))
        model = next(one for one in MODELS if one["name"] == asked.get("model", "imdb"))
        if url.path == "/v1/corrections":
            return self._json({"kept": True})
        if url.path == "/v1/answer":
            answer = span(asked["question"], asked["context"])
        elif url.path == "/v1/summarise":
            answer = summarise(asked["input"], asked.get("sentences", 2))
        else:
            answer = classify(model, asked["input"], asked.get("explain", False))
        return self._json({"model": model["name"], "task": model["task"], "answers": [answer], "usage": {"tokens": 9}})

    def _stream(self, name: str, body: bytes) -> None:
        model = next(one for one in MODELS if one["name"] == name)
        self.send_response(200)
        self._headers("application/x-ndjson")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for line in body.splitlines():
            text = json.loads(line)
            time.sleep(self.server.seconds_a_line)
            if "unreadable" in text:
                answer = {"error": {"kind": "invalid", "message": "=this text cannot be read"}}
            else:
                answer = classify(model, text, False)
            raw = json.dumps(answer).encode() + b"\n"
            self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self._headers(kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _headers(self, kind: str) -> None:
        self.send_header("content-type", kind)
        self.send_header("content-security-policy", POLICY)
        self.send_header("x-content-type-options", "nosniff")
        self.send_header("referrer-policy", "no-referrer")

    def log_message(self, *_: object) -> None:
        pass


class StandIn(ThreadingHTTPServer):
    """The service on a free port of this machine; `asked` are the requests in JSON."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, dict]] = []
        self.seconds_a_line = 0.0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, *_: object) -> None:
        """A browser that cancels a request is no error."""
