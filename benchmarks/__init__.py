"""What is measured of edgeformer, and with what; none of it is in the wheel."""
