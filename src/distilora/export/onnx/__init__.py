"""Writes a merged network as an ONNX graph, in fp32 and in 8 bits."""
