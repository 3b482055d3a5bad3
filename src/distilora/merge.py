"""From an artifact to one plain Transformers model: what training changed is added into the encoder's weights.

    W' = W + (alpha / r) B A        on a 4-bit base W is what the four bits say, widened to fp32: that is what was adapted

The last layer is divided by the temperature, so that any program's softmax gives calibrated probabilities. The folder
loads with `from_pretrained` and `pipeline`, and is an artifact as well: distilora predicts from it without the encoder,
without PEFT's adapter, without bitsandbytes.
"""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distilora import __version__
from distilora.architectures import Architecture
from distilora.artifact import Artifact, Check, read_artifact, read_check, write_artifact
from distilora.backends.torch_backend import open_network
from distilora.config import Precision
from distilora.encode import Network
from distilora.encoders import find_encoder, special_tokens
from distilora.errors import ArtifactError, OutputError, RoundTripError
from distilora.evaluation import SEEN
from distilora.folder import writing
from distilora.network import hushed, load_merged, merge
from distilora.predict import run_rows
from distilora.progress import say
from distilora.roundtrip import verify
from distilora.saving import InMemory, agreement
from distilora.tasks import restore
from distilora.tokens import read_tokenizer, tokenise

TOLERANCE = 1e-4  # of an fp32 output, relative to the largest: sums in another order, no more


def merge_run(run: str | Path, output: str | Path, encoder: str | None = None) -> dict[str, Any]:
    """Merges a run's model on the CPU into the new folder `output`, and says how far it agrees with the unmerged one.

    Returns, for fp32 and for the run's precision, the largest difference of an output and the share of equal labels
    between merged and unmerged on the texts of the artifact's check; they also stand in the new artifact.json. A
    fresh process must give the merged model's outputs back.

    Raises ArtifactError if the run's model is damaged, merged already, or its merged weights are not finite, or if
    `output` exists; RoundTripError if its fp32 outputs are others, or it cannot be reloaded as it was.
    """
    output = Path(output)
    if output.exists() or output.is_symlink():
        raise ArtifactError(f"--output: {output} exists already; give another folder")
    artifact = read_artifact(run)
    if artifact.weights == "merged":
        raise ArtifactError(f"{run}: is merged already; copy it")
    plain = output.with_name(f".{output.name}.{os.getpid()}.plain.tmp")  # the model, before its check is known
    try:
        plain.mkdir(parents=True)
        return _merge(artifact, output, plain, encoder)
    except (FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError) as error:
        raise OutputError(f"--output: {output} cannot be written ({error.strerror}); give another folder") from None
    finally:
        shutil.rmtree(plain, ignore_errors=True)


def _merge(artifact: Artifact, output: Path, plain: Path, encoder: str | None) -> dict[str, Any]:
    cpu = torch.device("cpu")
    task = restore(artifact.task["name"], artifact.task["settings"])
    check = read_check(artifact)
    tokenizer_file = artifact.folder / "tokenizer.json"
    tokenizer = read_tokenizer(tokenizer_file)
    rows = tokenise(tokenizer, check.examples).rows
    precisions: list[Precision] = ["fp32"] if artifact.precision == "fp32" else ["fp32", artifact.precision]

    def outputs(
        network: Callable[[Precision], Network], temperature: float = 1.0
    ) -> dict[Precision, NDArray[np.float32]]:
        return {
            name: run_rows(rows, InMemory(network(name), name, artifact.token_budget)) / np.float32(temperature)
            for name in precisions
        }

    found = find_encoder(encoder or artifact.encoder["name"], None if encoder else artifact.encoder["revision"])
    before = outputs(lambda precision: open_network(artifact, precision, cpu, encoder), artifact.temperature)
    model = merge(open_network(artifact, "fp32", cpu, encoder, "widened" if artifact.quantisation else "auto"))
    _divide_last_layer(model, found.architecture, artifact.temperature)
    with writing(output, "export again"):
        with hushed():
            model.save_pretrained(plain, safe_serialization=True)
        _write_tokenizer(tokenizer_file, plain, artifact.max_length, special_tokens(found))
        seen = artifact.folder.parent / SEEN
        if seen.is_file():
            shutil.copyfile(seen, plain / SEEN)
        after = outputs(
            lambda precision: load_merged(plain, task, precision=precision, device=cpu, attention=artifact.attention)
        )
        report = {f"unmerged, {name}": agreement(task, before[name], after[name]) for name in precisions}
        _check_agreement(report["unmerged, fp32"]["largest_difference"], float(np.abs(before["fp32"]).max()))
        merged = dataclasses.replace(
            artifact, weights="merged", quantisation=None, agreement=report, temperature=1.0, distilora=__version__
        )
        check = Check(check.examples, after[artifact.precision], after["fp32"])
        write_artifact(output, merged, lambda target: _move_all(plain, target), check)
    try:
        verify(output, task, "cpu")
    except RoundTripError:
        shutil.rmtree(output)
        raise
    say(f"{output}: a fresh process gives back the outputs of {len(check.examples)} texts")
    return report


def _divide_last_layer(model: Any, family: Architecture, temperature: float) -> None:
    head = model.get_submodule(family.head_layers[-1])
    last = [layer for layer in head.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.div_(temperature)


def _check_agreement(difference: float, largest: float) -> None:
    allowed = TOLERANCE * max(largest, 1.0)
    if not difference <= allowed:
        raise RoundTripError(
            f"merging: fp32 outputs differ by {difference:.3g} from the unmerged ones (allowed {allowed:.3g})"
        )


def _write_tokenizer(source: Path, folder: Path, max_length: int, special: dict[str, str]) -> None:
    """tokenizer.json as it is, truncation included, and what Transformers wants beside it."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_file(str(source))
    side = (tokenizer.truncation or {}).get("direction", "right")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, truncation_side=side, **special,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    fast.save_pretrained(folder)
    shutil.copyfile(source, folder / "tokenizer.json")


def _move_all(source: Path, target: Path) -> None:
    for file in source.iterdir():
        file.rename(target / file.name)
