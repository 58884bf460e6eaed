"""How long models take, what the machine did meanwhile, and whether one is faster than another."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeformer.records.base import Figure, Record

__all__ = [
    "ComparisonVerdict",
    "EnergyFigures",
    "LatencyAdvice",
    "LatencyComparison",
    "LatencyFigures",
    "LatencyReport",
    "LoadFigures",
    "LoadgenResult",
    "MachineFacts",
    "Percentile",
    "Span",
    "StateFigures",
    "Statistic",
    "TimeDistribution",
    "Timing",
    "WarmUp",
]

# What is timed: a run with its copies to the device and back, by the host's clock; or the GPU's work alone, by events.
Timing = Literal["end_to_end", "gpu"]
Statistic = Literal["median", "p99"]
ComparisonVerdict = Literal["faster", "slower", "no difference", "not decided"]


class Percentile(Record):
    """A percentile.

    Attributes:
        ms: it, in milliseconds; None where there are too few samples for it.
        needs: samples that it needs.
    """

    ms: float | None
    needs: int


class TimeDistribution(Record):
    """The times of one kind.

    Attributes:
        samples: how many there are.
        p50: the median.
        p90: the 90th percentile.
        p99: the 99th percentile.
        max: the longest.
        mean_ms: mean, milliseconds.
        cv: coefficient of variation: standard deviation over mean.
        quantiles_ms: quantiles at even steps from the shortest time to the longest, milliseconds; at most 201, for
            plots. Those beyond what the samples tell are drawn all the same: look at `p90` and `p99` first.
        block_medians_ms: median of each block in the order of time, milliseconds; at most 256.
    """

    samples: int = Field(ge=1)
    p50: Percentile
    p90: Percentile
    p99: Percentile
    max: Percentile
    mean_ms: float
    cv: float
    quantiles_ms: tuple[float, ...] = Field(max_length=201)
    block_medians_ms: tuple[float, ...] = Field(max_length=256)


class WarmUp(Record):
    """What was run before anything was timed.

    Attributes:
        runs: how many.
        seconds: how long.
        drift: over the last fifth of them, by the medians of its halves, as a fraction.
        settled: whether that is below 1 %; False where the time was up before, or the runs were too few to tell.
    """

    runs: int
    seconds: float
    drift: Figure
    settled: bool


class Span(Record):
    """Least, mean and greatest of what was read while the model ran."""

    least: float
    mean: float
    greatest: float


class EnergyFigures(Record):
    """What was drawn while the model ran, idle power included.

    Attributes:
        joules_per_image: energy over images.
        watts: mean power.
        source: what told it: "NVML energy counter", or the rail of an INA3221.
    """

    joules_per_image: float
    watts: float
    source: str


class StateFigures(Record):
    """The state of the machine while a model ran; None or empty is what it does not tell.

    Attributes:
        clock_mhz: of the GPU where it runs the model, else of the processor.
        temperature_c: of the same, degrees Celsius.
        throttled: reasons why it slowed its clocks down.
        energy: what it drew.
    """

    clock_mhz: Span | None = None
    temperature_c: Span | None = None
    throttled: tuple[str, ...] = ()
    energy: EnergyFigures | None = None


class LatencyFigures(Record):
    """How long one model takes at one batch.

    Attributes:
        name: of what was timed: the bundle's folder, the file, or the baseline.
        kind: "model", a "baseline" that is no bundle of ours, or the "control": the first model, loaded once more.
        precision: of a bundle; empty where it is not known.
        backend: what ran it: "tensorrt", "onnxruntime", or the baseline's.
        backend_version: its version.
        device: where it ran: the GPU's name, or "CPU".
        batch: images a run.
        cuda_graphs: whether runs were replayed from a CUDA graph.
        graph_state: what the runtime says of CUDA graphs.
        end_to_end: copies to the device, the run, and copies back, by the host's clock.
        gpu: the GPU's work without the copies, by events; None where none was measured.
        gpu_note: why none was measured.
        images_per_second: throughput of runs one after the other.
        warm_up: what was run before.
        host_memory_bytes: resident memory that the model took, without the backend's library, which was there already;
            None where it is not known.
        device_memory_bytes: device memory that it took.
        state: of the machine meanwhile.
        notes: what to know besides.
    """

    name: str
    kind: Literal["model", "baseline", "control"] = "model"
    precision: str = ""
    backend: str
    backend_version: str
    device: str
    batch: int = Field(ge=1)
    cuda_graphs: bool = False
    graph_state: str = ""
    end_to_end: TimeDistribution
    gpu: TimeDistribution | None = None
    gpu_note: str = ""
    images_per_second: float
    warm_up: WarmUp
    host_memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    state: StateFigures = StateFigures()
    notes: tuple[str, ...] = ()

    def times(self, timing: Timing) -> TimeDistribution | None:
        """The distribution of one kind of times."""
        return self.end_to_end if timing == "end_to_end" else self.gpu


class LatencyComparison(Record):
    """One model against another, from blocks that took turns.

    Attributes:
        name: the model that the verdict is about.
        reference: what it is compared with.
        batch: images a run.
        cuda_graphs: whether both were replayed from CUDA graphs.
        timing: what is compared.
        statistic: of what.
        ratio: the model's time over the reference's; None where there is none.
        low: lower end of the ratio's 95 % interval.
        high: its upper end.
        noise: how far the reference, loaded twice, is from itself: the far end of that interval, as a fraction.
        limit: what the whole interval has to be beyond, as a fraction: the larger of 2 % and the noise.
        rounds: rounds of blocks that it is made from.
        verdict: of the model.
        reason: why nothing was decided; else empty.
    """

    name: str
    reference: str
    batch: int
    cuda_graphs: bool = False
    timing: Timing
    statistic: Statistic
    ratio: float | None
    low: float | None
    high: float | None
    noise: float | None
    limit: float
    rounds: int
    verdict: ComparisonVerdict
    reason: str = ""


class LoadFigures(Record):
    """What other processes took of the processors while the models ran.

    Attributes:
        cores: processors that they kept busy, on the mean.
        of_cores: processors that there are.
        limit_cores: more than that in a round, and the round decides nothing.
        rounds: rounds that were run.
        disturbed: those of them that were over the limit.
    """

    cores: float
    of_cores: int
    limit_cores: float
    rounds: int
    disturbed: int


class MachineFacts(Record):
    """The machine that measured.

    Attributes:
        processor: its name.
        cores: processors that this process may use.
        gpu: its name; None without one.
        driver: of the GPU.
        power_mode: of a Jetson, such as "MAXN"; None elsewhere.
        governor: of the processor's clocks; None where the machine does not tell.
        versions: of what was measured with, by name.
    """

    processor: str
    cores: int
    gpu: str | None = None
    driver: str | None = None
    power_mode: str | None = None
    governor: str | None = None
    versions: dict[str, str]


class LoadgenResult(Record):
    """What MLPerf's LoadGen found.

    Attributes:
        name: of the model.
        scenario: LoadGen's.
        batch: images a run; a query of the scenario may hold more.
        valid: whether LoadGen calls the run valid.
        figures: LoadGen's own, by the names of its summary.
        logs: name of the folder with its logs.
    """

    name: str
    scenario: Literal["singlestream", "multistream", "offline"]
    batch: int
    valid: bool
    figures: dict[str, float]
    logs: str


class LatencyAdvice(Record):
    """Which of the models to ship, by end to end at the user's batch.

    Attributes:
        ship: the model's name; None where nothing was decided.
        text: the advice in a line.
        batch: the batch it is for.
    """

    ship: str | None
    text: str
    batch: int


class LatencyReport(Record):
    """All that was measured in one run.

    Attributes:
        measured: when, UTC, ISO 8601.
        machine: what measured.
        figures: of each model at each batch.
        comparisons: of each model with the first.
        load: what other processes took meanwhile.
        advice: which to ship; None where there is one model alone.
        loadgen: what LoadGen found, where it ran.
    """

    measured: str
    machine: MachineFacts
    figures: tuple[LatencyFigures, ...]
    comparisons: tuple[LatencyComparison, ...] = ()
    load: LoadFigures
    advice: LatencyAdvice | None = None
    loadgen: tuple[LoadgenResult, ...] = ()
