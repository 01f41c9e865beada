"""A store that is only added to, and two runs compared by a proper test."""

from __future__ import annotations

import csv
import json
import math
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.records import REAL, h100, measure, record
from typer.testing import CliRunner

from chipscale.bench.files import parsed, read, sealed, text
from chipscale.bench.record import Measure, Record
from chipscale.catalog import load
from chipscale.cli import app
from chipscale.evidence import EvidenceError
from chipscale.importers.mlperf import FOOTNOTE
from chipscale.importers.reading import imported
from chipscale.report.results import diff_screen, entries_screen
from chipscale.results.compare import Difference, compare, holm, mann_whitney, shift
from chipscale.results.store import NO_DUCKDB, Entry, opened
from chipscale.verify import verify

needs_duckdb = pytest.mark.skipif(find_spec("duckdb") is None, reason="DuckDB is not installed (pip install 'chipscale[store]')")
CATALOG = load()
NOW = "2026-11-25T12:00:00+00:00"
GOOD = record(h100(), measure("peak_bf16", 780e12))
MLPERF = imported(Path(__file__).parent / "imports" / "mlperf.txt")


def runs(values: list[float], created: str = "2026-11-25T10:00:00+00:00") -> Record:
    """Return a record of one rate, its samples these values."""
    m = Measure(test="memory", case="copy", unit="B/s", work=1.0, samples=tuple(1 / v for v in values), settings={"array_bytes": 10**9})
    return record(h100(), m, created=created)


def only(a: Record, b: Record) -> Difference:
    return compare(a, b).differences[0]


# --- comparing ---


def test_the_test_is_exact_where_samples_are_few() -> None:
    assert mann_whitney([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]) == (1.0, pytest.approx(2 / math.comb(6, 3)))


def test_alike_runs_show_no_difference_and_a_slower_one_does() -> None:
    rng = np.random.default_rng(1)
    a, b = (list(100 * np.exp(0.02 * rng.standard_normal(40))) for _ in range(2))
    assert only(runs(a), runs(b, NOW)).word == "no difference shown"
    slower = only(runs(a), runs([0.95 * x for x in a], NOW))
    assert (slower.word, slower.ratio) == ("slower", pytest.approx(0.95, rel=0.01))
    assert slower.low < 0.95 < slower.high < 1


@given(st.lists(st.floats(1, 1e6), min_size=3, max_size=20), st.lists(st.floats(1, 1e6), min_size=3, max_size=20))
@settings(max_examples=60, deadline=None)
def test_to_swap_the_runs_inverts_the_shift_and_keeps_p(a: list[float], b: list[float]) -> None:
    forth, back = shift(a, b), shift(b, a)
    assert forth[0] == pytest.approx(1 / back[0])
    assert forth[1] == pytest.approx(1 / back[2])
    assert forth[1] <= forth[0] * (1 + 1e-12) <= forth[2] * (1 + 1e-9)
    (up, p), (down, q) = mann_whitney(a, b), mann_whitney(b, a)
    assert p == pytest.approx(q)
    assert up + down == pytest.approx(1.0)


def test_false_alarms_stay_as_rare_as_the_level_says() -> None:
    """Of 200 comparisons of 20 cases each, drawn alike, at most some 5 % show any difference once all p are adjusted."""
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(200):
        p = [mann_whitney(list(rng.standard_normal(12)), list(rng.standard_normal(12)))[1] for _ in range(20)]
        alarms += min(holm(p)) <= 0.05
    assert alarms <= 20


def test_the_interval_of_the_shift_covers_what_it_must() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(300):
        a, b = np.exp(0.1 * rng.standard_normal(15)), 1.2 * np.exp(0.1 * rng.standard_normal(15))
        _, low, high = shift(list(a), list(b))
        inside += low <= 1.2 <= high
    assert 0.91 <= inside / 300 <= 0.99


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_is_never_smaller_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= x for a, x in zip(adjusted, p, strict=True))
    order = sorted(range(len(p)), key=lambda i: p[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_what_cannot_be_compared_is_one_message() -> None:
    with pytest.raises(EvidenceError, match="with itself"):
        compare(GOOD, GOOD)
    with pytest.raises(EvidenceError, match="MLPerf is not compared"):
        compare(GOOD, MLPERF)
    with pytest.raises(EvidenceError, match="no test in common"):
        compare(GOOD, runs([1.0, 2.0, 3.0]))
    assert only(runs([1.0, 2.0]), runs([3.0, 4.0], NOW)).word == "too few samples"


def test_two_runs_of_the_real_suite_compare_case_by_case() -> None:
    a = read(REAL)
    slowed = tuple(
        replace(t, measures=tuple(replace(m, samples=tuple(s * 1.25 for s in m.samples), bound=None) if m.work else m for m in t.measures))
        for t in a.trials
    )
    b = sealed(replace(a, trials=slowed, created=NOW))
    found = compare(a, b)
    rates = [d for d in found.differences if d.unit.endswith("/s") and d.n[0] >= 30]
    assert rates
    assert all(d.ratio == pytest.approx(0.8, rel=0.02) for d in rates)
    assert sum(d.word == "slower" for d in rates) > len(rates) / 2
    assert found.tested == sum(d.p is not None for d in found.differences)


# --- the store ---


def add(path: Path, *records: Record) -> list[str]:
    with opened(path, write=True) as store:
        return [store.add(r, verify(CATALOG, r, "r"), NOW) for r in records]


@needs_duckdb
def test_a_record_comes_back_as_it_went_in_and_only_once(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    assert add(path, GOOD, read(REAL)) == ["added", "added"]
    assert add(path, GOOD) == ["known"]
    with opened(path) as store:
        assert store.record(GOOD.sha256[:8]) == GOOD
        assert text(store.record(read(REAL).sha256)) == REAL.read_text()
        assert [e.chip for e in store.entries()] == ["nvidia-h100-sxm-80gb", ""]


@needs_duckdb
def test_a_changed_record_under_the_same_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    add(path, GOOD)
    forged = replace(runs([1.0, 2.0, 3.0]), sha256=GOOD.sha256)
    with opened(path, write=True) as store, pytest.raises(EvidenceError, match="stored with another content"):
        store.add(forged, verify(CATALOG, GOOD, "r"), NOW)


@needs_duckdb
@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM records WHERE position = 1",
        "UPDATE records SET content = replace(content, '780', '980') WHERE position = 1",
        "UPDATE records SET sha256 = 'ab' WHERE position = 2",
    ],
)
def test_a_store_that_was_changed_shows_it(tmp_path: Path, query: str) -> None:
    import duckdb

    path = tmp_path / "s.duckdb"
    add(path, record(h100(), measure("peak_bf16", 780e12), created="x 780"), read(REAL))
    with duckdb.connect(str(path)) as raw:
        raw.execute(query).fetchall()
    with pytest.raises(EvidenceError, match="the store was changed"), opened(path):
        pass


@needs_duckdb
def test_hashes_are_found_by_their_start(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    add(path, GOOD)
    with opened(path) as store:
        for start, said in (("ab", "4 characters"), ("ffffffff", "no record"), ("", "4 characters")):
            with pytest.raises(EvidenceError, match=said):
                store.find(start)


@needs_duckdb
def test_exports_hold_every_result(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    add(path, GOOD, read(REAL))
    with opened(path) as store:
        count = store.export(tmp_path / "r.csv")
        found = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
        assert len(found) == count == len(GOOD.measures) + sum(m.summary is not None for m in read(REAL).measures)
        assert float(found[0]["value"]) == pytest.approx(780e12, rel=1e-3)
        assert store.export(tmp_path / "r.json") == 2
        whole = json.loads((tmp_path / "r.json").read_text())
        assert parsed(json.dumps(whole[0]), "again") == GOOD
        assert store.export(tmp_path / "c.csv", "claims") > 0
        assert {"verdict", "claimed", "kind"} <= set(next(csv.DictReader((tmp_path / "c.csv").read_text().splitlines())))
        store.export(tmp_path / "r.parquet")
        with pytest.raises(EvidenceError, match=r"\.csv, \.json, \.parquet"):
            store.export(tmp_path / "r.xls")


@needs_duckdb
def test_bad_stores_are_one_clear_message(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database")
    for path, said in ((tmp_path / "none", "no such file"), (tmp_path / "text", "cannot be opened"), (tmp_path / "no" / "folder", "no such file")):
        with pytest.raises(EvidenceError, match=said), opened(path):
            pass
    with pytest.raises(EvidenceError, match="does not exist"), opened(tmp_path / "no" / "folder", write=True):
        pass
    import duckdb

    duckdb.connect(str(tmp_path / "other")).close()
    with pytest.raises(EvidenceError, match="without records"), opened(tmp_path / "other"):
        pass


@pytest.mark.skipif(find_spec("duckdb") is not None, reason="DuckDB is installed: its absence cannot be seen")
def test_without_duckdb_the_message_says_how_to_get_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["results", "list", "--store", str(tmp_path / "s")])
    assert NO_DUCKDB in str(result.exception)


@needs_duckdb
def test_the_commands_work_together(tmp_path: Path) -> None:
    files = []
    for i, r in enumerate((runs([100.0, 101.0, 102.0, 103.0, 104.0, 105.0]), runs([80.0, 81.0, 82.0, 83.0, 84.0, 85.0], NOW))):
        path = tmp_path / f"{i}.json"
        path.write_text(text(r))
        files.append((str(path), r.sha256))
    store = ["--store", str(tmp_path / "s.duckdb")]

    def cli(*words: str) -> str:
        result = CliRunner().invoke(app, ["results", *words, *store])
        assert result.exit_code == 0, result.exception
        return result.stdout

    assert cli("add", *(f for f, _ in files)).count("added") == 2
    assert len(json.loads(cli("list", "--json"))) == 2
    assert json.loads(cli("show", files[0][1][:8], "--json"))["sha256"] == files[0][1]
    told = json.loads(cli("diff", files[0][1][:8], files[1][1][:8], "--json"))
    assert told["differences"][0]["word"] == "slower"
    assert "slower" in cli("diff", files[0][1][:8], files[1][1][:8])


def test_official_logs_stand_apart_below_their_footnote() -> None:
    def entry(n: int, suite: str) -> Entry:
        return Entry(position=n, sha256=f"{n}" * 64, added=NOW, created=NOW, suite=suite, device=f"device {n}", chip="", measures=1)

    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(entries_screen([entry(1, "quick"), entry(2, "imported: mlperf"), entry(3, "imported: megatron")]))
    console.print(diff_screen(compare(runs([1.0, 2.0, 3.0]), runs([1.0, 2.0, 4.0], NOW))))
    console.file.close()
    shown = console.export_text()
    assert shown.index("device 3") < shown.index("apart from the others") < shown.index("device 2") < shown.index(FOOTNOTE)
    assert "Holm" in shown
