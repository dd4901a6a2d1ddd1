"""The steps that recipes are made of, and who takes them. Not here: any recipe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from kvclient.commands.base import Args
    from kvclient.protocol import Reply

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """One command; the recipe is sent its reply."""

    args: Args


@dataclass(frozen=True, slots=True)
class Together:
    """Commands in a transaction; the recipe is sent their replies as a list."""

    commands: tuple[Args, ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Call:
    """Call the function that the caller has given; the recipe is sent the value."""


Step: TypeAlias = Ask | Together | Pause | Call
Recipe: TypeAlias = Generator[Step, "Reply", T]


def run(recipe: Recipe[T], take: Callable[[Step], Reply]) -> T:
    """Follow a recipe. Errors that `take` raises are raised in the recipe, which may catch them.

    Args:
        recipe: not yet begun.
        take: takes one step and returns what came of it.
    """
    try:
        step = next(recipe)
        while True:
            try:
                reply = take(step)
            except Exception as error:  # noqa: BLE001 - it is the recipe's to catch, or to raise
                step = recipe.throw(error)
            else:
                step = recipe.send(reply)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        recipe.close()


async def run_async(recipe: Recipe[T], take: Callable[[Step], Awaitable[Reply]]) -> T:
    """As run(), for steps that are awaited."""
    try:
        step = next(recipe)
        while True:
            try:
                reply = await take(step)
            except Exception as error:  # noqa: BLE001 - it is the recipe's to catch, or to raise
                step = recipe.throw(error)
            else:
                step = recipe.send(reply)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        recipe.close()
