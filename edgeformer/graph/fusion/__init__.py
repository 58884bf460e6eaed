"""How `edgeformer.graph.fuse` works inside: match loosely, prove by execution, then rewrite.

* `dataflow`: which tensors carry data and which only shapes, who dominates whom.
* `anchors`, `candidate`: what may be a block, by product -> TopK -> gather -> Softmax -> product.
* `obstacles`: what makes a candidate another function, seen without running it.
* `execution`: running graphs and parts of graphs in ONNX Runtime; the input shapes that a graph takes.
* `projection`: the Linear, or several, between the image and the attention; `stacking`: the one Linear they become.
* `columns`: which of its channels are q, k and v.
* `escapes`: what other parts of the graph take out of a block.
* `geometry`: the op's attributes from shapes and values.
* `wiring`, `draws`: random inputs on which a wrong block cannot look right.
* `trial`, `proof`: the block and the op on the same inputs, and the verdict.
* `replacement`, `rewrite`: the new nodes and the new graph, with ONNX GraphSurgeon.
* `report`: what is told about every candidate.
"""
