"""Context: how much longer a kernel takes inside a network than alone, from rows that give both times."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Literal

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.kernels.costing import Estimate
from chipscale.evidence import Belief, EvidenceError
from chipscale.operators.corpus import Sample
from chipscale.operators.reading import seconds_of

#: where a kernel runs: as its rows were measured, or inside a network with others before and behind it
Context = Literal["alone", "network"]
CONTEXTS = ("alone", "network")
#: fewest pairs that say how far they scatter
FEWEST = 5
#: what `phase` of a row says where its kernel was timed inside a run
INSIDE = re.compile(r"^(prefill|decode)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextFactor:
    """What a network does to the kernels of a form on an architecture: mean and standard deviation of ln(network / alone) over `pairs`.

    `inside` is 1 where the form's rows of that architecture were measured inside networks, so that its coefficients hold the factor already.
    """

    arch: str
    form: str
    pairs: int
    mean: float
    spread: float
    inside: bool

    def applied(self, alone: Estimate) -> Estimate:
        """Multiply an estimate by the factor and join both intervals.

        t' = t e^m;  ln ends' = m -+ sqrt(ln^2 ends + q^2), q = t_0.9(n - 1) s sqrt(1 + 1 / n).

        Holds when the factor does not depend on what the form misses.
        Source: gelman-2013, section 5.4 (prediction for one more of a group).
        """
        from scipy.stats import t

        reach = 0.0 if self.inside else float(t.ppf(0.9, self.pairs - 1)) * self.spread * math.sqrt(1.0 + 1.0 / self.pairs)
        seconds = alone.seconds * math.exp(self.mean)
        low, high = (np.sqrt(np.log(end / alone.seconds) ** 2 + reach**2) for end in (alone.low, alone.high))
        return replace(alone, seconds=seconds, low=seconds * np.exp(-low), high=seconds * np.exp(high))


def pairs_of(samples: Sequence[Sample], catalog: Catalog) -> list[ContextFactor]:
    """Find the factors that rows support: `measured_us` alone beside `profiler_us` in the network, as their notes say."""
    logs: dict[tuple[str, str], list[float]] = {}
    inside: dict[tuple[str, str], list[bool]] = {}
    for s in samples:
        if not s.reading or "profiler_us" not in s.row:
            continue
        chip = catalog.chip(s.row["chip"])
        key = ("" if isinstance(chip, Belief) else chip.family, s.reading.form.id)
        inside.setdefault(key, []).append(INSIDE.match(s.row.get("phase", "")) is not None)
        if s.row["profiler_us"]:
            logs.setdefault(key, []).append(math.log(seconds_of(s.row, "profiler_us", 1e-6) / s.reading.seconds))
    found = []
    for (arch, form), places in sorted(inside.items()):
        some = logs.get((arch, form), [])
        if 2 * sum(places) > len(places):
            found.append(ContextFactor(arch=arch, form=form, pairs=len(some), mean=0.0, spread=0.0, inside=True))
        elif len(some) >= FEWEST:
            found.append(ContextFactor(arch=arch, form=form, pairs=len(some), mean=fmean(some), spread=stdev(some), inside=False))
    return found


def written(found: Sequence[ContextFactor]) -> str:
    """Return the text of data/calibration/operators/context.toml."""
    head = "# Written by `chipscale calibrate operators`: ln(seconds in a network / alone) over rows that give both, by architecture and form.\n"
    head += "# `inside` forms were measured inside networks; their pairs, if any, are too few to take the factor out.\n"
    lines = (
        f'[[factor]]\narch = "{f.arch}"\nform = "{f.form}"\npairs = {f.pairs}\nmean = {f.mean:.4f}\nspread = {f.spread:.4f}\ninside = {str(f.inside).lower()}\n'
        for f in found
    )
    return head + "\n" + "\n".join(lines)


def factors(catalog: Catalog) -> list[ContextFactor]:
    """Read the factors."""
    return [ContextFactor(**entry) for entry in tomllib.loads(catalog.text("calibration/operators/context.toml"))["factor"]]


def in_context(catalog: Catalog, arch: str, form: str, context: str, alone: Estimate) -> Estimate:
    """Return an estimate in a context; one that no rows support is refused."""
    if context not in CONTEXTS:
        raise EvidenceError(f"context: {context!r} is unknown; use one of {', '.join(CONTEXTS)}")
    if context == "alone":
        return alone
    known = factors(catalog)
    for f in known:
        if (f.arch, f.form) == (arch, form):
            return f.applied(alone)
    have = ", ".join(f"{f.form} on {f.arch}" for f in known)
    raise EvidenceError(f"context: no {form} kernel on {arch} was measured both alone and in a network (known: {have}); leave context out")
