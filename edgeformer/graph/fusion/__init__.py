"""How `edgeformer.graph.fuse` works inside: match loosely, prove by execution, then rewrite.

* `dataflow`: which tensors carry data and which only shapes, who dominates whom.
* `anchors`, `candidate`: what may be a block, by TopK -> gather -> Softmax -> product.
* `execution`: running graphs and parts of graphs in ONNX Runtime; the input shapes that a graph takes.
* `projection`: the qkv Linear between the image and the attention.
* `escapes`: what other parts of the graph take out of a block.
* `geometry`: the op's attributes from shapes and values.
* `draws`: random inputs on which a wrong block cannot look right.
* `trial`, `proof`: the block and the op on the same inputs, and the verdict.
* `replacement`, `rewrite`: the new nodes and the new graph, with ONNX GraphSurgeon.
* `report`: what is told about every candidate.
"""
