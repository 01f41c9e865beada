"""The record of a run: what was tested on what, every sample, and a seal that shows whether it was changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from chipscale.bench.statistics import interval, quantile

FORMAT: Literal["chipscale-bench"] = "chipscale-bench"
SCHEMA: Literal[1] = 1

Setting = int | float | str
Outcome = Literal["complete", "timeout", "failed", "skipped", "stopped"]
Trouble = Literal["unsupported", "out-of-memory", "timeout", "error", "above-physics", "reduced"]
CLOSED = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The machine in the words of MLPerf's system description; an empty text where nothing is known.

    Source: mlperf-system, the fields of system_desc_id.json.
    """

    __pydantic_config__ = CLOSED

    system_name: str
    number_of_nodes: int
    host_processors_per_node: int
    host_processor_model_name: str
    host_processor_core_count: int
    host_processor_vcpu_count: int
    host_memory_capacity: str
    operating_system: str
    framework: str
    accelerators_per_node: int
    accelerator_model_name: str = ""
    accelerator_memory_capacity: str = ""
    accelerator_memory_configuration: str = ""
    accelerator_on_chip_memories: Annotated[str, Field(alias="accelerator_on-chip_memories")] = ""
    accelerator_frequency: str = ""
    accelerator_host_interconnect: str = ""
    accelerator_interconnect: str = ""
    accelerator_interconnect_topology: str = ""
    host_processor_frequency: str = ""
    host_processor_caches: str = ""
    host_processor_interconnect: str = ""
    host_memory_configuration: str = ""
    host_storage_type: str = ""
    host_storage_capacity: str = ""
    host_networking: str = ""
    host_networking_topology: str = ""
    cooling: str = ""
    hw_notes: str = ""
    sw_notes: str = ""
    other_software_stack: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What tells the device from others: several properties, since a name alone can be shared or wrong. SI units, None where unknown.

    `capability` is the architecture as its software names it (compute capability 9.0, gfx942, Ascend910B3, avx2); `units` counts SMs, CUs or cores.
    """

    __pydantic_config__ = CLOSED

    kind: Literal["cuda", "npu", "cpu"]
    vendor: str
    name: str
    count: int
    memory_bytes: int
    units: int
    capability: str
    driver: str
    runtime: str
    clock: float | None = None
    memory_clock: float | None = None
    memory_bus_bits: int | None = None
    cache_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How the device was at one moment; None where it does not say. `text` is what the vendor's own tool printed."""

    __pydantic_config__ = CLOSED

    taken: str
    clock: float | None = None
    memory_clock: float | None = None
    temperature: float | None = None
    power: float | None = None
    power_limit: float | None = None
    throttle: str = ""
    load: float | None = None
    governor: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What samples say: `value` by the measure's statistic, its 95 % interval `low` to `high`, and the interquartile range."""

    __pydantic_config__ = CLOSED

    n: int
    value: float
    low: float
    high: float
    iqr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measured quantity. A sample is seconds for `work` (FLOP, bytes, tokens), and its value work / seconds; with `work` 0 the sample is the value itself.

    `quantity` names the fact of a chip that this measures (peak_bf16, memory_bandwidth, ...), empty where none does. Samples whose value lies above
    `bound`, which `bound_source` explains, stand in `flagged` and count nowhere else. `stop` says why sampling ended.
    """

    __pydantic_config__ = CLOSED

    test: str
    case: str
    unit: str
    samples: tuple[float, ...]
    work: float = 0.0
    quantity: str = ""
    statistic: Literal["median", "highest"] = "median"
    flagged: tuple[float, ...] = ()
    bound: float | None = None
    bound_source: str = ""
    settings: Mapping[str, Setting]
    stop: Literal["stable", "budget", "fixed"] = "fixed"

    def values(self) -> list[float]:
        """Return the value of every sample that counts."""
        return [self.work / s if self.work else s for s in self.samples]

    @property
    def summary(self) -> Summary | None:
        """Return what the samples say, None where all were flagged."""
        ordered = sorted(self.values())
        if not ordered:
            return None
        low, high = interval(ordered)
        value = ordered[-1] if self.statistic == "highest" else quantile(ordered, 0.5)
        return Summary(n=len(ordered), value=value, low=low, high=max(high, value), iqr=quantile(ordered, 0.75) - quantile(ordered, 0.25))


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A result held against what is right: it passes where `value` is at most `limit`; without a limit it is only observed."""

    __pydantic_config__ = CLOSED

    test: str
    case: str
    value: float
    limit: float | None
    unit: str
    settings: Mapping[str, Setting]

    @property
    def passed(self) -> bool:
        return self.limit is None or self.value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that did not go as planned, with what was done about it."""

    __pydantic_config__ = CLOSED

    kind: Trouble
    case: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One test as it went: how it ended after `seconds` of its `budget`, and all that it found until then."""

    __pydantic_config__ = CLOSED

    name: str
    outcome: Outcome
    seconds: float
    budget: float
    measures: tuple[Measure, ...] = ()
    checks: tuple[Check, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A whole run. `complete` is False where it was cut short. `sha256` seals everything else (chipscale.bench.files)."""

    __pydantic_config__ = CLOSED

    format: Literal["chipscale-bench"] = FORMAT
    schema_version: Literal[1] = SCHEMA
    created: str
    command: str
    suite: str
    complete: bool
    seconds: float
    versions: Mapping[str, str]
    system: System
    identity: Identity
    before: State
    after: State
    trials: tuple[Trial, ...]
    sha256: str = ""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """All measures in the order in which they were made."""
        return tuple(m for t in self.trials for m in t.measures)

    @property
    def checks(self) -> tuple[Check, ...]:
        return tuple(c for t in self.trials for c in t.checks)

    def of(self, quantity: str) -> tuple[Measure, ...]:
        """Return the measures that bear on one fact of a chip."""
        return tuple(m for m in self.measures if m.quantity == quantity)
