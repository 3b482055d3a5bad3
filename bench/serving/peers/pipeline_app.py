"""A plain FastAPI app around Transformers' `pipeline`: python pipeline_app.py WORK PORT HOW

HOW, as JSON: `dtype`, and `threaded`: whether the route is a plain `def`, which FastAPI runs in its thread pool, or `async`.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

how = json.loads(sys.argv[3])
transformers.utils.logging.set_verbosity_error()
classify = transformers.pipeline(
    "text-classification", model=str(Path(sys.argv[1]) / "merged"), device="cpu", dtype=getattr(torch, how["dtype"])
)
app = FastAPI()


class Asked(BaseModel):
    """A text to classify."""

    text: str


def answer(asked: Asked):
    return classify(asked.text, truncation=True)[0]


async def answer_in_turn(asked: Asked):
    return classify(asked.text, truncation=True)[0]


@app.get("/health")
def health():
    return "ok"


app.post("/classify")(answer if how["threaded"] else answer_in_turn)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
