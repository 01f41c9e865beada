"""Screens to the terminal, files to the disk."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from chipscale.evidence import EvidenceError

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(screen: RenderableType) -> None:
    """Print a screen as wide as the terminal."""
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120).print(screen)


def say(text: str) -> None:
    """Print text as it is."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def write(path: Path, text: str, option: str = "--out") -> None:
    """Write a file whole or not at all: a temporary file beside it takes its place."""
    if path.is_dir():
        raise EvidenceError(f"{option} {path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise EvidenceError(f"{option} {path}: the folder {path.parent} does not exist; make it first")
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as problem:
        raise EvidenceError(f"{option} {path}: cannot be written ({problem.strerror})") from problem
    finally:
        beside.unlink(missing_ok=True)
