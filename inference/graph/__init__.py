"""The exported ONNX graph: what it says, what it costs, and how it is rewritten."""
