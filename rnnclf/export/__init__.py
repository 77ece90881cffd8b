"""A trained classifier for other programs: one step of it in torch, and the whole of it as an ONNX file."""
