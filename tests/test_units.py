"""Units: every prefix is worth what it says, and what is no quantity is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chipscale.evidence import EvidenceError
from chipscale.units import parse, show

UNITS = ("FLOP/s", "B", "B/s", "Hz", "W", "USD", "s", "1", "mm2", "tokens")


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("989.4 TFLOP/s", "FLOP/s", 989.4e12),
        ("989 TFLOPS", "FLOP/s", 989e12),
        ("1979 TOPS", "FLOP/s", 1979e12),
        ("1,979 TOPS", "FLOP/s", 1979e12),
        ("80 GB", "B", 80e9),
        ("80 GiB", "B", 80 * 2**30),
        ("3.35 TB/s", "B/s", 3.35e12),
        ("400 Gb/s", "B/s", 50e9),
        ("14.8T", "tokens", 14.8e12),
        ("2.1 us", "s", 2.1e-6),
        ("700 W", "W", 700.0),
        ("132", "1", 132.0),
        ("814 mm2", "mm2", 814.0),
        ("1.83 GHz", "Hz", 1.83e9),
        ("33600 USD", "USD", 33600.0),
    ],
)
def test_parse_known_quantities(text: str, unit: str, value: float) -> None:
    assert parse(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("unit", [u for u in UNITS if u not in ("1", "tokens")])
def test_a_number_without_a_unit_is_refused(unit: str) -> None:
    with pytest.raises(EvidenceError, match="unit"):
        parse("80", unit)


@pytest.mark.parametrize(
    ("text", "unit"),
    [("nan W", "W"), ("inf W", "W"), ("1e999 B", "B"), ("-3 W", "W"), ("80 gb", "B"), ("80 GB", "B/s"), ("3 TB/s", "B"), ("", "1"),
     ("5 furlongs", "s"), ("GB", "B"), ("1.2.3 GB", "B")],
)  # fmt: skip
def test_what_is_no_quantity_is_refused(text: str, unit: str) -> None:
    with pytest.raises(EvidenceError):
        parse(text, unit)


def test_bits_and_bytes_and_binary_prefixes_stay_apart() -> None:
    assert parse("400 GB/s", "B/s") == 8 * parse("400 Gb/s", "B/s")
    assert parse("80 GiB", "B") / parse("80 GB", "B") == pytest.approx(1.073741824)


@given(st.floats(min_value=1e-8, max_value=1e3))
def test_seconds_survive_printing(value: float) -> None:
    assert parse(show(value, "s"), "s") == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize("unit", ["FLOP/s", "B", "B/s", "Hz"])
@given(value=st.floats(min_value=1.0, max_value=9e17))
def test_quantities_survive_printing(unit: str, value: float) -> None:
    assert parse(show(value, unit), unit) == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize("unit", ["W", "USD"])
@given(value=st.floats(min_value=1e2, max_value=1e12))
def test_watts_and_dollars_survive_printing(unit: str, value: float) -> None:
    assert parse(show(value, unit), unit) == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(("value", "unit", "text"), [(14.8e12, "tokens", "14.8T"), (0.4, "W", "0.4 W"), (2e-5, "1", "2e-05"), (700.0, "W", "700 W")])
def test_printing_keeps_prefix_and_small_values(value: float, unit: str, text: str) -> None:
    assert show(value, unit) == text
    assert parse(text, unit) == pytest.approx(value)


@given(st.text(), st.sampled_from(UNITS))
def test_any_text_is_read_or_refused(text: str, unit: str) -> None:
    with suppress(EvidenceError):
        assert parse(text, unit) >= 0
