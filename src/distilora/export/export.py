"""Export of a run's model to another form, with a measurement of how far its answers agree with the run's.

merged          one Transformers model                   config.json  model.safetensors  tokenizer.json ...
onnx            one fp32 graph                            model.onnx  tokenizer.json
onnx-int8       its linear layers in 8 bits               model_quantized.onnx  tokenizer.json
openvino        one graph, in what the gate chooses       openvino_model*.xml and .bin  tokenizer.json
transformersjs  both graphs, as Transformers.js has them  config.json  onnx/*.onnx  tokenizer.json ...

run -> merged in memory -> written -> parity gate -> artifact.json, check.npz -> round trip through a fresh process
"""

import dataclasses
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from distilora.artifact.check import Check, read_check
from distilora.artifact.format import Artifact, write_artifact
from distilora.artifact.scores import SCORES, pack_scores, read_scores
from distilora.artifact.tokenizer import open_tokenizer
from distilora.data.overlap import SEEN, seen_file
from distilora.errors import OutputError
from distilora.export.merge import check_agreement, divisor, merged_network, write_transformers
from distilora.export.parity import HeldOut, gate, read_held_out
from distilora.export.preflight import Form, check_export
from distilora.export.roundtrip import verify
from distilora.files.atomic import temporary_name
from distilora.files.full_disk import writing
from distilora.hardware import InferencePrecision, keep_freed_memory, native_bf16, pick_precision
from distilora.inference.backends import FILES, Backend
from distilora.inference.backends.torch_backend import TorchBackend, open_network
from distilora.inference.calibrate import Calibrator, Expert, calibrator_of
from distilora.inference.lanes import run_rows
from distilora.lexicon.format import write_lexicon
from distilora.model.build import load_merged
from distilora.model.encoders.families import head_count
from distilora.model.encoders.find import find_encoder, special_tokens
from distilora.model.network import Network
from distilora.progress import say
from distilora.signals import unwinding
from distilora.tasks.abstention import Scored, scored_answers
from distilora.tasks.base import Task
from distilora.tasks.registry import restore
from distilora.version import __version__

WEIGHTS: dict[Form, Literal["merged", "onnx", "openvino"]] = {
    "merged": "merged", "onnx": "onnx", "onnx-int8": "onnx", "transformersjs": "onnx", "openvino": "openvino",
}  # fmt: skip
Candidates = dict[str, tuple[Callable[[], Backend], float]]
CPU = torch.device("cpu")
CARRYING = ("onnx", "onnx-int8", "openvino")  # forms that distilora alone loads, with room for an n-gram expert
_TRANSFORMERS = "Transformers reads the beginning alone, so its answers to texts of more tokens differ"
_ONNX = "its tokenizer.json cuts nothing, so with that alone the ids must be cut before they are given to the graph"
_READERS = {  # of a model whose texts are truncated in the middle
    "merged": _TRANSFORMERS,
    "onnx": _ONNX,
    "onnx-int8": _ONNX,
    "openvino": _ONNX,
    "transformersjs": _TRANSFORMERS.replace("Transformers", "Transformers.js"),
}


def export_run(
    run: str | Path,
    to: Form,
    output: str | Path,
    *,
    encoder: str | None = None,
    held_out: str | None = None,
    accept_loss: bool = False,
) -> Artifact:
    """Write a run's model in another form to the new folder `output`; the artifact's `parity` records the agreement.

    Args:
        encoder: path of the run's encoder, if it has moved since training.
        held_out: labelled texts for the parity gate (as data.path of an evaluation); None: the run's validation texts.
        accept_loss: write a model that fails the gate, and record that.

    Raises ArtifactError if the run's model is damaged or already exported, or if `output` exists; MissingExtra if a package
    for the form is missing; DataError without held-out texts; ParityError if the model fails the gate; RoundTripError if
    a fresh process does not reproduce its outputs. On any error nothing is left at `output`.
    """
    artifact = check_export(run, to, output)
    if artifact.truncation_side == "middle":
        say(
            f"warning: the middle of a longer text is cut out, in this export only if distilora reads it; {_READERS[to]}"
        )
    output = Path(output)
    keep_freed_memory()
    task = restore(artifact.task["name"], artifact.task["settings"])
    plain = output.with_name(f".{output.name}.{os.getpid()}.plain.tmp")  # the model without artifact.json and check.npz
    with unwinding(f"stopped; {output} is not written"):
        try:
            plain.mkdir(parents=True)
            with writing(output, "export again"):
                return _export(artifact, task, to, output, plain, encoder, held_out, accept_loss)
        except (FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError) as error:
            raise OutputError(f"--output: {output} cannot be written ({error.strerror}); give another folder") from None
        finally:
            shutil.rmtree(plain, ignore_errors=True)


def _export(
    artifact: Artifact,
    task: Task,
    to: Form,
    output: Path,
    plain: Path,
    encoder: str | None,
    held_out: str | None,
    accept: bool,
) -> Artifact:
    tokenizer = open_tokenizer(artifact)
    check = read_check(artifact.folder)
    check_rows = task.tokenise(tokenizer, check.examples).rows
    merged = merged_network(artifact, encoder)
    original = TorchBackend(open_network(artifact, "fp32", CPU, encoder), "fp32", artifact.token_budget)
    unmerged_outputs = run_rows(check_rows, original) / np.float32(artifact.temperature)
    temperature = artifact.temperature / divisor(artifact)  # of the export
    merged_outputs = run_rows(check_rows, TorchBackend(merged, "fp32", artifact.token_budget))
    check_agreement(unmerged_outputs, merged_outputs / np.float32(temperature))
    expert = _carried(artifact, to)
    texts = read_held_out(artifact, task, held_out)
    rows = task.tokenise(tokenizer, texts.examples.items).rows
    outputs = run_rows(rows, original, label="parity: the fp32 original", lanes=True) / np.float32(artifact.temperature)
    del original  # frees its memory
    if to == "merged":
        candidates = _write_merged(artifact, task, merged, plain, encoder, temperature)
    elif to == "openvino":
        candidates = _write_openvino(artifact, merged, plain, temperature)
    else:
        calibration = task.tokenise(tokenizer, texts.calibration).rows
        candidates = _write_onnx(artifact, to, merged, plain, encoder, calibration, temperature)
    targets = task.targets(texts.examples.items, tokenizer)
    calibrate = Calibrator(1.0, expert)  # the outputs are divided by the temperature by now
    parity, answered = gate(
        task, texts.name, targets, rows, outputs, candidates, accept, lambda part: calibrate(part, texts.examples.items)
    )
    precision = parity["default"].split()[1]
    if to == "openvino":
        answered = _keep_default(plain, precision, answered)
    if scores := _scores(artifact, task, tokenizer, texts, answered, expert):
        (plain / SCORES).write_bytes(pack_scores(scores))
    hashes = seen_file(artifact.folder)
    if hashes:  # so that an evaluation still recognises the training texts
        shutil.copyfile(hashes, plain / SEEN)
    if parity["accepted_loss"]:
        say(f"warning: {parity['default']} does not pass the parity gate; written because of --accept-loss")
    backend = candidates[parity["default"]][0]()
    lexicon: dict[str, Any] = {}
    if expert is not None:
        weights = dataclasses.replace(expert.weights, encoder=expert.weights.encoder / temperature)
        lexicon = {**artifact.lexicon, "weights": vars(weights)}
    exported = dataclasses.replace(
        artifact, weights=WEIGHTS[to], precision=precision, quantisation=None, agreement={},
        parity=parity, temperature=temperature, lexicon=lexicon,
        token_budget=artifact.token_budget, schema=Artifact.schema, distilora=__version__,
    )  # fmt: skip
    exported_check = Check(
        check.examples, run_rows(check_rows, backend, exported.token_budget), merged_outputs,
        None if expert is None else expert.logits(check.examples),
    )  # fmt: skip
    if expert is not None:
        write_lexicon(expert.lexicon, plain)
    unverified = plain.with_suffix(".new")  # renamed once a fresh process has reproduced its outputs
    try:
        exported = write_artifact(unverified, exported, lambda target: _move_all(plain, target), exported_check)
        verify(unverified, task, "cpu")
        os.replace(unverified, output)
    finally:
        shutil.rmtree(unverified, ignore_errors=True)
    exported = dataclasses.replace(exported, folder=output)
    say(f"{output}: a fresh process gives back the outputs of {len(check.examples)} texts")
    return exported


def _carried(artifact: Artifact, to: Form) -> Expert | None:
    """Return the n-gram expert that a form carries, its weights those of outputs divided by the temperature; else None.

    A form that others load has no place for it: a note says that it answers as the encoder alone.
    """
    expert = calibrator_of(artifact).expert
    if expert is None:
        return None
    if to in CARRYING:
        encoder = expert.weights.encoder * artifact.temperature
        return Expert(expert.lexicon, dataclasses.replace(expert.weights, encoder=encoder))
    say(
        f"note: {to} cannot carry the run's n-gram expert: it answers as the encoder alone does, calibrated by itself, and is "
        "gated for that; --to onnx and onnx-int8 carry it"
    )
    return None


def _scores(
    artifact: Artifact, task: Task, tokenizer: Tokenizer, texts: HeldOut, outputs: Mapping[str, NDArray[np.float32]],
    expert: Expert | None,
) -> dict[str, Scored]:  # fmt: skip
    """Score the gate's texts in each way of the export; {} if it is unknown how many checkpoints were validated on them."""
    checkpoints = 1
    if texts.chosen_on:
        own = read_scores(artifact)  # those of an earlier release have none
        checkpoints = max((scored.choices for scored in own.values()), default=0)
    if not checkpoints:
        return {}
    items, scores, of_expert = texts.examples.items, {}, None
    if expert is not None:
        of_expert = task.decode(np.float32(expert.weights.expert_alone) * expert.logits(items), items, tokenizer)
    for way, of_way in outputs.items():
        answers = task.decode(of_way, items, tokenizer)
        scored = scored_answers(task, items, answers, checkpoints * len(outputs), of_expert)  # the gate chooses a way
        if scored is not None:
            scores[way] = scored
    return scores


def _write_merged(
    artifact: Artifact, task: Task, merged: Network, plain: Path, encoder: str | None, temperature: float
) -> Candidates:
    write_transformers(merged.model, artifact, plain, _special(artifact, encoder))

    def opener(precision: Any) -> Callable[[], Backend]:
        return lambda: TorchBackend(
            load_merged(plain, task, precision=precision, device=CPU, attention=artifact.attention), precision
        )

    native = pick_precision("auto", CPU)
    return {f"torch {precision}": (opener(precision), temperature) for precision in dict.fromkeys(["fp32", native])}


def _write_onnx(
    artifact: Artifact,
    to: Form,
    merged: Network,
    plain: Path,
    encoder: str | None,
    calibration: Any,
    temperature: float,
) -> Candidates:
    from distilora.export.onnx.attention import fuse_attention
    from distilora.export.onnx.graph import write_onnx
    from distilora.export.onnx.int8 import quantise
    from distilora.inference.backends.graph import feed
    from distilora.inference.backends.onnx_backend import OnnxBackend

    folder = plain
    if to == "transformersjs":
        write_transformers(merged.model, artifact, plain, _special(artifact, encoder), weights=False)
        folder = plain / "onnx"
        folder.mkdir()
    else:
        shutil.copyfile(artifact.folder / "tokenizer.json", plain / "tokenizer.json")
    say("writing the graph")
    names = FILES["onnx"]
    fp32_graph = folder / names["fp32"]
    write_onnx(merged, fp32_graph)
    precisions: list[InferencePrecision] = (
        ["int8"] if to == "onnx-int8" else ["fp32"] if to == "onnx" else ["fp32", "int8"]
    )
    if "int8" in precisions:
        quantise(fp32_graph, folder / names["int8"], (feed(calibration.take([i])) for i in range(calibration.groups)))
    if "fp32" not in precisions:
        fp32_graph.unlink()
    for precision in precisions:
        fuse_attention(folder / names[precision], head_count(merged.model.config))
    files = {file.relative_to(plain).as_posix(): "" for file in plain.rglob("*.onnx")}
    unchecked = dataclasses.replace(artifact, folder=plain, files=files, weights="onnx")

    def opener(precision: Any) -> Callable[[], Backend]:
        return lambda: OnnxBackend(unchecked, precision)

    return {f"onnx {precision}": (opener(precision), temperature) for precision in precisions}


def _write_openvino(artifact: Artifact, merged: Network, plain: Path, temperature: float) -> Candidates:
    """Write both graphs, fp32 and with weights in 8 bits; the first can be computed in bf16, too."""
    from distilora.export.onnx.graph import write_onnx
    from distilora.export.openvino import write_openvino
    from distilora.inference.backends.openvino_backend import OpenVinoBackend

    shutil.copyfile(artifact.folder / "tokenizer.json", plain / "tokenizer.json")
    say("writing the graph")
    names = FILES["openvino"]
    graph = plain / FILES["onnx"]["fp32"]
    write_onnx(merged, graph)
    for precision in ("fp32", "int8"):
        write_openvino(graph, plain / names[precision], int8=precision == "int8")
    graph.unlink()
    files = dict.fromkeys(names.values(), "")
    unchecked = dataclasses.replace(artifact, folder=plain, files=files, weights="openvino")

    def opener(precision: Any) -> Callable[[], Backend]:
        return lambda: OpenVinoBackend(unchecked, precision)

    precisions = [precision for precision in names if precision != "bf16" or native_bf16()]
    return {f"openvino {precision}": (opener(precision), temperature) for precision in precisions}


def _keep_default(
    plain: Path, precision: InferencePrecision, answered: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Remove the graphs that the gate has not chosen; return what the one that is kept answered."""
    names = FILES["openvino"]
    for name in set(names.values()) - {names[precision]}:
        for suffix in (".xml", ".bin"):
            (plain / name).with_suffix(suffix).unlink()
    kept = {f"openvino {way}" for way, name in names.items() if name == names[precision]}
    return {way: outputs for way, outputs in answered.items() if way in kept}


def _special(artifact: Artifact, encoder: str | None) -> dict[str, str]:
    if artifact.weights == "merged":
        import json

        settings = json.loads((artifact.folder / "tokenizer_config.json").read_text("utf-8"))
        return {role: value for role, value in settings.items() if role.endswith("_token") and isinstance(value, str)}
    return special_tokens(
        find_encoder(encoder or artifact.encoder["name"], None if encoder else artifact.encoder["revision"])
    )


def _move_all(source: Path, target: Path) -> None:
    mode = _usual_mode(target)
    for file in source.iterdir():
        if file.is_file():
            file.chmod(mode)  # safetensors makes its files readable by their owner alone
        file.rename(target / file.name)


def _usual_mode(folder: Path) -> int:
    """Determine the mode of a new file in `folder`: os.umask cannot be read without changing it for all threads."""
    probe = temporary_name(folder / "mode")
    os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    return mode
