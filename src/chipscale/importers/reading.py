"""imported(file) -> Record: whose output a file is, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from chipscale.bench.files import LARGEST
from chipscale.bench.record import Record
from chipscale.border import inside
from chipscale.evidence import EvidenceError
from chipscale.importers import aiperf, hccl_test, mamf_finder, megatron, mlperf, nccl_tests, smi, torchtitan, vllm_serve
from chipscale.importers.found import Importer, record

IMPORTERS: tuple[Importer, ...] = (
    vllm_serve.IMPORTER, aiperf.IMPORTER, mlperf.IMPORTER, nccl_tests.IMPORTER, hccl_test.IMPORTER, mamf_finder.IMPORTER, torchtitan.IMPORTER,
    megatron.IMPORTER, smi.IMPORTER,
)  # fmt: skip


def imported(path: Path, kind: str | None = None, told: Mapping[str, str] | None = None) -> Record:
    """Read another tool's output as a record; its kind is recognised from what stands in it.

    Errors: a file that cannot be read, an unknown kind, text of no tool that is known, a table that contradicts itself.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise EvidenceError(f"{path}: has {path.stat().st_size:,} bytes; give the part with the results")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise EvidenceError(
            f"{path}: cannot be read as text ({getattr(problem, 'strerror', None) or 'not UTF-8'}); give a tool's output"
        ) from problem
    chosen = _chosen(text, str(path), kind)
    with inside(path):
        return record(chosen.read(text, told or {}), chosen, text, str(path))


def _chosen(text: str, name: str, kind: str | None) -> Importer:
    if kind is not None:
        found = next((i for i in IMPORTERS if i.kind == kind), None)
        if found is None:
            raise EvidenceError(f"--kind {kind}: is unknown; choose of {', '.join(i.kind for i in IMPORTERS)}")
        if not found.recognises(text):
            raise EvidenceError(f"{name}: is no output of {found.title}; expected {found.expects}")
        return found
    fits = [i for i in IMPORTERS if i.recognises(text)]
    if not fits:
        known = ", ".join(f"{i.kind} ({i.title})" for i in IMPORTERS)
        raise EvidenceError(f"{name}: is the output of no tool that is known: {known}; docs/import.md shows what each looks like")
    return fits[0]
