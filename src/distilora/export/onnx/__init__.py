"""Writes a merged network as an ONNX graph, in fp32 and in int8."""
