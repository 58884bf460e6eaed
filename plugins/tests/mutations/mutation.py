"""What a planted bug is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A bug, as a replacement of text.

    Attributes:
        name: what is wrong.
        file: file in plugins/bi_level_routing_attention that is changed.
        old: text that occurs in it exactly once.
        new: what takes its place.
        tests: tests of one_kernel_test.cpp, as a GoogleTest filter without the suite's name.
        source: file to compile, if ``file`` is a header.
        race: whether ThreadSanitizer is to find it, rather than AddressSanitizer, UndefinedBehaviorSanitizer, the
            emulation or the numbers.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
    source: str = ""
    race: bool = False

    @property
    def compiled(self) -> str:
        """The file to compile."""
        return self.source or self.file


GATHER = "attention_gather.cu"
RESIDENT = "attention_resident.cu"
PLAIN = "attention_plain.cu"
MEAN = "region_mean.cu"
ROUTING = "routing.cu"
TILE = "tile.cuh"
PROBLEM = "tile_problem.cuh"
LEPE = "lepe.cuh"
