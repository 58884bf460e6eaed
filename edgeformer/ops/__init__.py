"""The custom operator of edgeformer, one module an op: schema, ONNX function body and float64 reference."""
