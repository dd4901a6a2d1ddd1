"""What the server remembers about one connection. No socket, no lock: it belongs to the connection's thread.

Other threads only read it, for CLIENT LIST and INFO; each field is replaced as a whole, so they see an old or a new
value and never half of one. The exceptions say whose lock they are under.

Two classes here are plain ones, not dataclasses, for mypyc's sake (scripts/compile.py): it looks up the types of a
dataclass' fields when the module is imported, when those of modules that import this one are not there yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from kvserver.protocol.encoder import encoding

if TYPE_CHECKING:
    from kvserver.access.users import User
    from kvserver.commands.registry import Command
    from kvserver.observe.usage import Tally
    from kvserver.protocol.replies import Deferred, Error, Reply
    from kvserver.pushes import PushQueue
    from kvserver.state import State
    from kvserver.store.memory import Database
    from kvserver.tracking import Tracked

_LONGEST_WAIT = 20 * 86400.0
"""Seconds. What the system calls take, in 31 bits of milliseconds."""


NAME_COST = 300
"""Bytes that remembering a name for a connection takes, beside the name's own."""


class Kind(IntEnum):
    """What can be subscribed to; the place in ``Session.subscriptions``."""

    CHANNEL = 0
    PATTERN = 1
    SHARD = 2

    @property
    def prefix(self) -> bytes:
        """What the words ``subscribe`` and ``message`` begin with for this kind."""
        return (b"", b"p", b"s")[self]


class Replies(Enum):
    """CLIENT REPLY: which commands of this connection are answered."""

    ON = "on"
    OFF = "off"
    SKIP_NEXT = "skip"  # set by CLIENT REPLY SKIP: the command after it is not answered
    SKIPPING = "skipping"


class Forwarded:
    """A queued command that the backend is to run.

    Args:
        command: its entry in the table.
        words: the command.
        refusal: gives why the user may not run it any more, if that is so by then.
        account: counts that it was run, and how long that took.
    """

    __slots__ = ("account", "command", "refusal", "words")

    def __init__(
        self,
        command: Command,
        words: list[bytes],
        refusal: Callable[[], Error | None],
        account: Callable[[], object],
    ) -> None:
        self.command = command
        self.words = words
        self.refusal = refusal
        self.account = account


@dataclass(slots=True)
class Transaction:
    """What MULTI has begun."""

    queued: list[Callable[[], Reply | Deferred]] = field(default_factory=list)
    """The commands, ready to run; called by EXEC with the keyspace lock held."""
    writes: bool = False  # one of them may change data
    needs_memory: bool = False  # one of them may need more memory
    aborted: bool = False  # a command could not be queued, so EXEC will refuse
    size: int = 0  # bytes that the queued commands take up
    forwarded: list[Forwarded | None] = field(default_factory=list)
    """In a gateway: for each of ``queued``, what the backend is to run, or None for what is run here."""
    slots: dict[int, tuple[str, list[bytes]]] | None = None
    """In a cluster mode: of its first two slots, a command that has keys there, by its name and as an example."""


class Session:
    """One connection's state, from accept to close.

    Args:
        state: what all connections share.
        number: its identity, as in CLIENT ID.
        address: the client's.
        local_address: the one it has connected to.
        descriptor: of its socket; -1 if it has none.
        recovering: it runs what the journal holds, before anybody else is served.
    """

    __slots__ = (
        "address", "ahead", "authenticated", "blocked", "commands", "created", "db", "descriptor", "dirty", "dropped",
        "encoding", "executing", "hits", "id", "kept", "keyspace", "large_input", "last_command", "leaving",
        "library_name", "library_version", "local_address", "misses", "monitoring", "name", "no_evict", "no_touch",
        "pause", "pending_input", "protocol", "pushes", "read_only", "reads", "received", "recovering", "replies",
        "sent", "since", "special", "state", "subscriptions", "tracking", "transaction", "usage", "user", "watched",
        "writes",
    )  # fmt: skip

    def __init__(
        self,
        state: State,
        number: int,
        address: str,
        local_address: str,
        descriptor: int = -1,
        *,
        recovering: bool = False,
    ) -> None:
        self.state = state
        self.id = number
        self.address = address
        self.local_address = local_address
        self.descriptor = descriptor
        self.db = 0
        self.protocol = 2
        self.encoding = encoding(2)
        self.name = b""
        self.library_name = b""
        self.library_version = b""
        self.replies = Replies.ON
        self.no_evict = False
        self.no_touch = False
        self.read_only = False  # READONLY: it may be served by a replica; CLIENT LIST shows it, and no more comes of it
        self.blocked = False  # in a command that waits by design
        self.leaving = False  # close once what has been answered so far is sent
        self.dropped = False  # with leaving: send nothing more
        self.last_command: Command | None = None
        self.special = False  # something below is in force that dispatch has to mind; see ``mind``
        self.transaction: Transaction | None = None  # from MULTI to EXEC or DISCARD
        self.executing = False  # inside EXEC, where nothing waits
        self.recovering = recovering
        self.watched: dict[tuple[int, bytes], bool] = {}
        """What WATCH watches, and whether it existed then. Under the keyspace lock, as is ``dirty``."""
        self.dirty = False  # something that is watched has changed
        self.ahead: dict[int, Reply] = {}  # in a gateway: replies to commands not yet run, by identity
        self.monitoring = False
        self.tracking: Tracked | None = None  # under the keyspace lock
        self.pushes: PushQueue | None = None  # from the first subscription on
        self.subscriptions: tuple[dict[bytes, None], dict[bytes, None], dict[bytes, None]] = ({}, {}, {})
        """Channels, patterns and shard channels. Under the lock of the server's PubSub."""
        self.created = time.monotonic()
        self.since = time.monotonic_ns()
        """When the last command ended, or bytes came: monotonic nanoseconds, from which the next one's time counts."""
        self.usage: dict[Command, Tally] = {}  # what this connection's commands have cost
        self.large_input = False  # the bytes just read may hold a command for the log of large requests
        self.commands = 0  # commands run
        self.reads = 0  # recv calls that brought something
        self.writes = 0  # send calls
        self.received = 0  # bytes
        self.sent = 0  # bytes
        self.hits = 0  # of reads without the lock; the keyspace counts those with it
        self.misses = 0
        self.pending_input = 0  # bytes of a command that has not arrived whole
        self.kept = 0  # bytes that the names it watches and is subscribed to take up
        self.keyspace = state.keyspace  # one step nearer: every command asks for it
        self.pause: Callable[[float | None, int | None], object] = lambda seconds, _: state.stopping.wait(seconds)
        """Waits; a connection puts its own here, which also ends with the connection."""
        self._be_anybody()

    def _be_anybody(self) -> None:
        users = self.state.users
        self.user: User = users.default
        # Before it is, only what lets a client authenticate is allowed.
        self.authenticated: bool = users.is_open or self.recovering
        self.mind()

    def be(self, user: User) -> None:
        """Run what follows as this user."""
        self.user, self.authenticated = user, True
        self.mind()

    @property
    def subscribed(self) -> bool:
        """Whether there is any subscription."""
        return any(self.subscriptions)

    def mind(self) -> None:
        """Note whether dispatch has to look closer at this session's commands; one flag, so that others pay for one."""
        self.special = (
            self.transaction is not None
            or self.subscribed
            or self.monitoring
            or self.tracking is not None
            or not self.authenticated
        )

    @property
    def is_local(self) -> bool:
        """Whether the client is on this machine: by the loopback interface or a Unix socket."""
        return self.address.startswith(("127.", "[::1]", "/"))

    @property
    def active(self) -> float:
        """When it was last used: monotonic seconds."""
        return self.since / 1e9

    @property
    def database(self) -> Database:
        """The selected database. Ask again for each command: SWAPDB exchanges databases under its lock."""
        return self.state.keyspace.databases[self.db]

    def speak(self, protocol: int) -> None:
        """Answer in RESP2 or RESP3 from the next reply on."""
        self.protocol = protocol
        self.encoding = encoding(protocol)

    @property
    def held(self) -> int:
        """Bytes in memory for this connection alone, but for messages and replies on their way."""
        return self.pending_input + self.kept + (self.transaction.size if self.transaction else 0)

    def drop(self) -> None:
        """Close the connection without another byte."""
        self.leaving = self.dropped = True

    def wait(self, seconds: float | None, until: int | None = None) -> None:
        """Do nothing for a time (without one: for good), but not longer than the connection and the server last.

        ``until`` is a descriptor: what can be read there, also an end, ends the wait of a connection, too.
        """
        self.blocked = True
        before = time.monotonic_ns()
        self.pause(None if seconds is None else min(seconds, _LONGEST_WAIT), until)
        self.since += time.monotonic_ns() - before  # waiting by design is not what a command costs
        self.blocked = False

    def release_transaction(self) -> None:
        """Discard what is queued and forget what is watched."""
        self.transaction = None
        if self.state.gateway is not None:
            self.state.gateway.forget(self)
        if self.watched:
            with self.keyspace.lock:
                self.state.changes.unwatch(self)
        self.mind()

    def release(self) -> None:
        """Let go of everything that others hold about this session."""
        self.release_transaction()
        if self.subscribed:
            self.state.pubsub.leave(self)
        if self.tracking is not None:
            with self.keyspace.lock:
                self.state.changes.untrack(self)
        if self.monitoring:
            self.monitoring = False
            self.state.monitors.remove(self)
            self.state.mind()
        self.mind()

    def reset(self) -> None:
        """Back to how a connection starts, but for its identity and its client library's name (RESET)."""
        self.release()
        self.speak(2)
        self.db = 0
        self.name = b""
        if self.replies is Replies.OFF:  # a skip is for RESET's own reply
            self.replies = Replies.ON
        self.no_evict = False
        self.no_touch = False
        self.read_only = False
        self._be_anybody()
