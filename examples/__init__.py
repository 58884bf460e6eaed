"""Examples of what is done with edgeformer; none of them is in the wheel."""
