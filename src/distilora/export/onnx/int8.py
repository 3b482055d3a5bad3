"""An ONNX graph's linear layers in 8 bits: weights once and for all, inputs row by row as they come.

    x W  ~  s_x (x_q W_q) s_W       x_q = round(x / s_x) with s_x = max|x| / 127 of each token      (dynamic, per row)
                                    W_q = round(W / s_W) with s_W = max|W| / 127 of each output     (static, per channel)

No token's scale depends on another token, so an answer does not depend on what else is in the batch. A single scale for a
whole tensor, static or dynamic, changed 1 to 2% of the labels here (LOG.md). Two things more keep the rounding small:

- The norms before a layer give a few channels ten times the others' size, and such a channel would set the scale of its
  row. x / m and m W are multiplied instead, m = max|x|^a / max|W|^(1 - a) for each channel, the maxima of x taken on real
  reviews (SmoothQuant, Xiao et al. 2023).
- gelu is never below -0.17: gelu + 0.17 uses all 256 steps instead of half of them, 0.17 times W's column sums go off again.

Attention, norms and the few rows of the last block and the head stay in fp32.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distilora.export.onnx.attention import DOMAIN, need_domain

SMOOTHING = 0.65  # a
GELU_LEAST = 0.17  # gelu(x) >= -0.16997
LEAST_WIDTH = 16  # narrower layers stay as they are
F32 = NDArray[np.float32]


def quantise(source: Path, target: Path, texts: Iterable[dict[str, NDArray[np.int64]]]) -> dict[str, Any]:
    """Writes the fp32 graph `source` with int8 linear layers to `target`; `texts` are inputs to calibrate on.

    Returns what was done: layers in int8, smoothing, number of inputs.
    """
    import onnx

    model = onnx.load(str(source))
    layers = _layers(model)
    largest, count = _largest_inputs(source, sorted({node.input[0] for node in layers}), texts)
    _Rewriting(model, largest).run({node.name for node in layers})
    onnx.checker.check_model(model)
    onnx.save(model, str(target))
    return {
        "layers": len(layers), "weights": "int8 per channel", "inputs": "int8 per row, dynamic", "smoothing": SMOOTHING,
        "calibration_texts": count,
    }  # fmt: skip


def _layers(model: Any) -> list[Any]:
    """MatMul nodes with a constant matrix."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type == "MatMul"
        and len(shapes.get(node.input[1], ())) == 2
        and min(shapes[node.input[1]]) >= LEAST_WIDTH
    ]


def _largest_inputs(
    source: Path, names: list[str], texts: Iterable[dict[str, NDArray[np.int64]]]
) -> tuple[dict[str, F32], int]:
    """max|x| of each channel of the named tensors, and over how many inputs."""
    import onnx
    import onnxruntime

    model = onnx.load(str(source))
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: dict[str, F32] = {}
    count = 0
    for feed in texts:
        for name, x in zip(names, session.run(names, feed), strict=True):
            here = np.abs(x.reshape(-1, x.shape[-1])).max(0)
            found[name] = np.maximum(found.get(name, here), here)
        count += 1
    if not count:
        raise ValueError("no texts to calibrate on")
    return found, count


class _Rewriting:
    """Takes the nodes over, one by one, quantised where asked for."""

    def __init__(self, model: Any, largest: dict[str, F32]) -> None:
        from onnx import numpy_helper

        self.model, self.graph, self.largest = model, model.graph, largest
        self.to_array = numpy_helper.to_array
        self.from_array = numpy_helper.from_array
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.made_by = {node.output[0]: node.op_type for node in self.graph.node}
        self.nodes: list[Any] = []
        self.inputs: dict[str, F32 | None] = {}  # those quantised already, and what they were divided by

    def run(self, wanted: set[str]) -> None:
        for node in self.graph.node:
            if node.name in wanted:
                self._layer(node)
            else:
                self.nodes.append(node)
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for name, tensor in self.constants.items() if name in used]
        for field, values in ((self.graph.node, self.nodes), (self.graph.initializer, kept)):
            del field[:]
            field.extend(values)
        del self.graph.value_info[:]
        need_domain(self.model)

    def _layer(self, node: Any) -> None:
        x, weight = node.input[0], np.asarray(self.to_array(self.constants[node.input[1]]), np.float32)
        shifted = self.made_by.get(x) == "Gelu"
        if x not in self.inputs:
            self.inputs[x] = self._input(x, weight, shifted)
        smoothing = self.inputs[x]
        weight = weight if smoothing is None else weight * smoothing[:, None]
        scale = np.maximum(np.abs(weight).max(0) / 127, np.float32(1e-12))
        rounded = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
        name = node.name
        product = self._add(
            "MatMulIntegerToFloat",
            [f"{x}.q", self._constant(f"{name}.weight", rounded), self._constant("q.one", np.float32(1)),
             self._constant(f"{name}.scale", (scale / (255 if shifted else 127)).astype(np.float32)), f"{x}.zero"],
            f"{name}.product", domain=DOMAIN,
        )  # fmt: skip
        if not shifted:
            self._add("Mul", [product, f"{x}.max"], node.output[0])
            return
        scaled = self._add("Mul", [product, f"{x}.max"], f"{name}.scaled")
        off = -GELU_LEAST * (rounded.astype(np.float64) * scale).sum(0)
        self._add("Add", [scaled, self._constant(f"{name}.off", off.astype(np.float32))], node.output[0])

    def _input(self, x: str, weight: F32, shifted: bool) -> F32 | None:
        """Adds x.q, x.max and x.zero; returns what the channels were divided by."""
        smoothing: F32 | None = None
        given = x
        if shifted:
            given = self._add("Add", [x, self._constant("q.least", np.float32(GELU_LEAST))], f"{x}.shifted")
            size = given
        else:
            if self.made_by.get(x) == "LayerNormalization":
                least = np.float32(1e-5)
                sizes = np.maximum(self.largest[x], least), np.maximum(np.abs(weight).max(1), least)
                smoothing = np.asarray(sizes[0] ** SMOOTHING / sizes[1] ** (1 - SMOOTHING), np.float32)
                given = self._add("Mul", [x, self._constant(f"{x}.smoothing", 1 / smoothing)], f"{x}.smooth")
            size = self._add("Abs", [given], f"{x}.abs")
        top, zero = (255, 0) if shifted else (127, 128)
        self._constant(f"{x}.zero", np.asarray(zero, np.uint8))
        last = self._constant("q.last", np.asarray([-1], np.int64))
        largest = self._add("ReduceMax", [size, last], f"{x}.largest", keepdims=1)
        # an empty row would divide by nothing
        largest = self._add("Max", [largest, self._constant("q.tiny", np.float32(1e-12))], f"{x}.max")
        inverse = self._add("Div", [self._constant(f"q.{top}", np.float32(top)), largest], f"{x}.inverse")
        scaled = self._add("Mul", [given, inverse], f"{x}.scaled")
        self._add("QuantizeLinear", [scaled, self._constant("q.one", np.float32(1)), f"{x}.zero"], f"{x}.q")
        return smoothing

    def _constant(self, name: str, value: Any) -> str:
        if name not in self.constants:
            self.constants[name] = self.from_array(np.asarray(value), name)
        return name

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}.node", **attributes))
        return output
