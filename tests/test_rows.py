"""Measured rows: links as stated, blanks as guesses, and text of any kind refused or answered, never a traceback."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chipscale.catalog import load
from chipscale.evidence import EvidenceError
from chipscale.rows import Row, measured_seconds, number, read, stated_outer_bandwidth, understand, whole
from chipscale.stack import stack
from chipscale.validate import SHIPPED

CATALOG = load()
FILE = CATALOG.folders[0] / SHIPPED
ROWS = read(FILE)
COLUMNS = tuple(c for c in ROWS[0] if c != "_line")
DENSE: Row = next(
    r for r in ROWS if r["complete"] == "yes" and r["architecture"] == "dense" and not r["doubt"] and r["tp"] and r["pp"] and r["micro_batch"]
)
MOE: Row = next(
    r for r in ROWS if r["complete"] == "yes" and r["architecture"] == "moe" and not r["doubt"] and r["tp"] and r["pp"] and r["micro_batch"]
)


def small(**changes: str) -> Row:
    """Return a dense row on 64 chips with everything stated but what is changed."""
    degrees = {"n_chips": "64", "global_batch": "128", "tp": "2", "pp": "4", "vpp": "1", "cp": "1", "ep": "1", "dp": "8", "micro_batch": "1",
               "recompute": "full", "overlap_as_stated": ""}  # fmt: skip
    return {**DENSE, **degrees, **changes}


def seconds_of(row: Row) -> float:
    found = understand(row, CATALOG)
    assert not found.reason
    problem = stack([found])
    theta = np.zeros(len(problem.design.coefficients))
    return float(np.exp(problem.log_seconds(theta)[0]))


@pytest.mark.parametrize(
    ("text", "node", "value"),
    [
        ("RoCE 1600 Gb/s per node", 8, 25e9),
        ("InfiniBand 8x 50 GB/s per node", 8, 50e9),
        ("RDMA 400 Gb/s per GPU (Grand Teton)", 8, 50e9),
        ("8x HDR InfiniBand 200 Gb/s per node (Selene)", 8, 25e9),
        ("4x ConnectX-7 IB NDR 400Gb/s", 4, 50e9),
        ("800 Gb/s per node (as stated)", 8, 12.5e9),
        ("EFA 400 Gb/s per node", 8, 6.25e9),
        ("1x Ethernet 100Gb/Sec, 8x NVIDIA Quantum-2 CX7 InfiniBand (400Gb/s)", 8, 50e9),
    ],
)
def test_stated_links_are_read_as_bytes_per_chip(text: str, node: float, value: float) -> None:
    assert text in {r["inter_node_link"] for r in ROWS}
    assert stated_outer_bandwidth(text, node) == pytest.approx(value)


def test_storage_and_management_links_do_not_count() -> None:
    texts = {r["inter_node_link"] for r in ROWS if r["inter_node_link"].startswith("Storage: 2x ConnectX-7")}
    assert texts
    for text in texts:
        assert stated_outer_bandwidth(text, 8) == pytest.approx(50e9)
    assert stated_outer_bandwidth("Storage+Management: 1x NVIDIA BlueField 2 DPU 100Gb/s", 8) is None


@pytest.mark.parametrize(
    "text", ["", "HDR InfiniBand (Selene)", "GCP A3 (GPUDirect-TCPX)", "ROCE2; Data bandwidth for GPU-PCIe: 504 GB/s; PCIe-NIC: 500 GB/s"]
)
def test_a_link_without_a_number_says_nothing(text: str) -> None:
    assert stated_outer_bandwidth(text, 8) is None


def test_a_stated_link_reaches_the_hardware() -> None:
    slow = understand(small(inter_node_link="RoCE 1600 Gb/s per node", chips_per_node="8"), CATALOG)
    assert {float(np.asarray(h.outer_bandwidth)) for h in slow.hardware} == {25e9}


def test_a_row_that_states_everything_is_one_guess() -> None:
    found = understand(small(sharding="zero1"), CATALOG)
    assert [g.weight for g in found.guesses] == [1.0]
    assert found.guesses[0].plan.chips == 64
    assert not [a for a in found.assumed if a.startswith(("tp", "pp", "micro-batch", "recompute", "sharding", "interleave"))]


@pytest.mark.parametrize(
    ("column", "noted"), [("micro_batch", "micro-batch"), ("recompute", "recompute"), ("vpp", "interleave"), ("tp", "tp"), ("pp", "pp")]
)
def test_a_blank_is_several_guesses_and_listed(column: str, noted: str) -> None:
    found = understand(small(**{column: "", "dp": ""}), CATALOG)
    assert not found.reason
    assert len(found.guesses) > 1
    assert sum(g.weight for g in found.guesses) == pytest.approx(1)
    assert all(g.weight > 0 and g.plan.chips == 64 for g in found.guesses)
    assert any(a.startswith(noted) for a in found.assumed), found.assumed


def test_all_blank_still_sums_to_one() -> None:
    blank = dict.fromkeys(("micro_batch", "recompute", "vpp", "tp", "pp", "dp", "sharding", "cp", "ep"), "")
    found = understand(small(**blank), CATALOG)
    assert len(found.guesses) > 10
    assert sum(g.weight for g in found.guesses) == pytest.approx(1)
    assert len(found.assumed) >= 5
    assert len(found.guesses) == len(found.hardware) == len(found.contexts)


def test_every_shipped_guess_uses_all_chips_and_weighs_one() -> None:
    for row in ROWS[::7]:
        found = understand(row, CATALOG)
        if not found.reason:
            assert sum(g.weight for g in found.guesses) == pytest.approx(1), found.key
            assert {g.plan.chips for g in found.guesses} == {int(float(row["n_chips"]))}, found.key


def test_fewer_micro_batches_than_stages_is_read_as_a_local_batch() -> None:
    found = understand(small(pp="8", tp="1", dp="8", global_batch="64", micro_batch="8"), CATALOG)
    assert [g.plan.micro_batch for g in found.guesses] == [1]
    assert any("fewer micro-batches than stages" in a for a in found.assumed)
    assert math.isfinite(seconds_of(small(pp="8", tp="1", dp="8", global_batch="64", micro_batch="8")))


def test_fewer_sequences_than_stages_is_still_answered() -> None:
    row = small(pp="16", tp="1", dp="4", global_batch="8", micro_batch="1")
    assert [g.plan.micro_batch for g in understand(row, CATALOG).guesses] == [1]
    assert 0 < seconds_of(row) < math.inf


def test_degrees_that_do_not_multiply_carry_a_reason() -> None:
    found = understand(small(tp="3", dp=""), CATALOG)
    assert "multipl" in found.reason
    assert not found.guesses


@pytest.mark.parametrize("column", ["chip", "n_chips", "seq_len", "global_batch"])
def test_a_blank_in_a_needed_column_is_named(column: str) -> None:
    found = understand({**DENSE, column: "", "step_time_s": "1.0"}, CATALOG)
    assert column in found.reason
    assert not found.clean


def test_the_step_time_follows_from_tokens_per_second() -> None:
    row = {**DENSE, "step_time_s": "", "tokens_per_s_per_chip": "1000", "n_chips": "8", "seq_len": "4096", "global_batch": "64"}
    assert measured_seconds(row) == pytest.approx(4096 * 64 / 8000)


@pytest.mark.parametrize("text", ["0", "-3", "nan", "inf", "abc", "1e15", "1 2", "0x10"])
def test_what_is_no_positive_number_is_named(text: str) -> None:
    with pytest.raises(EvidenceError, match="column n_chips"):
        number({"row": "r1", "n_chips": text}, "n_chips")


def test_a_fraction_is_no_whole_number() -> None:
    with pytest.raises(EvidenceError, match=r"row r1, column tp: 1\.5 is not a whole number"):
        whole({"row": "r1", "tp": "1.5"}, "tp")


def written(path: Path, rows: list[Row]) -> Path:
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    out.writerows([[r[c] for c in COLUMNS] for r in rows])
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def check_row(row: Row) -> None:
    """A row is refused with one EvidenceError, carries its reason, or has a finite prediction."""
    try:
        found = understand(row, CATALOG)
    except EvidenceError as problem:
        assert str(problem)
        return
    if found.reason:
        assert not found.guesses
        return
    assert sum(g.weight for g in found.guesses) == pytest.approx(1)
    problem = stack([found])
    logs = problem.log_seconds(np.zeros(len(problem.design.coefficients)))
    assert np.all(np.isfinite(logs)), (row, logs)


TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["0", "1", "2", "3", "7", "8", "64", "1e3", "1e14", "-1", "nan", "inf", "none", "full", "fp8", "h100", "910d", "yes", "no", "1_0", "９"]
    ),
    st.integers(-3, 10**15).map(str),
    st.floats(width=32).map(str),
)
SLOW = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(base=st.sampled_from([DENSE, MOE]), changes=st.dictionaries(st.sampled_from(COLUMNS), TEXT, min_size=1, max_size=4))
def test_any_text_in_any_column_is_refused_or_answered(tmp_path: Path, base: Row, changes: dict[str, str]) -> None:
    path = tmp_path / "rows.csv"
    try:
        rows = read(written(path, [{**base, **changes}]))
    except EvidenceError as problem:
        assert str(path) in str(problem)
        return
    assert len(rows) == 1
    check_row(rows[0])


@SLOW
@given(data=st.binary(max_size=300))
@example(data=b'chip,n_chips,step_time_s\n"h100,8,1\n')
@example(data=b"\xff\xfe")
@example(data=b"chip,n_chips,step_time_s\n\x00,1,1\n")
def test_any_bytes_are_refused_or_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(data)
    try:
        rows = read(path)
    except EvidenceError as problem:
        assert str(path) in str(problem)
        return
    for row in rows:
        check_row(row)
