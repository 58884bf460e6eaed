"""Per-block parity: every form of the model block by block, each block on what the form before makes.

A whole network that comes out wrong does not say where. Here each block is cut out of both graphs and given the same
inputs, so that an error shows where it is made and not where it arrives; and within a block so is every result that
both graphs have under one name (`cuts`). What a result may differ by is not guessed: the reference's own nodes are run
once more with every value rounded as the precision rounds it (`expectation`), and the gate allows a small factor of
that. Regions that a block picks are given, too: near ties turn around in any precision, and what follows from another
region is no error of arithmetic. Whether they were near ties is judged by itself (`routing`).
"""
