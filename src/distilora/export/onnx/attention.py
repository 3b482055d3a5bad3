"""Attention in an ONNX graph by ONNX Runtime's own operator, without a mask where nothing is padded.

    q, k, v -> scores + padding -> softmax -> sum        becomes

    If(attention_mask all 1)   MultiHeadAttention(q, k, v)          in blocks that stay in the cache (flash attention)
    else                       MultiHeadAttention(q, k, v, mask)

The operator with a mask writes every score out, the one without does not and takes two thirds of the time (LOG.md). So texts
that run alone, or beside others of their length, gain.
"""

from pathlib import Path
from typing import Any

MASK = "attention_mask"
DOMAIN = "com.microsoft"


def fuse_attention(path: Path, heads: int) -> int:
    """Replaces the attention of blocks as export/onnx/graph.py writes them, in the file; returns how many.

    The queries are scaled already. Attention that is written otherwise stays as it is.
    """
    import onnx
    from onnx import helper

    model = onnx.load(str(path))
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    read_by: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            read_by.setdefault(name, []).append(node)
    found: dict[int, list[Any]] = {}  # place of the node that gave the result -> what gives it now
    for softmax in [node for node in graph.node if node.op_type == "Softmax"]:
        joined, last = _source(softmax, made_by), _result(softmax, read_by)
        if joined is None or last is None:
            continue
        name = last.output[0]
        parts = [f"{name}.{part}" for part in ("queries", "keys", "values")]
        found[list(graph.node).index(last)] = [
            helper.make_node("Split", [joined], parts, axis=2, num_outputs=3, name=f"{name}.split"),
            _either(helper, name, parts, heads),
        ]
    if not found:
        return 0
    nodes = [
        helper.make_node("ReduceMin", [MASK], ["mask.least"], keepdims=0, name="mask.least.node"),
        helper.make_node("Cast", ["mask.least"], ["mask.full"], to=9, name="mask.full.node"),  # bool
        helper.make_node("Cast", [MASK], ["mask.int32"], to=6, name="mask.int32.node"),
    ]
    for place, node in enumerate(graph.node):
        nodes += found.get(place, [node])
    _keep_needed(graph, nodes)
    need_domain(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return len(found)


def need_domain(model: Any) -> None:
    """Declares ONNX Runtime's own operators."""
    from onnx import helper

    if all(known.domain != DOMAIN for known in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _source(softmax: Any, made_by: dict[str, Any]) -> str | None:
    """The queries, keys and values side by side, [batch, sequence, 3 D], that a softmax over scores comes from."""
    node = made_by.get(softmax.input[0])
    for kinds in (("Add",), ("MatMul",), ("Squeeze",), ("Slice",), ("Transpose",), ("Reshape",)):
        if node is None or node.op_type not in kinds:
            return None
        before, node = node, made_by.get(node.input[0])
    return str(before.input[0])


def _result(softmax: Any, read_by: dict[str, list[Any]]) -> Any | None:
    """The node that gives the attended values, [batch, sequence, D]."""
    node = softmax
    for kind in ("MatMul", "Transpose", "Reshape"):
        readers = read_by.get(node.output[0], [])
        if len(readers) != 1 or readers[0].op_type != kind:
            return None
        node = readers[0]
    return node


def _either(helper: Any, name: str, parts: list[str], heads: int) -> Any:
    def branch(masked: bool) -> Any:
        output = f"{name}.{'masked' if masked else 'whole'}"
        node = helper.make_node(
            "MultiHeadAttention", [*parts, *(["", "mask.int32"] if masked else [])], [output], domain=DOMAIN,
            num_heads=heads, scale=1.0, name=f"{output}.node",
        )  # fmt: skip
        return helper.make_graph([node], output, [], [helper.make_tensor_value_info(output, 1, None)])

    return helper.make_node(
        "If", ["mask.full"], [name], then_branch=branch(False), else_branch=branch(True), name=f"{name}.either"
    )


def _keep_needed(graph: Any, nodes: list[Any]) -> None:
    """Sets the graph's nodes to those of `nodes` that its outputs come from."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
            for attribute in node.attribute:
                for inner in attribute.g.node:
                    wanted |= set(inner.input)
    weights = [tensor for tensor in graph.initializer if tensor.name in wanted]
    for field, values in ((graph.node, kept[::-1]), (graph.initializer, weights)):
        del field[:]
        field.extend(values)
    del graph.value_info[:]
