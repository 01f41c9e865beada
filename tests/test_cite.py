"""Every source that a formula names stands in the bibliography."""

from __future__ import annotations

import re
from pathlib import Path

import chipscale
from chipscale.catalog import load
from chipscale.report.cite import bibliography

KEY = re.compile(r"Source: ([a-z][a-z0-9.-]*-\d{4}|[a-z][a-z0-9.]*(?:-[a-z0-9.]+)+)")


def test_every_key_that_a_docstring_cites_is_known() -> None:
    known = load(None).text("bibliography.toml")
    home = Path(chipscale.__file__).parent
    cited = {key.rstrip(".") for path in home.rglob("*.py") for key in KEY.findall(path.read_text(encoding="utf-8"))}
    sources = (home / "data" / "sources").glob("*.toml")
    facts = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert len(cited) > 20
    assert not {
        key for key in cited if f"[{key}]" not in known and f'["{key}"]' not in known and f"[{key}]" not in facts and f'["{key}"]' not in facts
    }


def test_kernels_are_cited_too() -> None:
    text = bibliography(load(None), ("h100",))
    assert "gemm_seconds" in text
    assert "few_groups" in text
