"""Estimate: one operator on one chip, in seconds with an 80 % interval."""

from __future__ import annotations

import math
import tomllib
from dataclasses import Field, fields
from typing import Any

import numpy as np

from chipscale.catalog import Catalog
from chipscale.cost.hardware import base_precision
from chipscale.cost.kernels.allreduce import ALLREDUCE
from chipscale.cost.kernels.collective import COLLECTIVE
from chipscale.cost.kernels.costing import Costing, Estimate, Tags, Tier, costing
from chipscale.cost.kernels.decode import DECODE
from chipscale.cost.kernels.elementwise import ELEMENTWISE
from chipscale.cost.kernels.exchange import EXCHANGE
from chipscale.cost.kernels.experts import EXPERTS
from chipscale.cost.kernels.form import Form
from chipscale.cost.kernels.gemm import GEMM
from chipscale.cost.kernels.latent import LATENT_DECODE, LATENT_PREFILL
from chipscale.cost.kernels.prefill import PREFILL
from chipscale.cost.silicon import silicon
from chipscale.evidence import EvidenceError
from chipscale.facts.chip import Chip
from chipscale.operators.calibration import read
from chipscale.operators.context import in_context
from chipscale.operators.reading import MOST, Rule, family_of, pattern, rules

FORMS = (GEMM, PREFILL, DECODE, LATENT_PREFILL, LATENT_DECODE, EXPERTS, EXCHANGE, COLLECTIVE, ALLREDUCE, ELEMENTWISE)


def form_of(call: Any) -> Form:
    """Return the form that costs a call."""
    for form in FORMS:
        if isinstance(call, form.call):
            return form
    raise EvidenceError(f"{type(call).__name__} is no call of an operator; use one of {', '.join(f.call.__name__ for f in FORMS)}")


def usual_family(catalog: Catalog, form: Form, precision: str, arch: str) -> str:
    """Return the kernel family that runs a form where nobody names a kernel."""
    lines = tomllib.loads(catalog.text(f"kernels/{form.id}.toml"))["usual"]
    found = [
        Rule(engine=pattern(""), kernel=pattern(""), precision=pattern(u.get("precision", "")), arch=pattern(u.get("arch", "")), family=u["family"])
        for u in lines
    ]
    return family_of(found, "", "", precision, arch)


def costing_of(catalog: Catalog, form: Form, chip: Chip, precision: str, engine: str = "", kernel: str = "") -> Costing:
    """Gather what one kernel on one chip costs: calibrated where the chip entered the fit, prior where only its like did."""
    known = read(catalog, form.id)
    precision = precision if form.matrix else ""
    if kernel:
        family = family_of(rules(catalog, form.id), engine, kernel, precision, chip.family)
    else:
        family = usual_family(catalog, form, precision, chip.family)
    brand = engine.split(maxsplit=1)[0].lower() if engine else ""
    tags = Tags(precision=precision, family=family, kernel=f"{brand}/{kernel}:{precision}", arch=chip.family, chip=chip.id, engine=engine)
    case = known.case(tags)
    tier: Tier = "prior" if case in ("chip", "precision") else "calibrated"
    return costing(form, known.found, tags, tier, known.interval(case))


def _checked(call: str, field: Field[Any], value: Any) -> None:
    """Refuse what no size can be; a field that is infinite where nobody sets it counts at least 1."""
    sizes = np.asarray(value, dtype=float)
    bound = field.default == math.inf
    fine = ((sizes >= 1) & ((sizes < MOST) | (sizes == math.inf))) if bound else (sizes >= 0) & (sizes < MOST)
    if not np.all(fine):
        wanted = "from 1 to 2^62, or infinite for none" if bound else "from 0 to 2^62"
        raise EvidenceError(f"{call}.{field.name}: {sizes.ravel()[:3]} must be numbers {wanted}; correct them")


def estimate(catalog: Catalog, chip: Chip, call: Any, *, precision: str = "", engine: str = "", kernel: str = "", context: str = "alone") -> Estimate:
    """Estimate the seconds of a call on a chip, numbers or arrays, with the 80 % interval and the tier they come from.

    `precision` is that of the matrix engine (the chip's own at 16 bit where blank); `engine` and `kernel` are named as in measured rows, and
    the usual kernel of the chip's architecture counts where they are blank. `context` "network" adds what the kernels around it cost, where rows
    say how much: a factor with its own spread, joined to the interval.
    Errors: a call of no form, a size that is negative or beyond 2^62, a precision that the chip lacks, a context that no rows support.
    """
    form = form_of(call)
    for field in fields(call):
        _checked(type(call).__name__, field, getattr(call, field.name))
    wanted = precision or base_precision(chip)
    found = costing_of(catalog, form, chip, wanted, engine, kernel).estimate(call, silicon(chip, catalog, wanted))
    return in_context(catalog, chip.family, form.id, context, found)
