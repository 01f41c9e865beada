"""What a suite tells a test: named numbers, texts and lists of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chipscale.evidence import EvidenceError

Value = int | float | str | list[int] | list[float] | list[str] | list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one test; `where` names them in messages."""

    where: str
    values: Mapping[str, Value]

    def _get(self, name: str, kind: str) -> Value:
        if name not in self.values:
            raise EvidenceError(f"{self.where}: field {name}: is missing; add {kind}")
        return self.values[name]

    def number(self, name: str) -> float:
        """Return a positive number."""
        value = self._get(name, "a number")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise EvidenceError(f"{self.where}: field {name}: is {value!r}; write a positive number")
        return float(value)

    def integer(self, name: str) -> int:
        """Return a positive whole number."""
        value = self.number(name)
        if value != int(value):
            raise EvidenceError(f"{self.where}: field {name}: is {value!r}; write a whole number")
        return int(value)

    def integers(self, name: str) -> tuple[int, ...]:
        """Return a list of positive whole numbers."""
        value = self._get(name, "a list of whole numbers")
        if not isinstance(value, list) or not value or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in value):
            raise EvidenceError(f"{self.where}: field {name}: is {value!r}; write a list of positive whole numbers")
        return tuple(int(v) for v in value if isinstance(v, int))

    def shapes(self, name: str, length: int) -> tuple[tuple[int, ...], ...]:
        """Return a list of shapes of so many sizes."""
        value = self._get(name, f"a list of shapes of {length} sizes")
        rows: list[list[int]] = [row for row in value if isinstance(row, list) and len(row) == length] if isinstance(value, list) else []
        if not rows or not isinstance(value, list) or len(rows) != len(value) or not all(v > 0 for row in rows for v in row):
            raise EvidenceError(f"{self.where}: field {name}: is {value!r}; write a list of shapes, each of {length} positive whole numbers")
        return tuple(tuple(row) for row in rows)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self._get(name, "a list of texts")
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise EvidenceError(f"{self.where}: field {name}: is {value!r}; write a list of texts")
        return tuple(str(v) for v in value)
