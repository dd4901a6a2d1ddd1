"""What is known of a cluster: who has which slot, what the servers say of commands, whom to ask next.

Without input or output: nodes.py asks, and so does its counterpart for asyncio.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeAlias, TypeVar

from kvclient.cluster.keys import CommandInfo, parse_info
from kvclient.cluster.slots import Address, SlotMap, parse_slots
from kvclient.errors import (
    CallTimeoutError,
    CannotConnectError,
    KVConnectionError,
    KVError,
    ProtocolError,
    ServerError,
)
from kvclient.protocol import encode_command, to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvclient.commands.base import Args
    from kvclient.protocol import Reply, Value
    from kvclient.url import Options

T = TypeVar("T")
Info: TypeAlias = CommandInfo | None

PATIENCE: Final = 1.0
"""Seconds for one node to answer what any node can, before another is asked."""
NO_ANSWER: Final = (KVConnectionError, CallTimeoutError, ProtocolError, ServerError)
"""After these, another node is asked what any can answer."""
GONE: Final = "the node is not part of the cluster any more"


class Question(NamedTuple, Generic[T]):
    """What any node can be asked.

    Attributes:
        payload: a command.
        told: what its reply tells; also takes who answered.
        what: says it for people.
    """

    payload: bytes
    told: Callable[[Reply, Address], T]
    what: str


class Atlas:
    """What is known of a cluster.

    Args:
        options: those of the client.

    Attributes:
        slots: who has which slot, as far as is known. Empty until somebody has been asked.
        infos: what the servers say of commands, by name; of those that they know.
        simple: names, as they were given, of commands whose only key is the first word after the name.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._seeds = [Address(host, port) for host, port in options.nodes]
        self.slots = SlotMap(())
        self.infos: dict[str, CommandInfo] = {}
        self.simple: set[Value] = set()

    def learn(self, slots: SlotMap) -> None:
        """Take what a node has told. If it is what was known, `slots` stays the object it is: nothing has moved."""
        if slots != self.slots:
            self.slots = slots

    def noted(self, words: Args, name: str, info: Info) -> Info:
        """What the servers say of a command, by its name; of its subcommand, if the words name one.

        That they do not know a name is not kept: they may learn it, and there is no end of such names.
        """
        if info is None:
            return None
        self.infos[name] = info
        if info.simple and isinstance(words[0], bytes | str):
            self.simple.add(words[0])
        return info.of(words)

    def some_primary(self) -> Address:
        """A node that has slots, chosen by chance.

        Raises:
            CannotConnectError: none is known.
        """
        if not self.slots.primaries:
            raise self.nobody_says(WHO_HAS_WHAT.what, None)
        return random.choice(self.slots.primaries)  # noqa: S311 - to spread what any node can answer

    def known_owner(self, slot: int) -> Address:
        """The node that has a slot, as far as is known. If nobody has, any: it will say so."""
        return self.slots.owner(slot) or self.some_primary()

    def candidates(self, first: Address | None = None, last: Address | None = None) -> list[Address]:
        """Whom to ask what any node can answer: those that are known, by chance, then those that the URL names.

        Args:
            first: who should know.
            last: who may have failed.
        """
        known = list(self.slots.nodes)
        random.shuffle(known)
        order = [*([first] if first else []), *known, *self._seeds]
        found = [address for address in dict.fromkeys(order) if address != last]
        return [*found, *([last] if last else [])]

    def nobody_says(self, what: str, error: KVError | None) -> KVError:
        """What to raise when all candidates have been asked in vain; `error` is what the last one failed with."""
        if isinstance(error, ServerError):
            return error
        failure = CannotConnectError(f"no node of {self._options.address} says {what}{f': {error}' if error else ''}")
        failure.__cause__ = error
        return failure

    def members(self) -> set[Address]:
        """All nodes that are known, and those that the URL names."""
        return {*self.slots.nodes, *self._seeds}


def info_name(words: Args) -> str:
    """The name by which a server is asked of a command."""
    word = words[0]
    return (word if isinstance(word, str) else to_bytes(word).decode("utf-8", "backslashreplace")).upper()


def what_is(name: str) -> Question[Info]:
    """What a command is, by COMMAND INFO."""
    return Question(encode_command((b"COMMAND", b"INFO", name)), _info, f"which words of {name!r} are keys")


def _info(reply: Reply, _asked: Address) -> Info:
    return parse_info(reply[0]) if isinstance(reply, list) and reply else None


WHO_HAS_WHAT: Final = Question(encode_command((b"CLUSTER", b"SLOTS")), parse_slots, "who has which slot")
