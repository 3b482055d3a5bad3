"""Fused attention in an ONNX graph: ONNX Runtime's own operator, without a mask where there is no padding.

    q, k, v -> scores + padding -> softmax -> sum        becomes

    If(attention_mask all 1)   MultiHeadAttention(q, k, v)          in blocks that stay in the cache (flash attention)
    else                       MultiHeadAttention(q, k, v, mask)

With a mask the operator materialises every score; without one it does not and takes two thirds of the time
(LOG.md: One micro-batch on each core). This speeds up texts that run alone or beside others of their length.
"""

from pathlib import Path
from typing import Any

MASK = "attention_mask"
DOMAIN = "com.microsoft"


def fuse_attention(path: Path, heads: int) -> int:
    """Replace, in the file, the attention of blocks as export/onnx/graph.py writes them; return how many were replaced.

    The queries are scaled already. Attention in any other form is left unchanged.
    """
    import onnx
    from onnx import helper

    model = onnx.load(str(path))
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    replacements: dict[int, list[Any]] = {}  # index of the node that produced the result -> its replacement
    for softmax in [node for node in graph.node if node.op_type == "Softmax"]:
        joined, last = _source(softmax, producers), _result(softmax, consumers)
        if joined is None or last is None:
            continue
        name = last.output[0]
        parts = [f"{name}.{part}" for part in ("queries", "keys", "values")]
        replacements[list(graph.node).index(last)] = [
            helper.make_node("Split", [joined], parts, axis=2, num_outputs=3, name=f"{name}.split"),
            _either(helper, name, parts, heads),
        ]
    if not replacements:
        return 0
    nodes = [
        helper.make_node("ReduceMin", [MASK], ["mask.least"], keepdims=0, name="mask.least.node"),
        helper.make_node("Cast", ["mask.least"], ["mask.full"], to=9, name="mask.full.node"),  # bool
        helper.make_node("Cast", [MASK], ["mask.int32"], to=6, name="mask.int32.node"),
    ]
    for index, node in enumerate(graph.node):
        nodes += replacements.get(index, [node])
    _keep_needed(graph, nodes)
    need_domain(model)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return len(replacements)


def need_domain(model: Any) -> None:
    """Declare the domain of ONNX Runtime's own operators."""
    from onnx import helper

    if all(opset.domain != DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _source(softmax: Any, producers: dict[str, Any]) -> str | None:
    """Find the queries, keys and values side by side, [batch, sequence, 3 D], that a softmax over scores comes from."""
    node = producers.get(softmax.input[0])
    for kinds in (("Add",), ("MatMul",), ("Squeeze",), ("Slice",), ("Transpose",), ("Reshape",)):
        if node is None or node.op_type not in kinds:
            return None
        first, node = node, producers.get(node.input[0])
    return str(first.input[0])


def _result(softmax: Any, consumers: dict[str, list[Any]]) -> Any | None:
    """Find the node that produces the attended values, [batch, sequence, D]."""
    node = softmax
    for kind in ("MatMul", "Transpose", "Reshape"):
        following = consumers.get(node.output[0], [])
        if len(following) != 1 or following[0].op_type != kind:
            return None
        node = following[0]
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
    """Set the graph's nodes to those of `nodes` that its outputs depend on."""
    needed = {output.name for output in graph.output}
    needed_nodes = []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed_nodes.append(node)
            needed |= set(node.input)
            for attribute in node.attribute:
                for inner in attribute.g.node:
                    needed |= set(inner.input)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    for field, values in ((graph.node, needed_nodes[::-1]), (graph.initializer, weights)):
        del field[:]
        field.extend(values)
    del graph.value_info[:]
