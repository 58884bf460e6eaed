"""How `edgeformer.graph.fuse` works inside: match loosely, prove by execution, then rewrite.

* `dataflow`: which tensors carry data and which only shapes, who dominates whom.
* `anchors`: candidates, by TopK -> gather -> Softmax -> product.
* `execution`: running graphs and parts of graphs in ONNX Runtime; the input shapes that a graph takes.
* `projection`: the qkv Linear between the image and the attention.
* `draws`: random inputs whose routing is decisive.
* `proof`: attributes from shapes and values, and the proof that the op does what the candidate does.
* `rewrite`: the new graph, with ONNX GraphSurgeon.
* `report`: what is told about every candidate.
"""
