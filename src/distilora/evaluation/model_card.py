"""The model card, README.md of a run, in the Hub's format: metadata, figures with caveats, ten lines to load the model."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from distilora.artifact.format import Artifact
from distilora.evaluation.views import NAMES
from distilora.model.adapters.methods import METHODS
from distilora.model.adapters.saved import SAVED_FORMS, Saved
from distilora.tasks.base import Task
from distilora.tasks.metrics.names import METRICS, metric_text

_TEMPLATE = """---
{metadata}
---

# {name}

{encoder}, fine-tuned by distilora {version} for {task}; method: {method}.

## Figures

{figures}

{notes}

## Use

With distilora:

    distilora predict {run} {example}
{plain}
## Training

Data: {source} ({train:,} training examples, {validation:,} validation examples). Texts are cleaned by the
`{cleaning}` step, v{cleaning_version}, and {truncated}. Precision: {precision}. Settings are in `run.yaml`,
versions in `environment.json`, every answer in `predictions.parquet`, plots in `report.html`.
"""

_PLAIN = """
With {packages} alone{folder_hint}:

```python
{snippet}
```
{otherwise}"""

_OTHERWISE = """
**These lines read otherwise than distilora.** The model was trained on texts of which the middle was cut out beyond
{max_length} tokens: their beginning and their end. Transformers cannot do that: it reads the beginning alone, and answers to longer
texts differ.
"""
_READ = {
    "right": "truncated to {max_length} tokens",
    "left": "truncated to their last {max_length} tokens",
    "middle": "truncated to {max_length} tokens by cutting out their middle: a quarter of these are their first tokens, the others "
    "their last",
}


_COMBINED = (
    "The figures are those of the encoder combined with an n-gram expert (model/lexicon), which distilora alone reads; loaded "
    "with other packages, the encoder answers alone, with the figures under its name."
)


_SNIPPET = """import torch
{imports}
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

tokenizer = PreTrainedTokenizerFast(
    tokenizer_file="{run}/model/tokenizer.json", pad_token="{pad}", model_max_length={max_length}, truncation_side="{side}"
)
base = AutoModelForSequenceClassification.from_pretrained("{base}", num_labels={outputs}, id2label={id2label})
{load}
batch = tokenizer(["A text to judge."], truncation=True, padding=True, return_tensors="pt", return_token_type_ids=False)
with torch.no_grad():
    logits = model(**batch).logits
print({answer})"""


def model_card(
    run: str,
    artifact: Artifact,
    task: Task,
    pad_token: str,
    truncation_side: str,
    splits: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    data: Mapping[str, Any],
) -> str:
    """Write the card's text. `splits` holds the metrics from `measure`, the final test first if there is one."""
    embedded = artifact.encoder["name"] == "embedded"
    base_name = "sentence-transformers/all-MiniLM-L6-v2" if embedded else artifact.encoder["name"]
    folder = "minilm" if embedded else artifact.encoder["name"]
    hint = f" (`distilora encoder embedded --output {folder}` writes the encoder first)" if embedded else ""
    loading = SAVED_FORMS[cast(Saved, artifact.weights)].elsewhere
    metadata = {
        "library_name": loading.library,
        "base_model": base_name,
        "pipeline_tag": task.pipeline_tag,
        "tags": ["distilora", artifact.method],
    }
    answer = task.plain_answer(artifact.temperature)
    snippet = _SNIPPET.format(
        run=run,
        imports=loading.imports,
        load=loading.code.format(run=run),
        pad=pad_token,
        side="right" if truncation_side == "middle" else truncation_side,
        max_length=artifact.max_length,
        base=folder,
        outputs=task.outputs,
        id2label=dict(enumerate(task.labels or [f"OUTPUT_{i}" for i in range(task.outputs)])),
        answer=answer,
    )
    # Another task's head may pool its rows in its own way, which the Transformers class does not implement.
    on_base = " (on the full-precision encoder; training kept it in 4 bits)" if artifact.quantisation else ""
    plain = (
        _PLAIN.format(
            packages=loading.packages,
            folder_hint=on_base + hint,
            snippet=snippet,
            otherwise=_OTHERWISE.format(max_length=artifact.max_length) if truncation_side == "middle" else "",
        )
        if answer
        else ""
    )
    if artifact.lexicon:
        notes = [*notes, _COMBINED]
    return _TEMPLATE.format(
        metadata="\n".join(f"{key}: {json.dumps(value)}" for key, value in metadata.items()),
        name=run.rstrip("/").rsplit("/", 1)[-1],
        encoder=base_name,
        version=artifact.distilora,
        method=METHODS[artifact.method].phrase,
        task=task.phrase,
        figures="\n\n".join([*_verdict(splits[0]), _table(splits), *_views(splits), *task.card(splits)]),
        notes="\n".join(f"- {note}" for note in notes),
        run=run,
        example=task.example,
        plain=plain,
        source=data["source"],
        train=data["train"],
        validation=data["validation"],
        cleaning=artifact.cleaning["name"],
        cleaning_version=artifact.cleaning["version"],
        truncated=_READ[truncation_side].format(max_length=artifact.max_length),
        precision=artifact.precision,
    )


def _table(splits: Sequence[Mapping[str, Any]]) -> str:
    rows = ["| metric | " + " | ".join(f"{s['split']} (n = {s['examples']:,})" for s in splits) + " |"]
    rows.append("|---|" + "---|" * len(splits))
    for name in splits[0]["metrics"]:
        title = METRICS.get(name, (name, ""))[0]
        rows.append(f"| {title} | " + " | ".join(metric_text(name, s["metrics"][name]) for s in splits) + " |")
    return "\n".join(rows)


def _views(splits: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write the accuracy of each view of a combined model, a line each; nothing for any other."""
    split = next((s for s in splits if "views" in s), None)
    if split is None:
        return []
    metrics = split["views"]["metrics"]
    metric = next(iter(metrics["combined"]))
    lines = [f"- {title}: {metric_text(metric, metrics[view][metric])}" for view, title in NAMES.items()]
    return [f"{METRICS.get(metric, (metric, ''))[0]} on {split['split']}:", "\n".join(lines)]


def _verdict(split: Mapping[str, Any]) -> list[str]:
    return [f"**{split['verdict']}**"] if split.get("verdict") else []
