"""A store of records in one DuckDB file: append-only, each row chained to the one before, every record sealed by its own hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from chipscale.bench.files import parsed, text
from chipscale.bench.record import Record
from chipscale.evidence import EvidenceError
from chipscale.verify.nouns import Verification

NO_DUCKDB = "the store needs DuckDB; install with: pip install 'chipscale[store]'"
#: characters of a hash that name a record at least
SHORTEST = 4
TABLES = (
    "CREATE TABLE IF NOT EXISTS records (position INTEGER PRIMARY KEY, sha256 TEXT UNIQUE, added TEXT, created TEXT, suite TEXT, device TEXT, chip TEXT, "
    "content TEXT, chain TEXT)",
    'CREATE TABLE IF NOT EXISTS measures (sha256 TEXT, test TEXT, "case" TEXT, unit TEXT, quantity TEXT, n INTEGER, value DOUBLE, low DOUBLE, high DOUBLE)',
    "CREATE TABLE IF NOT EXISTS claims (sha256 TEXT, chip TEXT, hypothesis TEXT, quantity TEXT, unit TEXT, claimed DOUBLE, low DOUBLE, high DOUBLE, kind TEXT, "
    "source TEXT, share DOUBLE, verdict TEXT)",
)
EXPORTS = (".csv", ".json", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A stored record, without its content. `chip` is empty where no chip is known to be the device."""

    position: int
    sha256: str
    added: str
    created: str
    suite: str
    device: str
    chip: str
    measures: int

    @property
    def official(self) -> bool:
        """Say whether this is a log of an official benchmark, which no chart mixes with other runs."""
        return self.suite == "imported: mlperf"


@dataclass(frozen=True, slots=True)
class Store:
    """An open store."""

    connection: Any
    path: Path

    def _rows(self, query: str, *values: object) -> list[Any]:
        """Return all rows of a query; a result that is not read to its end would block the next."""
        found: list[Any] = self.connection.execute(query, list(values)).fetchall()
        return found

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries in the order in which they were added."""
        rows = self._rows(
            "SELECT position, sha256, added, created, suite, device, chip, (SELECT count(*) FROM measures m WHERE m.sha256 = r.sha256) FROM records r ORDER BY position"
        )
        names = ("position", "sha256", "added", "created", "suite", "device", "chip", "measures")
        return tuple(Entry(**dict(zip(names, row, strict=True))) for row in rows)

    def find(self, start: str) -> str:
        """Return the whole hash of the one record whose hash starts so."""
        found = [e.sha256 for e in self.entries() if e.sha256.startswith(start.lower())]
        if len(start) < SHORTEST or len(found) != 1:
            why = (
                f"write {SHORTEST} characters at least"
                if len(start) < SHORTEST
                else "no record has it"
                if not found
                else f"{len(found)} records have it; write more"
            )
            raise EvidenceError(f"{self.path}: hash {start!r}: {why} (chipscale results list)")
        return found[0]

    def record(self, start: str) -> Record:
        """Return a record, its seal checked again."""
        sha = self.find(start)
        content = self._rows("SELECT content FROM records WHERE sha256 = ?", sha)[0][0]
        found = parsed(content, f"{self.path}: record {sha[:12]}")
        if found.sha256 != sha:
            raise EvidenceError(
                f"{self.path}: record {sha[:12]}: the content is of another record, {found.sha256[:12]}; the store was changed: take a copy"
            )
        return found

    def add(self, record: Record, held: Verification, now: str) -> Literal["added", "known"]:
        """Add a record with the claims that it was held against; one that is there already stays as it is.

        Errors: a record whose hash is there with another content, a record without a seal.
        """
        content = text(record)
        if not record.sha256:
            raise EvidenceError(f"{self.path}: a record without a sha256 cannot be stored; write it with chipscale bench or chipscale import")
        known = self._rows("SELECT content FROM records WHERE sha256 = ?", record.sha256)
        if known:
            if known[0][0] != content:
                raise EvidenceError(
                    f"{self.path}: record {record.sha256[:12]} is stored with another content; one of the two was changed, and nothing is overwritten"
                )
            return "known"
        last = (self._rows("SELECT position, chain FROM records ORDER BY position DESC LIMIT 1") or [(0, "")])[0]
        row = [
            last[0] + 1,
            record.sha256,
            now,
            record.created,
            record.suite,
            record.identity.name,
            held.chip,
            content,
            _link(last[1], record.sha256, content),
        ]
        self.connection.execute("BEGIN")
        self.connection.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        for m in record.measures:
            if m.summary is not None:
                s = m.summary
                self.connection.execute("INSERT INTO measures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                                        [record.sha256, m.test, m.case, m.unit, m.quantity, s.n, s.value, s.low, s.high])  # fmt: skip
        for subject in held.subjects:
            for j in subject.claims:
                f = j.claim
                self.connection.execute("INSERT INTO claims VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                                        [record.sha256, subject.chip, subject.hypothesis, f.quantity, f.unit, f.value, f.low, f.high, str(f.source.kind), f.source.where,
                                         j.share, j.verdict])  # fmt: skip
        self.connection.execute("COMMIT")
        return "added"

    def export(self, out: Path, table: Literal["measures", "claims"] = "measures") -> int:
        """Write the measures (or claims) of all records as CSV or Parquet, or all records whole as JSON; return how many rows."""
        suffix = out.suffix.lower()
        if suffix not in EXPORTS:
            raise EvidenceError(f"--out {out}: the name must end in {', '.join(EXPORTS)}")
        count: int = self._rows(f"SELECT count(*) FROM {'records' if suffix == '.json' else table}")[0][0]
        if suffix == ".json":
            contents = self._rows("SELECT content FROM records ORDER BY position")
            try:
                out.write_text("[\n" + ",\n".join(c[0].strip() for c in contents) + "\n]\n", encoding="utf-8")
            except OSError as problem:
                raise EvidenceError(f"--out {out}: cannot be written ({problem.strerror})") from problem
            return count
        picked = f"SELECT r.created, r.device, r.chip, r.suite, t.* FROM {table} t JOIN records r USING (sha256) ORDER BY r.position"
        quoted = str(out).replace("'", "''")
        try:
            self._rows(f"COPY ({picked}) TO '{quoted}' ({'FORMAT csv, HEADER' if suffix == '.csv' else 'FORMAT parquet'})")
        except Exception as problem:
            raise EvidenceError(f"--out {out}: cannot be written ({str(problem).splitlines()[0]}); name a file in a folder of yours") from problem
        return count


def _link(chain: str, sha: str, content: str) -> str:
    """Return the next link: a hash over the one before, so that no row can leave or change unseen."""
    return hashlib.sha256(f"{chain}\n{sha}\n{content}".encode()).hexdigest()


def _check(store: Store) -> None:
    """Refuse a store from which a row was taken, or in which one was changed."""
    chain = ""
    rows: Sequence[tuple[int, str, str, str]] = store.connection.execute(
        "SELECT position, sha256, content, chain FROM records ORDER BY position"
    ).fetchall()
    for i, (position, sha, content, link) in enumerate(rows, start=1):
        chain = _link(chain, sha, content)
        if position != i or chain != link:
            raise EvidenceError(
                f"{store.path}: record {sha[:12]} at position {position}: does not follow from the one before; the store was changed: take a copy"
            )


@contextmanager
def opened(path: Path, *, write: bool = False) -> Iterator[Store]:
    """Open a store; it is made where there is none and `write` is asked.

    Errors: no DuckDB, no such store, another kind of file, a store in use or changed.
    """
    if find_spec("duckdb") is None:
        raise EvidenceError(NO_DUCKDB)
    import duckdb

    if not write and not path.is_file():
        raise EvidenceError(f"--store {path}: no such file; chipscale results add RESULT.json makes one")
    if not path.parent.is_dir():
        raise EvidenceError(f"--store {path}: the folder {path.parent} does not exist; make it first")
    try:
        connection = duckdb.connect(str(path), read_only=not write)
    except duckdb.Error as problem:
        first = str(problem).splitlines()[0]
        raise EvidenceError(
            f"--store {path}: cannot be opened ({first}); give a file that chipscale results add made, not in use elsewhere"
        ) from problem
    try:
        if write:
            for table in TABLES:
                connection.execute(table)
        store = Store(connection, path)
        try:
            _check(store)
        except duckdb.Error as problem:
            raise EvidenceError(f"--store {path}: is a DuckDB file without records; give one that chipscale results add made") from problem
        yield store
    finally:
        connection.close()
