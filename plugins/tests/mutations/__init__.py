"""Bugs to plant in the kernels, one at a time: scripts/mutate_kernels.py shows that the tests find every one of them.

Each stands for a mistake that is easily made: a barrier or a wait left out, an index past the end, an operand in the
wrong register. Some compute the right numbers on every schedule of the emulation and are races on a GPU all the same.
"""

from __future__ import annotations

from . import plain_kernels, tensor_core_kernels
from .mutation import Mutation

__all__ = ["MUTATIONS", "Mutation"]

MUTATIONS = plain_kernels.MUTATIONS + tensor_core_kernels.MUTATIONS
