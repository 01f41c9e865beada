"""data/ -> facts: the one way in from disk."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from chipscale.border import (
    ArchitectureFile,
    ChipFile,
    ClusterFile,
    EngineFile,
    FactFile,
    FrameworkFile,
    HypothesisFile,
    JobFile,
    ModelFile,
    ProtocolFile,
    SiteFile,
    SourceFile,
    checked,
    inside,
    named,
    read_toml,
)
from chipscale.evidence import Belief, EvidenceError, Fact, Hypothesis, Source, chosen_first, widened
from chipscale.facts.architecture import ARCHITECTURE_QUANTITIES, Architecture
from chipscale.facts.chip import PRECISIONS, QUANTITIES, Chip
from chipscale.facts.cluster import Cluster, Tier
from chipscale.facts.config_json import read_file
from chipscale.facts.engine import Engine
from chipscale.facts.framework import Framework, Keeping
from chipscale.facts.job import Job
from chipscale.facts.model import Model
from chipscale.facts.protocol import Protocol
from chipscale.facts.site import SITE_QUANTITIES, Site
from chipscale.units import parse, show

T = TypeVar("T")
#: what a value of a chip or a link can be at most and at least, in SI units: wide enough for any chip, narrow enough for a wrong prefix
PLAUSIBLE = {
    "FLOP/s": (1e9, 1e20),
    "B": (1e2, 1e16),
    "B/s": (1e6, 1e17),
    "W": (0.1, 1e7),
    "Hz": (1e5, 1e12),
    "USD": (0.01, 1e10),
    "USD/h": (1e-4, 1e5),
    "USD/kWh": (1e-4, 1e2),
    "s": (1e-3, 1e12),
    "mm2": (0.1, 1e6),
    "1": (1e-3, 1e9),
}
UNITS = {**ARCHITECTURE_QUANTITIES, **QUANTITIES, **SITE_QUANTITIES, **{f"measured_{p}_matmul": "FLOP/s" for p in PRECISIONS}}
ALIASES = re.compile(r'^aliases = \[((?:\s*"[^"\\]*"\s*,?)*)\s*\]\s*$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Catalog:
    """What is known, by id: files are read when they are asked for. `folders` are searched last to first."""

    folders: tuple[Path, ...]
    memo: dict[tuple[str, str], Any] = field(default_factory=dict, compare=False, repr=False)

    def _once(self, kind: str, id: str, make: Callable[[], T]) -> T:
        if (kind, id) not in self.memo:
            self.memo[kind, id] = make()
        found: T = self.memo[kind, id]
        return found

    def files(self, kind: str, suffix: str = ".toml") -> dict[str, Path]:
        """Map ids to files of a kind; a later folder's file replaces an earlier one's."""
        return self._once(
            "files", kind + suffix, lambda: {p.stem.replace("--", "/"): p for f in self.folders for p in sorted((f / kind).glob("*" + suffix))}
        )

    def _path(self, kind: str, name: str, suffix: str = ".toml") -> Path:
        files = self.files(kind, suffix)
        if name in files:
            return files[name]
        close = difflib.get_close_matches(name.lower(), {n.lower(): n for n in files}, n=3, cutoff=0.4)
        same = {n.lower(): n for n in files}
        hint = f"; did you mean {' or '.join(same[c] for c in close)}?" if close else ""
        lister = f" (known: {', '.join(files)})" if kind in ("frameworks", "engines") else f" (chipscale {kind} lists them)"
        raise EvidenceError(f"unknown {kind.rstrip('s')} {name!r}{hint}{lister}")

    def source(self, key: str, where: Path) -> Source:
        """Return a source by key, or refuse a fact that has none."""
        sources = self._once("sources", "", self._sources)
        if key not in sources:
            raise EvidenceError(f"{where}: field source: {key!r} is not in sources/*.toml; add it there with where, kind and date")
        return sources[key]

    def _sources(self) -> dict[str, Source]:
        found: dict[str, Source] = {}
        for folder in self.folders:
            here: dict[str, Path] = {}
            for path in sorted((folder / "sources").glob("*.toml")):
                for key, table in read_toml(path).items():
                    if key in here:
                        raise EvidenceError(f"{path}: source {key!r} is also in {here[key]}; rename one, or delete it")
                    here[key] = path
                    if not isinstance(table, dict):
                        raise EvidenceError(f"{path}: {key} must be a table with where, kind and date")
                    s = checked(SourceFile, table, path)
                    found[key] = Source(key=key, where=s.where, kind=s.kind, date=s.date, licence=s.licence)
        return found

    def aliases(self) -> dict[str, str]:
        """Map lower-case names and aliases to chip ids."""
        return self._once("aliases", "", self._aliases)

    def _aliases(self) -> dict[str, str]:
        files = self.files("chips")
        found = {id.lower(): id for id in files}
        for id, path in files.items():
            text = path.read_text(encoding="utf-8", errors="replace")
            line = ALIASES.search(text)
            for alias in re.findall(r'"([^"]*)"', line.group(1)) if line else self._chip_file(id).aliases if "aliases" in text else ():
                if (other := found.setdefault(alias.lower(), id)) != id:
                    raise EvidenceError(f"{path}: field aliases: {alias!r} already names the chip of {files[other]}; choose another")
        return found

    def _chip_file(self, id: str) -> ChipFile:
        path = self.files("chips")[id]
        return self._once("chip file", id, lambda: checked(ChipFile, read_toml(path), path))

    def chip(self, name: str) -> Chip | Belief[Chip]:
        """Return a chip, or a belief over chips, by id or alias."""
        id = self.aliases().get(name.lower())
        if id is None:
            known = self.aliases()
            close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(dict.fromkeys(known[c] for c in close))}?" if close else ""
            raise EvidenceError(f"unknown chip {name!r}{hint} (chipscale chips lists them; --catalog DIR adds your own)")
        return self._once("chip", id, lambda: self._chip(id))

    def holding(self, chips: Mapping[str, Chip | Belief[Chip]], clusters: Mapping[str, Cluster]) -> Catalog:
        """Return this catalogue with other knowledge of some chips, and clusters beside its own, by id; what is built on those is built anew."""
        kept = {key: value for key, value in self.memo.items() if key[0] != "chip"}
        held = {("chip", id): chip for id, chip in chips.items()} | {("cluster", id): cluster for id, cluster in clusters.items()}
        return Catalog(self.folders, kept | held)

    def _chip(self, id: str) -> Chip | Belief[Chip]:
        path = self.files("chips")[id]
        f = self._chip_file(id)
        named(f.id, path)
        if not f.hypothesis:
            return Chip(
                id=id,
                name=f.name,
                vendor=f.vendor,
                family=f.family,
                facts=self._facts(f.fact, path),
                released=f.released,
                cluster=f.cluster,
                notes=tuple(f.notes),
            )
        with inside(path, "hypothesis"):
            return Belief(hypotheses=tuple(self._hypothesis(f, h, path) for h in f.hypothesis))

    def _hypothesis(self, f: ChipFile, h: HypothesisFile, path: Path) -> Hypothesis[Chip]:
        if h.chip:
            id = self.aliases().get(h.chip.lower(), "")
            if id and self._chip_file(id).hypothesis:
                what = "the file itself" if id == f.id else "itself a belief"
                raise EvidenceError(f"{path}: hypothesis {h.key} names {h.chip}, {what}; name a chip")
            found = self.chip(h.chip)
            assert isinstance(found, Chip)
            value = found
        else:
            value = Chip(
                id=f"{f.id}={h.key}",
                name=f"{f.name} ({h.key})",
                vendor=f.vendor,
                family=h.family or f.family,
                facts=self._facts(h.fact, path),
                cluster=h.cluster or f.cluster,
            )
        return Hypothesis(key=h.key, title=h.title, weight=h.weight, reason=h.reason, value=value)

    def _facts(self, files: list[FactFile], path: Path) -> dict[str, tuple[Fact, ...]]:
        groups: dict[str, list[tuple[bool, Fact]]] = {}
        for f in files:
            groups.setdefault(f.quantity, []).append((f.chosen, self._fact(f, path)))
        for quantity, facts in groups.items():
            by_hand = [fact for chosen, fact in facts if chosen]
            if len(by_hand) > 1 or any(fact.rejected for fact in by_hand):
                what = "two facts are chosen" if len(by_hand) > 1 else "the chosen fact is rejected"
                raise EvidenceError(f"{path}: field fact.{quantity}.chosen: {what}; choose one")
        return {quantity: chosen_first(facts) for quantity, facts in groups.items()}

    def _fact(self, f: FactFile, path: Path, where: str = "") -> Fact:
        if f.quantity not in UNITS:
            close = difflib.get_close_matches(f.quantity, UNITS, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else "docs/add-a-chip.md lists the quantities"
            raise EvidenceError(f"{path}: field fact.quantity: {f.quantity!r} is unknown; {hint}")
        unit = UNITS[f.quantity]
        with inside(path, where or f"fact.{f.quantity}.value"):
            value = parse(f.value, unit)
            low, high = (parse(t, unit) if t is not None else value for t in (f.low, f.high))
            if value <= 0:
                raise EvidenceError("must be positive; leave out what is not known")
            least, most = PLAUSIBLE[unit]
            if not least <= low <= high <= most:
                raise EvidenceError(f"{f.value!r} cannot be: it must be from {show(least, unit)} to {show(most, unit)}; check number and unit")
            return Fact(quantity=f.quantity, value=value, low=low, high=high, unit=unit, source=self.source(f.source, path), per=f.per, sense=f.sense, note=f.note,
                        rejected=f.rejected)  # fmt: skip

    def architecture(self, name: str) -> Architecture:
        """Return a chip family's architecture by id."""
        path = self._path("architectures", name)
        return self._once("architecture", name, lambda: self._architecture(path))

    def legacy_share(self, chip: Chip) -> float:
        """Return the share of a chip's matrix rate that instructions of the generation before reach, 1 where nothing is known of a difference."""
        found = self.architecture(chip.family) if chip.family in self.files("architectures") else None
        return found.value("legacy_share") if found and found.has("legacy_share") else 1.0

    def _architecture(self, path: Path) -> Architecture:
        f = checked(ArchitectureFile, read_toml(path), path)
        named(f.id, path)
        return Architecture(id=f.id, name=f.name, core=f.core, facts=self._facts(f.fact, path))

    def cluster(self, name: str) -> Cluster:
        """Return a cluster by id."""
        return self._once("cluster", name, lambda: self._cluster(self._path("clusters", name)))

    def _cluster(self, path: Path) -> Cluster:
        f = checked(ClusterFile, read_toml(path), path)
        named(f.id, path)
        tiers = []
        for t in f.tier:
            if t.latency_source:
                self.source(t.latency_source, path)
            with inside(path, f"tier.{t.name}.latency"):
                latency = parse(t.latency, "s")
            given = FactFile(quantity="scaleup_bandwidth", value=t.bandwidth, low=t.low, high=t.high, source=t.source, sense="one-way")
            fact = self._fact(given, path, f"tier.{t.name}.bandwidth")
            with inside(path, "tier"):
                tiers.append(Tier(name=t.name, size=t.size, bandwidth=widened(fact, ()), latency=latency, topology=t.topology,
                                  oversubscription=t.oversubscription, axes=tuple(t.axes), closes=t.closes, in_network=t.in_network, plane=t.plane))  # fmt: skip
        with inside(path, "tier"):
            return Cluster(id=f.id, name=f.name, chip=f.chip, node=f.node, tiers=tuple(tiers), site=f.site, notes=tuple(f.notes))

    def site(self, name: str) -> Site:
        """Return a site by id; what its file does not state is that of the site that it is `like`."""
        path = self._path("sites", name)
        return self._once("site", name, lambda: self._site(path, ()))

    def _site(self, path: Path, seen: tuple[str, ...]) -> Site:
        f = checked(SiteFile, read_toml(path), path)
        named(f.id, path)
        if f.id in seen:
            raise EvidenceError(f"{path}: field like: {' is like '.join((*seen, f.id))}, a circle; name another site")
        taken = self._site(self._path("sites", f.like), (*seen, f.id)).facts if f.like else {}
        with inside(path):
            return Site(id=f.id, name=f.name, facts={**taken, **self._facts(f.fact, path)})

    def cluster_for(self, chip: Chip) -> Cluster:
        """Return the cluster that a chip stands on unless another is named."""
        if chip.cluster in self.files("clusters"):
            return self.cluster(chip.cluster)
        path = self.files("chips").get(chip.id.partition("=")[0], Path(chip.id))
        with inside(path, "cluster"):
            return self.cluster(chip.cluster)

    def model(self, name: str) -> Model:
        """Return a model by id (or its part behind the slash), or from the path of a config.json; one that is only believed is refused."""
        if name.endswith(".json"):
            return read_file(Path(name))
        if believed := self._id(name, ".toml"):
            held = " or ".join(h.value.id for h in self.believed_model(believed).hypotheses)
            raise EvidenceError(f"model {believed} is a belief over hypotheses, which only train takes as such; name one of its models: {held}")
        id = self._id(name, ".json") or name
        path = self._path("models", id, ".json")
        return self._once("model", id, lambda: read_file(path, id=id))

    def knows_model(self, name: str) -> bool:
        """Whether a model has a file under this id, or under its part behind the slash."""
        return self._id(name, ".json") is not None

    def _id(self, name: str, suffix: str) -> str | None:
        """Return the id of a model's file by its id or the part behind the slash, in any case."""
        files = self.files("models", suffix)
        short = {id.rpartition("/")[2].lower(): id for id in files} | {id.lower(): id for id in files}
        return short.get(name.lower())

    def believed_model(self, name: str) -> Belief[Model]:
        """Return a model as weighted hypotheses; one that is known is the only one."""
        id = self._id(name, ".toml")
        if id is None:
            known = self.model(name)
            return Belief(hypotheses=(Hypothesis(key="known", title=known.name, weight=1.0, reason="a model", value=known),))
        return self._once("believed model", id, lambda: self._believed_model(self.files("models")[id]))

    def _believed_model(self, path: Path) -> Belief[Model]:
        f = checked(ModelFile, read_toml(path), path)
        named(f.id, path)
        for h in f.hypothesis:
            self.source(h.source, path)
            if self._id(h.model, ".toml"):
                raise EvidenceError(f"{path}: hypothesis {h.key} names {h.model}, itself a belief; name a model")
        if twice := sorted({h.key for h in f.hypothesis if [o.key for o in f.hypothesis].count(h.key) > 1}):
            raise EvidenceError(f"{path}: field hypothesis.key: {', '.join(twice)} stands twice; rename one")
        with inside(path, "hypothesis"):
            return Belief(hypotheses=tuple(Hypothesis(key=h.key, title=h.title, weight=h.weight, reason=h.reason, value=self.model(h.model))
                                           for h in f.hypothesis))  # fmt: skip

    def job(self, name: str) -> Job:
        """Return a job by id."""
        path = self._path("jobs", name)
        f = checked(JobFile, read_toml(path), path)
        named(f.id, path)
        with inside(path, "tokens"):
            tokens = parse(f.tokens, "tokens") if f.tokens else 0.0
        with inside(path):
            ttft, tpot = (parse(t, "s") if t else math.inf for t in (f.ttft, f.tpot))
            return Job(id=f.id, title=f.title, phase=f.phase, model=f.model, chips=f.chips, length=f.length, batch=f.batch, tokens=tokens,
                       precisions=tuple(f.precisions), source=f.source, output=f.output, ttft=ttft, tpot=tpot, engine=f.engine)  # fmt: skip

    def framework(self, name: str) -> Framework:
        """Return a framework by id."""
        path = self._path("frameworks", name)
        return self._once("framework", name, lambda: self._framework(path))

    def _framework(self, path: Path) -> Framework:
        f = checked(FrameworkFile, read_toml(path), path)
        named(f.id, path)
        if abs(sum(f.recompute.values()) - 1) > 1e-9:
            raise EvidenceError(f"{path}: field recompute: weights sum to {sum(f.recompute.values()):g}; make them sum to 1")
        keeping = Keeping(weight=f.weight_bytes, gradient=f.gradient_bytes, optimizer=f.master_bytes, logit=f.logit_bytes, scratch=f.scratch_bytes,
                          reserved=f.reserved, offload_optimizer=f.offload_optimizer, offload_activations=f.offload_activations)  # fmt: skip
        variants = tuple((name.lower(), replace(keeping, **dict(changes.items()))) for name, changes in f.variants.items())
        return Framework(id=f.id, name=f.name, matches=tuple(f.matches), sharding=f.sharding, recompute=tuple(f.recompute.items()),
                         selective=tuple(f.selective), keeping=keeping, variants=variants, cp_kinds=tuple(f.cp_kinds), cuda_graph=f.cuda_graph, lacks=tuple(f.lacks), since=tuple(f.since.items()), source=f.source, date=f.date)  # fmt: skip

    def framework_matching(self, stated: str) -> Framework:
        """Return the framework that a stated name names, else the unknown one.

        The earliest word counts; in a compound word the last part, its head: Megatron-DeepSpeed is a DeepSpeed.
        """
        text = stated.lower()
        found = [(at, len(m), id) for id in self.files("frameworks") for m in self.framework(id).matches if (at := text.find(m)) >= 0]
        best = min(found, key=lambda f: (max(text.rfind(mark, 0, f[0]) for mark in " /,(+"), -f[0], -f[1], f[2]), default=None)
        return self.framework(best[2] if best else "unknown")

    def engine(self, name: str) -> Engine:
        """Return a serving engine by id."""
        path = self._path("engines", name)
        return self._once("engine", name, lambda: self._engine(path))

    def engine_on(self, name: str, chip: Chip) -> Engine:
        """Return a serving engine by id, as its port to a chip's architecture where one is described."""
        engine = self.engine(name)
        ports = (e for e in map(self.engine, self.engines()) if e.port == engine.id and re.search(e.arch, chip.family))
        return next(ports, engine)

    def _engine(self, path: Path) -> Engine:
        f = checked(EngineFile, read_toml(path), path)
        named(f.id, path)
        return f.engine()

    def protocol(self, name: str) -> Protocol:
        """Return a load protocol by id."""
        path = self._path("protocols", name)
        return self._once("protocol", name, lambda: self._protocol(path))

    def _protocol(self, path: Path) -> Protocol:
        f = checked(ProtocolFile, read_toml(path), path)
        named(f.id, path)
        with inside(path):
            return Protocol(**f.model_dump())

    def protocols(self) -> tuple[str, ...]:
        return tuple(sorted(self.files("protocols")))

    def engines(self) -> tuple[str, ...]:
        return tuple(sorted(self.files("engines")))

    def chips(self) -> tuple[str, ...]:
        return tuple(sorted(self.files("chips")))

    def clusters(self) -> tuple[str, ...]:
        return tuple(sorted(self.files("clusters")))

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(self.files("models", ".json")))

    def believed_models(self) -> tuple[str, ...]:
        return tuple(sorted(self.files("models")))

    def jobs(self) -> tuple[str, ...]:
        return tuple(sorted(self.files("jobs")))

    def text(self, name: str) -> str:
        """Return a shipped text file, the last folder's where several hold it."""
        for folder in reversed(self.folders):
            if (folder / name).is_file():
                return (folder / name).read_text(encoding="utf-8")
        raise EvidenceError(f"data file {name} is missing; install chipscale again")


@cache
def _shipped() -> Path:
    return Path(str(resources.files("chipscale") / "data"))


def load(extra: Path | None = None) -> Catalog:
    """Open the shipped catalogue, and a user's folder beside it."""
    if extra is None:
        return Catalog((_shipped(),))
    if not extra.is_dir():
        raise EvidenceError(f"--catalog {extra}: no such folder; give one with chips/, clusters/, models/, jobs/, frameworks/ or sources/ in it")
    return Catalog((_shipped(), extra))
