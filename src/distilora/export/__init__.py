"""Turns a network in memory into a verified folder: saved, merged or ONNX, with the parity gate and the round trip."""
