"""How far measurements are from what the GPU could do, and from what was set as the goal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.kernel_lab.records import Ceilings, Report, Timing
from benchmarks.kernel_lab.shapes import Shape

__all__ = ["Floor", "Goal", "Verdict", "floor_of", "judge", "needed_by_goals", "share_of_roofline"]


@dataclass(frozen=True)
class Floor:
    """The least time that the measured ceilings allow.

    Attributes:
        bytes_us: to move the least bytes, microseconds.
        us: that, or more where the tensor cores or the exponentials need longer.
        bound: the term that decides: "bytes", "matrix" or "exp".
    """

    bytes_us: float
    us: float
    bound: str


_BYTES = {"float16": (2, 2), "bfloat16": (2, 2), "float32": (4, 4), "int8": (1, 2)}


def floor_of(shape: Shape, batch: int, input_type: str, ceilings: Ceilings) -> Floor:
    """The floor of one routing attention; INT8 multiplies queries and keys as INT8, weights and values as FP16."""
    work = shape.work(batch, *_BYTES[input_type])
    qk_rate = ceilings.int8_ops if input_type == "int8" and ceilings.int8_ops else ceilings.fp16_flops
    terms = {
        "bytes": work.bytes / ceilings.copy_bytes_per_second * 1e6,
        "matrix": (work.qk_flops / qk_rate + work.pv_flops / ceilings.fp16_flops) * 1e6,
    }
    if ceilings.exponentials_per_second:
        terms["exp"] = work.exponentials / ceilings.exponentials_per_second * 1e6
    bound = max(terms, key=lambda name: terms[name])
    return Floor(terms["bytes"], terms[bound], bound)


@dataclass(frozen=True)
class Goal:
    """Something to reach.

    Attributes:
        what: as the table says it.
        shape: name of the shape.
        batch: images.
        against: the baseline that it must be faster than; empty: the minimal-byte roofline.
        at_least: a ratio of times; for the roofline a share, 0 to 1.
        input_type: of the fused op, which is replayed from a graph.
        against_graph: whether the baseline is, too.
        compute_capabilities: GPUs that it is set for; empty: all.
    """

    what: str
    shape: str
    batch: int
    against: str
    at_least: float
    input_type: str = "float16"
    against_graph: bool = True
    compute_capabilities: tuple[int, ...] = ()


_STAGES = ("224 stage 1", "224 stage 2", "224 stage 3")


def _goals() -> Iterator[Goal]:
    rooflines = (((90,), 32, (0.45, 0.35, 0.25)), ((87,), 8, (0.50, 0.45, 0.40)))
    for gpus, batch, shares in rooflines:
        for stage, share in zip(_STAGES, shares, strict=True):
            yield Goal("share of the minimal-byte roofline", stage, batch, "", share, compute_capabilities=gpus)
    # "Eager" is what a program that launches from Python gets; graph to graph leaves the launches out of it.
    for stage, ratio in zip(_STAGES, (3.0, 5.0, 10.0), strict=True):
        yield Goal("times faster than eager", stage, 32, "eager", ratio, against_graph=False)
    for stage in _STAGES:
        yield Goal("times faster than eager", stage, 1, "eager", 10.0, against_graph=False)
        yield Goal("times faster than eager, graph to graph", stage, 1, "eager", 4.0)
    for stage, sdpa, compiled in zip(_STAGES, (1.5, 3.0, 6.0), (2.0, 3.0, 5.0), strict=True):
        yield Goal("times faster than gather + SDPA", stage, 32, "sdpa", sdpa)
        yield Goal("times faster than torch.compile", stage, 32, "compile", compiled)
        yield Goal("times faster than FlexAttention", stage, 32, "flex", 1.5)
    for stage in _STAGES:
        # The fused FP16 op itself is what INT8 is compared with.
        yield Goal("times faster than FP16", stage, 8, "fused", 1.4, "int8", compute_capabilities=(87,))


def needed_by_goals(compute_capability: int) -> set[tuple[str, int, str]]:
    """Shape, batch and implementation of everything that a GPU's goals are judged by."""
    needed = set()
    for goal in _goals():
        if not goal.compute_capabilities or compute_capability in goal.compute_capabilities:
            needed |= {(goal.shape, goal.batch, name) for name in ("fused", goal.against) if name}
    return needed


@dataclass(frozen=True)
class Verdict:
    """A goal and what was reached; None where a figure is missing."""

    goal: Goal
    reached: float | None

    @property
    def met(self) -> bool | None:
        """Whether it was; None where that is not known."""
        return None if self.reached is None else self.reached >= self.goal.at_least


def share_of_roofline(timing: Timing, shape: Shape, ceilings: Ceilings) -> tuple[float, float]:
    """Shares, 0 to 1, of the minimal-byte roofline and of the roofline with all its terms."""
    floor = floor_of(shape, timing.batch, timing.input_type, ceilings)
    return floor.bytes_us / timing.median_us, floor.us / timing.median_us


def _find(report: Report, goal: Goal, implementation: str, input_type: str, graph: bool) -> Timing | None:
    """The timing of the library's own choice, without LePE."""
    for timing in report.timings:
        form = (timing.shape, timing.batch, timing.implementation, timing.input_type, timing.graph)
        plain = not timing.variant and timing.lepe == "none" and not timing.programmatic_launch
        if plain and form == (goal.shape, goal.batch, implementation, input_type, graph):
            return timing
    return None


def judge(report: Report, shapes: tuple[Shape, ...]) -> list[Verdict]:
    """Every goal that is set for the report's GPU."""
    by_name = {shape.name: shape for shape in shapes}
    verdicts = []
    for goal in _goals():
        if goal.compute_capabilities and report.machine.compute_capability not in goal.compute_capabilities:
            continue
        ours = _find(report, goal, "fused", goal.input_type, True)
        reached = None
        if ours and not goal.against and report.ceilings and goal.shape in by_name:
            reached = share_of_roofline(ours, by_name[goal.shape], report.ceilings)[0]
        elif ours and goal.against and (other := _find(report, goal, goal.against, "float16", goal.against_graph)):
            reached = other.median_us / ours.median_us
        verdicts.append(Verdict(goal, reached))
    return verdicts
