"""ONNX passes: pure functions from a model to a new model."""
