"""Prefixes, parsing, formatting: the only 1e9 in the house."""

from __future__ import annotations

import math
import re

from chipscale.evidence import EvidenceError

KILO, MEGA, GIGA, TERA, PETA = 1e3, 1e6, 1e9, 1e12, 1e15
_DECIMAL = {"": 1.0, "k": KILO, "K": KILO, "M": MEGA, "G": GIGA, "T": TERA, "P": PETA, "E": 1e18}
MEBI, GIBI = 2.0**20, 2.0**30
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": GIBI, "Ti": 2.0**40}
_SMALL = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_NUMBER = re.compile(r"\s*([0-9][0-9_,]*\.?[0-9]*(?:[eE][+-]?\d+)?|\.\d+)\s*(.*?)\s*$", re.ASCII)


def _scales(unit: str) -> dict[str, float]:
    """List every way to write a unit, with its factor to SI."""
    if unit == "FLOP/s":
        return {p + u: f for p, f in _DECIMAL.items() for u in ("FLOP/s", "FLOPS", "FLOPs/s", "OPS", "OP/s")}
    if unit in ("B", "B/s"):
        per = "/s" if unit == "B/s" else ""
        table = {p + "B" + per: f for p, f in {**_DECIMAL, **_BINARY}.items()}
        if per:
            table |= {p + b: f / 8.0 for p, f in _DECIMAL.items() for b in ("b/s", "bit/s", "bps")}
        return table
    if unit == "s":
        return {**{p + "s": f for p, f in _SMALL.items()}, "min": 60.0, "h": 3600.0, "d": 86400.0, "y": 31557600.0}
    if unit == "tokens":
        named = {p: f for p, f in (*_DECIMAL.items(), ("B", GIGA)) if p}
        return {**named, **{p + " tokens": f for p, f in named.items()}, "tokens": 1.0}
    if unit == "1":
        return {"": 1.0}
    if unit in ("Hz", "W", "USD"):
        return {p + unit: f for p, f in _DECIMAL.items()}
    return {unit: 1.0}


def parse(text: str, unit: str) -> float:
    """Read a quantity into SI: parse("3.35 TB/s", "B/s"), parse("400 Gb/s", "B/s") in bits, parse("80 GiB", "B").

    >>> parse("400 Gb/s", "B/s")
    50000000000.0
    """
    found = _NUMBER.match(text)
    scales = _scales(unit)
    if not found:
        raise EvidenceError(f"{text[:60]!r} is not a quantity; write a positive number and a unit: {_hint(unit)}")
    number, written = found.group(1).replace("_", "").replace(",", ""), found.group(2)
    if written not in scales:
        raise EvidenceError(
            f"{text[:60]!r}: {'a unit is missing' if not written else f'unit {written[:60]!r} is unknown'}; write one of {_hint(unit)}"
        )
    value = float(number) * scales[written]
    if not math.isfinite(value):
        raise EvidenceError(f"{text[:60]!r} is not finite; correct the number")
    return value


def _hint(unit: str) -> str:
    return {
        "FLOP/s": "TFLOP/s, TOPS",
        "B": "GB, GiB",
        "B/s": "GB/s, TB/s, Gb/s (bits)",
        "s": "s, ms, us",
        "tokens": "14.8T, 300B, 5000 tokens",
        "1": "a bare number",
    }.get(unit, unit)


def show(value: float, unit: str, digits: int = 3) -> str:
    """Write a quantity with a fitting prefix.

    >>> show(3.35e12, "B/s"), show(0.0021, "s"), show(132, "1"), show(14.8e12, "tokens")
    ('3.35 TB/s', '2.1 ms', '132', '14.8T')
    """
    if not math.isfinite(value):
        return "unknown"
    if unit == "s":
        for factor, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
            if abs(value) >= factor:
                return f"{_round(value / factor, digits)} {name}"
        return f"{_round(value / 1e-9, digits)} ns"
    if unit in ("1", "mm2"):
        return f"{_round(value, max(digits, 4))}{' mm2' if unit == 'mm2' else ''}"
    if unit in ("USD", "W") and abs(value) < 1e5:
        return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{_round(value, digits)} {unit}"
    for factor, name in ((PETA, "P"), (TERA, "T"), (GIGA, "G"), (MEGA, "M"), (KILO, "k")):
        if abs(value) >= factor * 0.9999 and (name != "P" or unit == "tokens" or abs(value) >= 9.9 * PETA):
            return f"{_round(value / factor, max(digits, 4))}{name if unit == 'tokens' else f' {name}{unit}'}"
    return f"{_round(value, digits)} {unit}"


def _round(value: float, digits: int) -> str:
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if abs(float(text)) >= 1000 else text
