"""Quantisation of an ONNX graph's linear layers to int8: weights statically, inputs dynamically, row by row.

    x W  ~  s_x (x_q W_q) s_W       x_q = round(x / s_x) with s_x = max|x| / 127 of each token      (dynamic, per row)
                                    W_q = round(W / s_W) with s_W = max|W| / 127 of each output     (static, per channel)

No token's scale depends on another token, so an answer does not depend on the rest of its batch. A single scale for a whole
tensor, static or dynamic, changed 1 to 2% of the labels here (LOG.md: Which 8 bits). Two more measures keep the
rounding error small:

- The layer norms make a few channels ten times as large as the others, and such a channel would set the scale of its row.
  x / m and m W are multiplied instead, m = max|x|^a / max|W|^(1 - a) for each channel, with the maxima of x over
  calibration texts (SmoothQuant, Xiao et al. 2023).
- gelu is never below -0.17: gelu + 0.17 uses all 256 steps instead of half of them; 0.17 times the column sums of W is
  subtracted afterwards.

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
LEAST_WIDTH = 16  # narrower layers stay in fp32
F32 = NDArray[np.float32]


def quantise(source: Path, target: Path, texts: Iterable[dict[str, NDArray[np.int64]]]) -> dict[str, Any]:
    """Write the fp32 graph `source` with int8 linear layers to `target`; `texts` are inputs to calibrate on.

    Returns a summary: number of int8 layers, kinds of scales, smoothing, number of calibration texts.
    """
    import onnx

    model = onnx.load(str(source))
    layers = linear_layers(model)
    largest, count = _largest_inputs(source, sorted({node.input[0] for node in layers}), texts)
    _Rewriting(model, largest).run({node.name for node in layers})
    onnx.checker.check_model(model)
    onnx.save(model, str(target))
    return {
        "layers": len(layers), "weights": "int8 per channel", "inputs": "int8 per row, dynamic", "smoothing": SMOOTHING,
        "calibration_texts": count,
    }  # fmt: skip


def linear_layers(model: Any) -> list[Any]:
    """List the MatMul nodes with a constant matrix."""
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
    """Compute max|x| of each channel of the named tensors, and count the inputs it was taken over."""
    import onnx
    import onnxruntime

    model = onnx.load(str(source))
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    largest: dict[str, F32] = {}
    count = 0
    for feed in texts:
        for name, x in zip(names, session.run(names, feed), strict=True):
            of_text = np.abs(x.reshape(-1, x.shape[-1])).max(0)
            largest[name] = np.maximum(largest.get(name, of_text), of_text)
        count += 1
    if not count:
        raise ValueError("no texts to calibrate on")
    return largest, count


class _Rewriting:
    """Rewriter of a graph, node by node, with chosen linear layers in int8."""

    def __init__(self, model: Any, largest: dict[str, F32]) -> None:
        from onnx import numpy_helper

        self.model, self.graph, self.largest = model, model.graph, largest
        self.to_array = numpy_helper.to_array
        self.from_array = numpy_helper.from_array
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.producers = {node.output[0]: node.op_type for node in self.graph.node}
        self.nodes: list[Any] = []
        self.inputs: dict[str, F32 | None] = {}  # inputs quantised so far -> their smoothing, if any

    def run(self, layers: set[str]) -> None:
        """Rewrite the graph in place, with the named layers in int8."""
        for node in self.graph.node:
            if node.name in layers:
                self._layer(node)
            else:
                self.nodes.append(node)
        used = {name for node in self.nodes for name in node.input}
        constants = [tensor for name, tensor in self.constants.items() if name in used]
        for field, values in ((self.graph.node, self.nodes), (self.graph.initializer, constants)):
            del field[:]
            field.extend(values)
        del self.graph.value_info[:]
        need_domain(self.model)

    def _layer(self, node: Any) -> None:
        x, weight = node.input[0], np.asarray(self.to_array(self.constants[node.input[1]]), np.float32)
        shifted = self.producers.get(x) == "Gelu"
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
        offset = -GELU_LEAST * (rounded.astype(np.float64) * scale).sum(0)
        self._add("Add", [scaled, self._constant(f"{name}.off", offset.astype(np.float32))], node.output[0])

    def _input(self, x: str, weight: F32, shifted: bool) -> F32 | None:
        """Add nodes for x.q, x.max and x.zero; return the smoothing that divides the channels, if any."""
        smoothing: F32 | None = None
        tensor = x
        if shifted:
            tensor = self._add("Add", [x, self._constant("q.least", np.float32(GELU_LEAST))], f"{x}.shifted")
            size = tensor
        else:
            if self.producers.get(x) == "LayerNormalization":
                least = np.float32(1e-5)
                sizes = np.maximum(self.largest[x], least), np.maximum(np.abs(weight).max(1), least)
                smoothing = np.asarray(sizes[0] ** SMOOTHING / sizes[1] ** (1 - SMOOTHING), np.float32)
                tensor = self._add("Mul", [x, self._constant(f"{x}.smoothing", 1 / smoothing)], f"{x}.smooth")
            size = self._add("Abs", [tensor], f"{x}.abs")
        top, zero = (255, 0) if shifted else (127, 128)
        self._constant(f"{x}.zero", np.asarray(zero, np.uint8))
        last = self._constant("q.last", np.asarray([-1], np.int64))
        largest = self._add("ReduceMax", [size, last], f"{x}.largest", keepdims=1)
        # a row of zeros would be divided by 0
        largest = self._add("Max", [largest, self._constant("q.tiny", np.float32(1e-12))], f"{x}.max")
        inverse = self._add("Div", [self._constant(f"q.{top}", np.float32(top)), largest], f"{x}.inverse")
        scaled = self._add("Mul", [tensor, inverse], f"{x}.scaled")
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
