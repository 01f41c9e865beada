"""Border: the shape of every TOML file that comes in, and how a file that has another is refused."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from chipscale.evidence import EvidenceError, Kind, Per
from chipscale.facts.cluster import Topology
from chipscale.facts.engine import Engine, KernelChoice
from chipscale.facts.job import Phase

Share = Annotated[float, Field(ge=0, le=1)]
Year = Annotated[int, Field(ge=1950, le=2200)]


def expression(text: str) -> str:
    """Return a regular expression that is one."""
    try:
        re.compile(text)
    except re.error as problem:
        raise ValueError(f"{text!r} is no regular expression ({problem})") from problem
    return text


class _Border(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class FactFile(_Border):
    quantity: str
    value: str
    source: str
    low: str | None = None
    high: str | None = None
    per: Per = "package"
    sense: str = ""
    note: str = ""
    chosen: bool = False
    rejected: str = ""


class HypothesisFile(_Border):
    key: str
    title: str
    weight: float = Field(gt=0, le=1)
    reason: str = Field(min_length=1)
    chip: str = ""
    family: str = ""
    cluster: str = ""
    fact: list[FactFile] = []


class ChipFile(_Border):
    id: str
    name: str
    vendor: str
    family: str
    cluster: str
    aliases: list[str] = []
    released: str = ""
    notes: list[str] = []
    fact: list[FactFile] = []
    hypothesis: list[HypothesisFile] = []

    @model_validator(mode="after")
    def one_or_the_other(self) -> ChipFile:
        """Refuse values that would be passed over in silence."""
        keys = [h.key for h in self.hypothesis]
        if self.fact and keys:
            raise ValueError("a chip has [[fact]] or [[hypothesis]], not both")
        if twice := sorted({k for k in keys if keys.count(k) > 1}):
            raise ValueError(f"hypothesis.key {', '.join(twice)} stands twice")
        if both := [h.key for h in self.hypothesis if h.chip and h.fact]:
            raise ValueError(f"hypothesis {', '.join(both)} has a chip and facts; keep one")
        return self


class ModelHypothesisFile(_Border):
    key: str = Field(min_length=1)
    title: str
    weight: float = Field(gt=0, le=1)
    reason: str = Field(min_length=1)
    model: str
    source: str


class ModelFile(_Border):
    id: str
    name: str
    notes: list[str] = []
    hypothesis: list[ModelHypothesisFile] = Field(min_length=1)


class ArchitectureFile(_Border):
    id: str
    name: str
    core: str
    fact: list[FactFile] = Field(min_length=1)


class SourceFile(_Border):
    where: str = Field(min_length=1)
    kind: Kind = Field(strict=False)
    date: str = ""
    licence: str = ""


class TierFile(_Border):
    name: str
    size: int = Field(ge=1, le=10**8)
    bandwidth: str
    source: str
    latency: str
    topology: Topology
    oversubscription: float = Field(default=1.0, ge=1)
    low: str | None = None
    high: str | None = None
    latency_source: str = ""
    axes: list[Annotated[int, Field(ge=1, le=10**6)]] = []
    closes: int = Field(default=1, ge=1, le=10**6)
    in_network: bool = False
    plane: str = ""


class ClusterFile(_Border):
    id: str
    name: str
    chip: str
    node: int = Field(ge=1, le=10**6)
    tier: list[TierFile] = Field(min_length=1)
    site: str = "typical"
    notes: list[str] = []


class SiteFile(_Border):
    id: str
    name: str
    like: str = ""
    fact: list[FactFile] = Field(min_length=1)


class JobFile(_Border):
    id: str
    title: str
    phase: Phase
    model: str
    chips: int = Field(ge=1, le=10**7)
    length: int = Field(ge=1, le=10**8)
    batch: int = Field(default=1, ge=1, le=10**9)
    tokens: str = ""
    output: int = Field(default=0, ge=0, le=10**6)
    ttft: str = ""
    tpot: str = ""
    engine: str = ""
    precisions: list[Literal["bf16", "fp16", "fp8", "mxfp8", "nvfp4", "mxfp4", "int8"]] = Field(min_length=1)
    source: str = ""

    @model_validator(mode="after")
    def batch_or_output(self) -> JobFile:
        """Refuse fields of the other kind of job, and a batch left out where there is one."""
        if self.phase == "serve" and "batch" in self.model_fields_set:
            raise ValueError("batch: a serving job has as many requests under way as its limits admit; leave it out")
        if self.phase != "serve" and "batch" not in self.model_fields_set:
            raise ValueError("batch: is missing; state how many sequences")
        return self


class FrameworkFile(_Border):
    id: str
    name: str
    matches: list[str]
    sharding: Literal["none", "zero1", "zero2", "zero3"]
    recompute: dict[Literal["none", "selective", "full"], Share]
    selective: list[Literal["core_attn", "mla_up_proj", "layernorm", "mlp", "moe_act", "moe", "shared_experts", "op"]] = ["core_attn"]
    weight_bytes: float = Field(default=2, gt=0, le=64, strict=False)
    gradient_bytes: float = Field(gt=0, le=64, strict=False)
    master_bytes: float = Field(gt=0, le=64, strict=False)
    logit_bytes: float = Field(default=2, gt=0, le=64, strict=False)
    scratch_bytes: float = Field(default=2, ge=0, le=64, strict=False)
    reserved: float = Field(default=0, ge=0, lt=1, strict=False)
    offload_optimizer: float = Field(default=0, ge=0, le=1, strict=False)
    offload_activations: float = Field(default=0, ge=0, le=1, strict=False)
    variants: dict[str, dict[Literal["weight", "gradient", "optimizer", "logit", "scratch", "reserved"], float]] = {}
    cp_kinds: list[Literal["p2p", "all_gather", "a2a"]] = Field(default=["p2p"], min_length=1)
    cuda_graph: Literal["none", "part", "full"] = "none"
    lacks: list[Literal["native_attention", "expert_tp"]] = []
    since: dict[Literal["tp_overlap", "ep_overlap", "fused_dispatch", "native_attention", "expert_tp", "cuda_graph"], Year] = {}
    source: str
    date: str


class RulesFile(_Border):
    tokens: int = Field(ge=1, le=10**7)
    sequences: int = Field(ge=1, le=10**6)
    chunked: bool
    shared: bool
    block: int = Field(ge=1, le=10**5)
    reserve: bool
    narrow_cache: bool


class KernelFile(_Border):
    form: str = Field(min_length=1)
    name: str = Field(min_length=1)
    arch: Annotated[str, AfterValidator(expression)] = ""
    format: Annotated[str, AfterValidator(expression)] = ""


class EngineFile(_Border):
    id: str
    name: str
    matches: list[str] = Field(min_length=1)
    rules: RulesFile
    kernel: list[KernelFile] = []
    source: str = Field(min_length=1)
    date: str

    def engine(self) -> Engine:
        """Return the engine that a file describes."""
        choices = tuple(KernelChoice(form=k.form, name=k.name, arch=k.arch, format=k.format) for k in self.kernel)
        rules = self.rules.model_dump()
        return Engine(id=self.id, name=self.name, matches=tuple(self.matches), kernels=choices, source=self.source, date=self.date, **rules)


B = TypeVar("B", bound=_Border)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; malformed text is an error with its line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise EvidenceError(f"{path}: cannot be read ({problem}); give a TOML file in UTF-8") from problem
    except (ValueError, RecursionError) as problem:  # a ValueError that is no TOMLDecodeError: an integer of thousands of digits
        raise EvidenceError(f"{path}: malformed TOML: {problem}; correct that line") from problem


def checked(shape: type[B], table: dict[str, Any], path: Path) -> B:
    """Check a table against its shape; every bad field is named in one message."""
    try:
        return shape.model_validate(table)
    except ValidationError as problem:
        first = problem.errors()
        bad = "; ".join(f"field {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg'].lower()}" for e in first[:4])
        raise EvidenceError(f"{path}: {bad}; docs/add-a-chip.md lists the fields") from problem


def named(id: str, path: Path) -> None:
    """Refuse a file whose id differs from its name."""
    if id != (stem := path.stem.replace("--", "/")):
        raise EvidenceError(f"{path}: field id is {id!r}, but the file is named {stem!r}; make them equal")


@contextmanager
def inside(path: Path | str, field: str = "") -> Iterator[None]:
    """Put the file (or option), and the field if one is given, before the message of any error."""
    try:
        yield
    except EvidenceError as problem:
        text = str(problem)
        raise EvidenceError(text if text.startswith(str(path)) else f"{path}: {f'field {field}: ' if field else ''}{text}") from problem


class ProtocolFile(_Border):
    id: str
    name: str
    requests_a_user: float = Field(ge=1)
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    statistic: str
    weight: float = Field(gt=0, le=1)
    source: str = Field(min_length=1)
    date: str
