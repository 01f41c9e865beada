"""chipscale weighs one AI accelerator against another and says how sure it is.

>>> import chipscale
>>> catalog = chipscale.load()
>>> catalog.chip("h100").name
'H100 SXM5 80GB'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chipscale.catalog import load
    from chipscale.evidence import Belief, EvidenceError, Fact, Source
    from chipscale.operators.estimate import estimate
    from chipscale.operators.fabric import collective, vector_bytes
    from chipscale.planning import train
    from chipscale.provision import Serving, Wish, serve
    from chipscale.runs import Terms, run
    from chipscale.verdict import Verdict, weigh

__version__ = "0.1.0"
__all__ = [
    "Belief",
    "EvidenceError",
    "Fact",
    "Serving",
    "Source",
    "Terms",
    "Verdict",
    "Wish",
    "collective",
    "estimate",
    "load",
    "run",
    "serve",
    "train",
    "vector_bytes",
    "weigh",
]
_HOME = {"load": "catalog", "Belief": "evidence", "EvidenceError": "evidence", "Fact": "evidence", "Source": "evidence", "collective": "operators.fabric", "estimate": "operators.estimate", "vector_bytes": "operators.fabric", "train": "planning",
         "Terms": "runs", "run": "runs", "Serving": "provision", "Wish": "provision", "serve": "provision",
         "Verdict": "verdict", "weigh": "verdict"}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that importing chipscale costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'chipscale' has no attribute {name!r}")
    return getattr(import_module(f"chipscale.{_HOME[name]}"), name)
