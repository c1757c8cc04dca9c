"""A model bundle and how it runs: ONNX Runtime on CPU or GPU, without torch."""
