"""Writing of an ONNX graph in OpenVINO's format, its linear layers in fp32 or with weights in 8 bits.

    W  ~  W_q s_W       W_q = round(W / s_W), s_W = max|W| / 127 of each output

OpenVINO rounds the inputs itself, in groups of GROUP channels of a token, so that no token's scale depends on another token;
that needs no calibration. Of a linear layer with one vector for each text (the last block's, where only first tokens are
computed, and the head's) the weights stay as they are: OpenVINO 2026.4 computes wrong outputs there in bf16 (LOG.md: OpenVINO).
"""

from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from distilora.export.onnx.int8 import linear_layers
from distilora.inference.backends.openvino_backend import runtime

GROUP = 384  # channels that share a scale, at most
LEAST_GROUP = 32  # OpenVINO's own


def write_openvino(source: Path, target: Path, *, int8: bool) -> None:
    """Write the fp32 graph `source` (.onnx) to `target` (.xml, and .bin beside it)."""
    import onnx

    openvino = runtime()
    model = onnx.load(str(source))
    group = _round_weights(model) if int8 else 0
    graph = openvino.Core().read_model(model.SerializeToString())
    if group:
        graph.set_rt_info(str(group), ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    openvino.save_model(graph, str(target), compress_to_fp16=False)


def _round_weights(model: Any) -> int:
    """Give the linear layers weights in 8 bits, in place; return the channels that share a scale of the inputs, 0 for none."""
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = {node.name for node in linear_layers(model)}
    nodes, widths = [], []
    for node in model.graph.node:
        if node.name in layers:
            weight = np.asarray(numpy_helper.to_array(constants[node.input[1]]), np.float32)
            widths.append(len(weight))
            scale = np.maximum(np.abs(weight).max(0) / 127, np.float32(1e-12)).astype(np.float32)
            rounded = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
            names = [f"{node.name}.weight", f"{node.name}.scale"]
            for name, value in zip(names, (rounded, scale), strict=True):
                constants[name] = numpy_helper.from_array(value, name)
            nodes.append(helper.make_node("DequantizeLinear", names, [f"{node.name}.wide"], axis=1))
            node.input[1] = f"{node.name}.wide"
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    for field, values in (
        (model.graph.node, nodes),
        (model.graph.initializer, [tensor for name, tensor in constants.items() if name in used]),
    ):
        del field[:]
        field.extend(values)
    del model.graph.value_info[:]
    return _group(widths)


def _group(widths: list[int]) -> int:
    """Choose the channels that share a scale: a divisor of every layer's width, GROUP at most; 0 if it would be too small."""
    group = gcd(*widths)
    while group > GROUP and group % 2 == 0:
        group //= 2
    return group if LEAST_GROUP <= group <= GROUP else 0
