"""informed(catalog, records) -> a catalogue that believes what was measured: facts narrowed, hypotheses weighed anew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from chipscale.bench.record import Record
from chipscale.catalog import Catalog
from chipscale.evidence import Belief, Fact, Kind, Source
from chipscale.facts.chip import PRECISIONS, Chip
from chipscale.facts.cluster import Cluster
from chipscale.verify.judging import Z90, Z975, judge
from chipscale.verify.measured import CLAIMS, measurement
from chipscale.verify.nouns import Measurement, Update, Usual
from chipscale.verify.usual import Shares

#: share of the likelihood that is kept for what no hypothesis foresaw, and the log-scale spread of that (both assumed)
UNFORESEEN, ANYWHERE = 0.02, 1.0
#: reported over claimed memory, and its log-scale spread: GiB sold as GB less what drivers keep
REPORTED, REPORTED_SPREAD = 1.03, 0.04
#: relative spread of a core count that a device tells
COUNTED = 0.01
Known = Sequence[tuple[float, int, Chip]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Informed:
    """A catalogue after records were believed, and what changed."""

    catalog: Catalog
    updates: tuple[Update, ...]


def best(records: Sequence[Record], quantity: str) -> Measurement | None:
    """Return the highest measurement of a quantity in several records of one chip."""
    if quantity == "cores":
        counts = [float(r.identity.units) for r in records if r.identity.units and r.identity.kind != "cpu"]
        return (
            Measurement(quantity="cores", value=counts[0], low=counts[0], high=counts[0], n=1, unit="1", what="the device's own count")
            if counts
            else None
        )
    found = [m for r in records if (m := measurement(r, quantity)) is not None]
    return max(found, key=lambda m: m.value, default=None)


def _side(claim: Fact, towards: float) -> float:
    """Return the log-scale spread of a claim on the side on which something was found."""
    end = claim.high if towards > 0 else claim.low
    return abs(math.log(end / claim.value)) / Z90


def expected(claim: Fact, devices: int, measured: Measurement, usual: Usual | None) -> float:
    """Return the likelihood of a measurement if a claim is true, a density over its logarithm.

    p(m | c) = (1 - e) N(ln m; ln(c u), s^2 + d^2) P(c > m) + e N(ln m; ln c, 1)

    Holds when the share u that chips reach is log-normal over chips with spread s, and d joins the spreads of the claim and of the measurement; no chip beats
    its own peak, and e is left for what no hypothesis foresaw. Counts and reported memory have a spread of their own and may lie above the claim.
    Source: gelman-bda-2013, section 1.3 (Bayes' rule).
    """
    from scipy.special import ndtr

    centre = claim.value / devices
    share, spread, bounded = REPORTED, REPORTED_SPREAD, False
    if claim.quantity == "cores":
        share, spread = 1.0, COUNTED
    elif claim.quantity != "memory_bytes":
        if usual is None:
            return 1.0
        share, spread, bounded = usual.median, usual.spread, True
    away = math.log(measured.value / (centre * share))
    noise = math.log(measured.high / measured.low) / 2 / Z975 if measured.high > measured.low else 0.0
    claimed = _side(claim, away)
    s = math.hypot(spread, claimed, noise)
    inside = _normal(away, s)
    if bounded:
        inside *= float(ndtr(math.log(centre / measured.value) / math.hypot(claimed, noise, COUNTED)))
    return (1 - UNFORESEEN) * inside + UNFORESEEN * _normal(math.log(measured.value / centre), ANYWHERE)


def _normal(x: float, s: float) -> float:
    return math.exp(-0.5 * (x / s) ** 2) / (s * math.sqrt(2 * math.pi))


def evidence(known: Known, records: Sequence[Record]) -> tuple[str, ...]:
    """Return the quantities that were measured and bear on the hypotheses: one product, since those of all precisions err together, and the rest."""
    claimed = [q for q in (*CLAIMS, "cores") if any(c.has(q) for _, _, c in known) and best(records, q) is not None]
    peaks = [f"peak_{p}" for p in ("bf16", "fp16", *PRECISIONS) if f"peak_{p}" in claimed]
    everywhere = [q for q in peaks if all(c.has(q) for _, _, c in known)]
    return (*(everywhere or peaks)[:1], *(q for q in claimed if not q.startswith("peak_")))


def posterior(shares: Shares, records: Sequence[Record], known: Known) -> tuple[float, ...]:
    """Weigh hypotheses anew by the likelihood of what was measured.

    w' = w L / sum(w L), L: product over the quantities measured

    Holds when the quantities err independently. A hypothesis that is silent of a quantity gets the mean likelihood of those that are not.
    Source: gelman-bda-2013, section 1.3 (Bayes' rule).
    """
    weights = [w for w, _, _ in known]
    if len(known) < 2:
        return tuple(weights)
    logs = [math.log(w) for w in weights]
    for quantity in evidence(known, records):
        measured = best(records, quantity)
        assert measured is not None
        usual = shares.usual(quantity)
        likely = [expected(c.fact(quantity), d, measured, usual) if c.has(quantity) else None for _, d, c in known]
        said = [(w, x) for w, x in zip(weights, likely, strict=True) if x is not None]
        mean = sum(w * x for w, x in said) / sum(w for w, _ in said)
        logs = [at + math.log(mean if x is None else x) for at, x in zip(logs, likely, strict=True)]
    top = max(logs)
    raised = [math.exp(at - top) for at in logs]
    return tuple(max(r / sum(raised), 1e-12) for r in raised)


def sharpened(claim: Fact, devices: int, measured: Measurement, usual: Usual | None, source: Source) -> Fact:
    """Return what is believed of a quantity after it was measured: measurement and claim joined by their precisions, or the measurement alone where it contradicts.

    ln c' = (ln c / s_c^2 + ln(m / u) / s_u^2) / (1 / s_c^2 + 1 / s_u^2),  s'^2 = 1 / (1 / s_c^2 + 1 / s_u^2),  c' >= m

    Holds when claim and share are log-normal. The range stays inside the claim's, but where the claim is contradicted and given up.
    Source: gelman-bda-2013, section 2.5 (normal mean with known variance).
    """
    whole = measured.value * devices
    if claim.quantity == "memory_bytes":
        return replace(claim, value=whole, low=whole, high=whole, source=source, note="as the device reports it")
    if usual is None:
        return claim
    implied = math.log(whole / usual.median)
    noise = math.log(measured.high / measured.low) / 2 / Z975 if measured.high > measured.low else 0.0
    s_u = math.hypot(usual.spread, noise)
    s_c = max(math.log(claim.high / claim.low) / 2 / Z90, 1e-6)
    if judge(claim, devices, measured, usual).verdict == "contradicted":
        value, low, high = (max(math.exp(implied + k * Z90 * s_u), whole) for k in (0, -1, 1))
    else:
        mean = (math.log(claim.value) / s_c**2 + implied / s_u**2) / (1 / s_c**2 + 1 / s_u**2)
        s = 1 / math.sqrt(1 / s_c**2 + 1 / s_u**2)
        least, most = max(claim.low, whole), max(claim.high, whole)
        value, low, high = (min(max(math.exp(mean + k * Z90 * s), least), most) for k in (0, -1, 1))
    note = f"{measured.what}; {measured.value:.4g} {measured.unit} measured, of which others reach {100 * usual.median:.0f} % of their claim"
    return replace(claim, value=value, low=low, high=high, source=source, note=note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Records of one chip that are believed: its id, how many devices make a package, and the records as one source."""

    id: str
    devices: int
    names: tuple[str, ...]
    records: tuple[Record, ...]
    source: Source
    shares: Shares

    def usual(self, quantity: str) -> Usual | None:
        """Return what other chips reach of a quantity."""
        return self.shares.usual(quantity, self.id)


def heard(shares: Shares, id: str, listed: Sequence[tuple[str, Record, int]]) -> Heard:
    """Join records of one chip, given as name, record and devices a package."""
    records = tuple(r for _, r, _ in listed)
    where = "; ".join(f"{name}, sha256 {r.sha256[:12]}" for name, r, _ in listed)
    source = Source(key=f"record-{records[0].sha256[:12] or 'unsealed'}", where=where, kind=Kind.MEASURED, date=max(r.created for r in records)[:10])
    return Heard(id=id, devices=listed[0][2], names=tuple(n for n, _, _ in listed), records=records, source=source, shares=shares)


def believing(chip: Chip, h: Heard) -> Chip:
    """Return a chip after records of it were believed; the claims stay behind the measured facts."""
    facts = dict(chip.facts)
    moved = 0.0
    for quantity in CLAIMS:
        measured = best(h.records, quantity)
        if measured is None or not chip.has(quantity):
            continue
        claim, usual = chip.fact(quantity), h.usual(quantity)
        found = sharpened(claim, h.devices, measured, usual, h.source)
        if found is claim:
            continue
        given_up = judge(claim, h.devices, measured, usual).verdict == "contradicted"
        old = [replace(f, rejected="contradicted by measurement") if given_up and not f.rejected else f for f in facts[quantity]]
        facts[quantity] = (found, *old)
        if quantity in ("peak_bf16", "peak_fp16") and not moved:
            moved = found.value / claim.value
        if quantity.startswith("peak_"):
            reached = _reached(quantity, measured, claim, h)
            facts[reached.quantity] = (reached, *facts.get(reached.quantity, ()))
    return replace(chip, facts=_carried(facts, chip, h, moved))


def _reached(quantity: str, measured: Measurement, claim: Fact, h: Heard) -> Fact:
    """Return the rate itself as a fact that is shown, and computed with nowhere."""
    value, low, high = (v * h.devices for v in (measured.value, measured.low, measured.high))
    name = f"measured_{quantity.removeprefix('peak_')}_matmul"
    return Fact(quantity=name, value=value, low=min(low, value), high=max(high, value), unit=claim.unit, source=h.source, note=measured.what)


def _carried(facts: Mapping[str, tuple[Fact, ...]], chip: Chip, h: Heard, ratio: float) -> dict[str, tuple[Fact, ...]]:
    """Let the peaks that were not measured move with the 16-bit one: cores and clock are theirs too. One that leaves its range is a claim no more, but assumed."""
    result = dict(facts)
    for q in (f"peak_{p}" for p in PRECISIONS) if ratio else ():
        if chip.has(q) and best(h.records, q) is None:
            f = chip.fact(q)
            by = f.source if f.low <= f.value * ratio <= f.high else replace(h.source, kind=Kind.ASSUMED)
            note = f"moved by {ratio:.3f} with the measured 16-bit peak"
            moved = replace(f, value=f.value * ratio, low=f.low * ratio, high=f.high * ratio, source=by, note=note)
            result[q] = (moved, *facts[q][1:])
    return result


def linked(catalog: Catalog, chip: Chip, h: Heard) -> Cluster | None:
    """Return a chip's cluster with the links of its innermost tier as measured, None where they were not."""
    measured, usual = best(h.records, "scaleup_bandwidth"), h.usual("scaleup_bandwidth")
    if measured is None or usual is None:
        return None
    cluster = catalog.cluster_for(chip)
    first = cluster.tiers[0]
    bandwidth = sharpened(first.bandwidth, h.devices, measured, usual, h.source)
    return replace(cluster, id=f"{cluster.id} ({chip.id} measured)", tiers=(replace(first, bandwidth=bandwidth), *cluster.tiers[1:]))


def _weighed(before: Belief[Chip], h: Heard) -> Belief[Chip]:
    """Weigh hypotheses anew and let each believe the records."""
    weights = posterior(h.shares, h.records, [(x.weight, h.devices, x.value) for x in before.hypotheses])
    total = sum(weights)
    return Belief(
        hypotheses=tuple(
            replace(x, weight=w / total, value=believing(x.value, h), reason=f"{x.reason}; weighed anew by {h.source.where}")
            for x, w in zip(before.hypotheses, weights, strict=True)
        )
    )


def informed(catalog: Catalog, shares: Shares, found: Mapping[str, Sequence[tuple[str, Record, int]]]) -> Informed:
    """Believe records of chips, given by the chip's id as name, record and devices a package.

    Returns a new catalogue; the one given stays as it is.
    """
    changed: dict[str, Chip | Belief[Chip]] = {}
    clusters: dict[str, Cluster] = {}
    updates = []
    for id, listed in found.items():
        h, before = heard(shares, id, listed), catalog.chip(id)
        after = believing(before, h) if isinstance(before, Chip) else _weighed(before, h)
        changed[id] = _placed(catalog, after, h, clusters)
        updates.append(_update(before, after, h))
    return Informed(catalog=catalog.holding(changed, clusters), updates=tuple(updates))


def _placed(catalog: Catalog, known: Chip | Belief[Chip], h: Heard, clusters: dict[str, Cluster]) -> Chip | Belief[Chip]:
    """Put a chip, or each hypothesis of one, on its cluster as measured, and note that cluster down."""
    if isinstance(known, Belief):
        held = []
        for x in known.hypotheses:
            value = _placed(catalog, x.value, h, clusters)
            assert isinstance(value, Chip)
            held.append(replace(x, value=value))
        return Belief(hypotheses=tuple(held))
    cluster = linked(catalog, known, h)
    if cluster is None:
        return known
    clusters[cluster.id] = cluster
    return replace(known, cluster=cluster.id)


def _update(before: Chip | Belief[Chip], after: Chip | Belief[Chip], h: Heard) -> Update:
    """Tell what changed; of a believed chip the facts of the likeliest hypothesis."""
    if isinstance(before, Chip) or isinstance(after, Chip):
        assert isinstance(before, Chip)
        assert isinstance(after, Chip)
        return Update(chip=h.id, records=h.names, weights=(), facts=_moved(before, after))
    pairs = list(zip(before.hypotheses, after.hypotheses, strict=True))
    old, new = max(pairs, key=lambda p: p[1].weight)
    return Update(
        chip=h.id, records=h.names, weights=tuple((a.key, a.title, a.weight, b.weight) for a, b in pairs), facts=_moved(old.value, new.value)
    )


def _moved(before: Chip, after: Chip) -> tuple[tuple[str, Fact, Fact], ...]:
    return tuple((q, before.fact(q), after.fact(q)) for q in CLAIMS if before.has(q) and after.fact(q) != before.fact(q))
