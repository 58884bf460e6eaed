"""Faults of bundles and machines, planted, and what the runtime says of them in Python, C and C++."""
