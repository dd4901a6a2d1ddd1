"""Progress of long work, on standard error: a bar if that is a terminal and rich is installed, otherwise nothing."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Self

from kvclient.cli.display import has_rich

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress


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


class Gauge:
    """A bar for work whose size changes while it is done, with a note; nothing but on a terminal with rich.

    Args:
        what: a word for it.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and has_rich():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(
                *columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True), transient=True
            )
            self._task = self._bar.add_task(self._what, total=None, note="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def show(self, done: int, total: int, note: str) -> None:
        """So much of so much is done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=max(done, total), note=note)
