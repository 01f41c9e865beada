"""A progress bar for who waits at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from chipscale.search import Watch, silent

#: seconds before a bar appears
PATIENCE = 1.0


@contextmanager
def bar(title: str, *, wanted: bool = True) -> Iterator[Watch]:
    """Yield a watch that draws a bar on stderr once the work has taken longer than a second; it draws nothing where output is piped or not `wanted`."""
    if not (wanted and sys.stdout.isatty() and sys.stderr.isatty()):
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    row, start = progress.add_task(title, total=1.0), time.monotonic()

    def watch(share: float) -> None:
        progress.update(row, completed=share)
        if time.monotonic() - start > PATIENCE:
            progress.start()

    try:
        yield watch
    finally:
        progress.stop()
