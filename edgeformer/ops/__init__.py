"""The custom operators of edgeformer, one module per op: schema, ONNX function body and float64 reference."""
