"""Letting other threads have the interpreter within a command that goes through many keys.

The interpreter gives it up now and then by itself, but not within compiled code (scripts/compile.py). So this file is
not compiled: whoever takes many keys one by one from here comes by the interpreter for each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

_FEW = 1000
"""Items that take about a millisecond."""

T = TypeVar("T")


def in_turns(items: Sequence[T]) -> Iterable[T]:
    """The items, between which other threads get their turn if they are many. Locks stay held."""
    return items if len(items) < _FEW else _one_by_one(items)


def _one_by_one(items: Sequence[T]) -> Iterator[T]:
    for item in items:  # not "yield from", which would hand on without coming by  # noqa: UP028
        yield item
