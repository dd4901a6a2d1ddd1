"""Progress of long work, on standard error: a bar if that is a terminal and rich is installed, otherwise nothing."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from kvclient.cli.display import has_rich

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(what: str, total: int | None, *, is_bytes: bool = False) -> Iterator[Callable[[int], object]]:
    """For a with block: yields what is to be called with how much more has been done.

    Args:
        what: a word for it.
        total: how much there is to do; None if nobody knows.
        is_bytes: whether it is counted in bytes.
    """
    if not (sys.stderr.isatty() and has_rich()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    count = DownloadColumn() if is_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)
