"""What a record measured of a chip's claims: the best of each."""

from __future__ import annotations

from chipscale.bench.record import Measure, Record
from chipscale.facts.chip import PRECISIONS
from chipscale.units import show
from chipscale.verify.nouns import Measurement

CLAIMS = (*(f"peak_{p}" for p in PRECISIONS), "memory_bandwidth", "memory_bytes", "scaleup_bandwidth")
#: reductions inside a switch let the bus bandwidth of an all-reduce exceed the links
REDUCED_IN_NETWORK = "all_reduce"


def _text(found: Measure) -> str:
    """Say what was run."""
    s = found.settings
    if all(k in s for k in ("m", "n", "k")):
        return f"{found.case}, {s['m']} x {s['n']} x {s['k']}"
    if "size" in s and "ranks" in s:
        return f"{found.case} of {show(float(s['size']), 'B')} over {s['ranks']} ranks"
    return found.case


def measurement(record: Record, quantity: str) -> Measurement | None:
    """Return the best that a record has of a quantity: the highest value, of links other than in all-reduce where something else was run too."""
    found = [m for m in record.of(quantity) if m.summary is not None]
    others = [m for m in found if not m.case.startswith(REDUCED_IN_NETWORK)]
    chosen = max(others or found, key=lambda m: m.summary.value if m.summary else 0.0, default=None)
    if chosen is None or chosen.summary is None:
        if quantity == "memory_bytes" and record.identity.memory_bytes:
            size = float(record.identity.memory_bytes)
            return Measurement(quantity=quantity, value=size, low=size, high=size, n=1, unit="B", what="the device's own report")
        return None
    s = chosen.summary
    return Measurement(quantity=quantity, value=s.value, low=s.low, high=s.high, n=s.n, unit=chosen.unit, what=_text(chosen))


def measurements(record: Record) -> tuple[Measurement, ...]:
    """Return the best of each quantity that a record has."""
    return tuple(m for q in CLAIMS if (m := measurement(record, q)) is not None)


def missing(record: Record, quantity: str) -> str:
    """Say why a record has nothing of a quantity."""
    word = quantity.removeprefix("peak_")
    for trial in record.trials:
        for note in trial.notes:
            if word in note.case.split() or (quantity == "scaleup_bandwidth" and trial.name == "collectives"):
                return note.text
    return "the record has no test of it"
