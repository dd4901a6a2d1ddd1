"""What makes this server a gateway: what its clients ask about data, another server or a cluster is asked.

Dispatch does what it does for every command (permissions, transactions, the slow log, counters), and has it run here
instead of on the keyspace. Nothing is kept but the connections to the backend, so any number of gateways may stand side
by side. The backend is talked to by kvclient, over connections that all clients share; who watches keys has one alone.

Locking: nobody holds the keyspace lock while the backend is asked. What is run here is handed back to dispatch as a
function, which it calls after the lock is released; EXEC and WATCH never take it.

Not here: finding nodes, redirections, trying again (kvclient); reading and writing RESP.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kvclient.client import Client, client_of
from kvclient.commands import to
from kvclient.errors import (
    AuthError,
    BadURLError,
    ClusterError,
    CommandRefusedError,
    CrossSlotError,
    KVError,
    PipelineError,
    ServerError,
    TransactionAbortedError,
    TransactionConflictError,
)
from kvclient.protocol import SimpleString as TheirSimpleString
from kvclient.protocol import Verbatim as TheirVerbatim
from kvclient.serializers import PLAIN
from kvclient.url import parse_url
from kvserver import errors
from kvserver.commands.registry import DIRECT, Command, Flags, key_places
from kvserver.config import Config, ConfigError
from kvserver.edge import run_here
from kvserver.extensions import is_added
from kvserver.listeners import Listener, leads_to
from kvserver.observe.log import get_logger
from kvserver.protocol.decoder import ProtocolError
from kvserver.protocol.replies import NULL_ARRAY, Deferred, Error, Reply, Set, SimpleString, Verbatim

if TYPE_CHECKING:
    from kvclient.transaction import Watch
    from kvserver.session import Session, Transaction

_ALSO: Final = frozenset({"eval", "evalsha", "publish", "spublish", "script|load", "script|exists", "script|flush"})
"""What the backend runs beside all that works on data."""
_REFUSED: Final = {
    "ssubscribe": "listening to shard channels", "monitor": "watching all commands",
    "client|tracking": "client-side caching", "hotkeys|start": "counting keys", "kv.clock": "moving the time",
    "save": "saving", "bgsave": "saving", "bgrewriteaof": "saving", "debug": "debugging",
    "wait": "waiting for replicas", "waitaof": "waiting for replicas",
    "readonly": "reading from replicas", "readwrite": "reading from replicas", "asking": "following a slot",
}  # fmt: skip
"""What a gateway does not do, by commands. WAIT would speak of a connection over which others write."""
_AT_ONCE: Final = 50
"""Commands of one client that are asked for together; their replies are in memory at the same time."""
Publish = Callable[[bytes, bytes], object]
_BY_SCRIPT: Final = "NOPERM scripts run at the backend, where nobody looks what this user may do"
_TOO_SLOW: Final = "TRYAGAIN others changed the keys all the time; the command was not applied"
_NOT_QUEUED: Final = "ERR a Python command is a transaction by itself, which a gateway cannot run within another"
_UNKNOWN: Final = "ERR the backend was lost before it had answered: the command may have been applied, or not"
_NOT_LET_IN: Final = "ERR the backend does not let the gateway in; the command was not applied"
_NOT_APPLIED: Final = "TRYAGAIN the backend cannot be reached now; the command was not applied"


class Gateway:
    """The way to the backend, for all connections of one server.

    Args:
        config: the settings; ``backend`` names it.

    Raises:
        ConfigError: the URL makes no sense, or a setting is about data, of which a gateway has none.
    """

    settings_of_data = frozenset({"maxmemory", "maxmemory_policy", "notify_keyspace_events", "fsync"})
    """What CONFIG SET does not change here: there is no data that it would be about."""

    def __init__(self, config: Config) -> None:
        _check(config)
        try:
            options = parse_url(config.backend.text, name="kvserver-gateway")
        except BadURLError as error:
            raise ConfigError(f"--backend: {error}.") from None
        self._backend = options
        self._client: Client = client_of(options, PLAIN)
        # Who watches keeps a connection for as long as it likes: none that others wait for.
        self._watchers: Client = client_of(replace(options, max_connections=config.maxclients), PLAIN)
        self._watching: dict[Session, Watch[Any, Any]] = {}  # each entry belongs to its session's thread
        self._feeding = threading.Lock()  # guards the two below; held for no input or output
        self._feed: _Feed | None = None
        self._is_closed = False
        self._near = self._client.near_cache(max_keys=config.backend_cache) if config.backend_cache else None
        if self._near is not None:
            self._near.start()

    def close(self) -> None:
        """Close the connections to the backend."""
        with self._feeding:
            self._is_closed = True
            feed, self._feed = self._feed, None
        if feed is not None:
            feed.stop()
        if self._near is not None:
            self._near.close()
        self._client.close()
        self._watchers.close()

    def check_backend(self, listeners: Iterable[Listener]) -> None:
        """See that the backend is another server.

        Raises:
            ConfigError: it is at one of our own addresses, and would ask itself for ever.
        """
        here = list(listeners)
        for host, port in self._backend.nodes or ((self._backend.host, self._backend.port),):
            if self._backend.path is None and leads_to(host, port, here):
                raise ConfigError(
                    f"--backend {host}:{port} is where this server listens itself: give one of the two another port."
                )

    # What dispatch asks

    def refusal(self, session: Session, command: Command) -> Error | None:
        """Why a gateway does not do this, or not for this user; None if it does.

        A script may touch what it does not name, and the backend knows this server's users as little as their limits.
        """
        if session.transaction is not None and is_added(command.name):
            return Error(_NOT_QUEUED)
        if command.name in ("eval", "evalsha") and not session.user.permissions.is_unlimited:
            return Error(_BY_SCRIPT)
        what = _REFUSED.get(command.name)
        if what is None:
            return None
        return Error(f"ERR {what} is not for a gateway: connect to the server behind it, or to a node of the cluster")

    def runs(self, command: Command) -> bool:
        """Whether the backend runs this command."""
        return command.on_database or command.name in _ALSO

    def run(self, session: Session, command: Command, words: list[bytes]) -> Deferred:
        """What asks the backend, unless that was done: to be called without any lock. It raises Error."""
        if id(words) in session.ahead:
            reply = session.ahead.pop(id(words))
            return lambda: reply
        if is_added(command.name):
            return lambda: self._run_here(session, command, words)
        return lambda: self._ask(command, tuple(words))

    def ahead(self, session: Session, commands: Iterable[list[bytes]]) -> Iterator[list[bytes]]:
        """The commands that came together; the backend is asked for several at once before the first of them is run.

        Each is then run as ever. Only those are asked ahead of whose running nothing of the commands before can keep
        them: of a user who may do anything, outside of transactions and pauses.
        """
        if not session.authenticated:  # and until then each is read under limits of its own
            yield from commands
            return
        batch: list[list[bytes]] = []
        fault: ProtocolError | None = None
        try:
            batch.extend(commands)
        except ProtocolError as error:  # after what came before it
            fault = error
        place = 0
        try:
            while place < len(batch):
                some = self._runs_at_once(session, batch[place : place + _AT_ONCE])
                if len(some) > 1:
                    self._ask_ahead(session, some)
                yield from some
                session.ahead.clear()  # what was refused after all: another command may have its identity later
                place += len(some)
        finally:
            session.ahead.clear()
        if fault is not None:
            raise fault

    def _runs_at_once(self, session: Session, batch: list[list[bytes]]) -> list[list[bytes]]:
        """The first command, and those after it that can be asked for together with it."""
        state = session.state
        if (
            not session.authenticated or session.transaction is not None or session.subscribed or session.monitoring
            or not session.user.permissions.is_unlimited or state.pause.active or state.refuses_writes is not None
        ):  # fmt: skip
            return batch[:1]
        plain = itertools.takewhile(lambda words: self._is_plain(words), batch)
        return list(plain) or batch[:1]

    def _is_plain(self, words: list[bytes]) -> bool:
        """Whether a command is for the backend, and would be run there as it is."""
        command = DIRECT.get(words[0])
        return (
            command is not None and command.on_database and not is_added(command.name)
            and command.minimum <= len(words) <= command.maximum
        )  # fmt: skip

    def _ask_ahead(self, session: Session, batch: list[list[bytes]]) -> None:
        pipeline = self._client.pipeline(raise_errors=False)
        futures = [pipeline.execute(*words) for words in batch]
        with self._changing([(DIRECT[words[0]], words) for words in batch]), contextlib.suppress(KVError):
            pipeline.run()  # whatever was not answered knows why
        for words, future in zip(batch, futures, strict=True):
            error = future.error()
            is_lost = error is not None and not isinstance(error, ServerError)
            if is_lost and Flags.READONLY in DIRECT[words[0]].flags:
                continue  # it is asked for again by itself
            session.ahead[id(words)] = _reply(error or future.result())

    def listen(self, publish: Publish) -> None:
        """Have what is published at the backend published here, from now on.

        All of it is: whichever channels and patterns our clients listen to, one subscription does. Each node of a
        cluster is told of every message, too.

        Raises:
            Error: the backend cannot be asked.
        """
        if self._is_fed:
            return
        try:
            feed = _Feed(self._client, publish)
        except KVError as error:
            raise _error_of(error) from None
        with self._feeding:
            is_wanted = not self._is_fed  # or somebody else was quicker
            if is_wanted:
                self._feed = feed
                feed.start()
        if not is_wanted:
            feed.stop()

    @property
    def _is_fed(self) -> bool:
        """Whether there is no need to listen, or none any more."""
        return self._is_closed or (self._feed is not None and self._feed.is_alive)

    def execute(self, session: Session, transaction: Transaction) -> Reply:
        """EXEC: what is queued for the backend is one transaction there; what is not is run here, after it.

        Raises:
            Error: nothing was run, or nobody knows.
        """
        watch = self._watching.pop(session, None)
        try:
            if transaction.aborted:
                raise Error(errors.EXEC_ABORTED)
            if watch is not None and not watch.is_fine:  # what the client believes to be watched may not be
                raise Error(_NOT_APPLIED)
            refused = [None if each is None else each.refusal() for each in transaction.forwarded]
            asked = zip(transaction.forwarded, refused, strict=True)
            sent = [each.words for each, error in asked if each is not None and error is None]
            with self._changing([(each.command, each.words) for each in transaction.forwarded if each is not None]):
                results = iter(self._together(watch, sent)) if sent or watch else iter(())
            for each in transaction.forwarded:
                if each is not None:
                    each.account()
        except TransactionConflictError:
            return NULL_ARRAY
        finally:
            if watch is not None:
                watch.end()
        rows = zip(transaction.queued, transaction.forwarded, refused, strict=True)
        return [_finished(run()) if each is None else (error or next(results)) for run, each, error in rows]

    def watch(self, session: Session, keys: Sequence[bytes]) -> None:
        """WATCH: by a connection that is this client's until EXEC, DISCARD or UNWATCH.

        Raises:
            Error: the keys are in several slots, or the backend cannot be asked.
        """
        found = self._watching.get(session)
        try:
            if found is None:
                self._watching[session] = self._watchers.watch(*keys)
            else:
                found.add(keys)
        except KVError as error:
            # The connection is at one node; another has keys of other slots.
            elsewhere = found is not None and isinstance(error, ClusterError)
            raise Error(errors.CROSS_SLOT) if elsewhere else _error_of(error) from None

    def forget(self, session: Session) -> None:
        """Watch no longer."""
        watch = self._watching.pop(session, None)
        if watch is not None:
            watch.end()

    def _run_here(self, session: Session, command: Command, words: Sequence[bytes]) -> Reply:
        try:
            with self._changing([(command, words)]):
                return run_here(self._client, command, words, session.state.clock)
        except KVError as error:
            raise _error_of(error) from None

    def _ask(self, command: Command, words: tuple[bytes, ...]) -> Reply:
        options = self._client.options
        try:
            # What is kept is never null, and null may also be what another type than strings looks like there.
            if self._near is not None and command.name == "get" and (kept := self._near.get(words[1])) is not None:
                return kept
            with self._changing([(command, words)]):
                safe = Flags.READONLY in command.flags
                return _reply(self._client.run(words, to.anything, safe, options.timeout, options.retries))
        except KVError as error:
            raise _error_of(error) from None

    @contextlib.contextmanager
    def _changing(self, commands: Sequence[tuple[Command, Sequence[bytes]]]) -> Iterator[None]:
        """For a with block in which the backend runs these: what they change is not answered from here any more."""
        near = self._near
        changed = [] if near is None else [_keys_of(*each) for each in commands if _changes(each[0])]
        if near is None or not changed:
            yield
            return
        keys = None if None in changed else [key for some in changed for key in some or ()]
        near.drop(keys)
        try:
            yield
        finally:
            near.drop(keys)

    def _together(self, watch: Watch[Any, Any] | None, sent: Sequence[Sequence[bytes]]) -> list[Reply]:
        """The replies to commands of one transaction, errors among them.

        Raises:
            TransactionConflictError: what is watched has changed.
            Error: nothing was run, or nobody knows.
        """
        transaction = self._client.transaction() if watch is None else watch.transaction()
        for words in sent or [(b"PING",)]:  # which finds out, too, whether something has changed
            transaction.execute(*words)
        try:
            return [_reply(result) for result in transaction.run()]
        except PipelineError as some:
            return [_reply(result) for result in some.results]
        except TransactionConflictError:
            raise
        except KVError as error:
            raise _error_of(error) from None


class _Feed:
    """A thread that publishes here what is published at the backend; it listens from when it is made.

    Raises:
        KVError: the backend cannot be asked.
    """

    def __init__(self, client: Client, publish: Publish) -> None:
        self._messages = client.listen(patterns=["*"])
        self._publish = publish
        self._thread = threading.Thread(target=self._run, name="kvserver-gateway")

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it still does that."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End it."""
        self._messages.close()
        if self._thread.ident is None:
            self._messages.__exit__()
        else:
            self._thread.join()

    def _run(self) -> None:
        gaps = 0
        with self._messages as messages:
            try:
                for message in messages:
                    self._publish(message.channel, message.data)
                    if messages.gaps > gaps:
                        gaps = messages.gaps
                        get_logger().warning("gateway.messages_lost", gaps=gaps)
            except KVError as error:  # it is refused; whoever subscribes next has it begin anew
                get_logger().warning("gateway.listening_ended", exception=type(error).__name__)


def _changes(command: Command) -> bool:
    return Flags.WRITE in command.flags or command.name in ("eval", "evalsha")


def _keys_of(command: Command, words: Sequence[bytes]) -> list[bytes] | None:
    """The keys that a command may change; None for all, or nobody knows which."""
    if command.keys is None or command.name in ("eval", "evalsha"):
        return None
    try:
        return [words[place] for place in key_places(command, words)]
    except Error:  # the backend will say so
        return []


def _check(config: Config) -> None:
    for name, is_set in (
        ("--data-dir", bool(config.data_dir)),
        ("--maxmemory", bool(config.maxmemory)),
        ("--cluster-mode", config.cluster_mode != "off"),
    ):
        if is_set:
            raise ConfigError(f"{name} is about data that this server has itself: with --backend it has none.")


def _error_of(error: KVError) -> Error:
    """What a client of ours is told."""
    if isinstance(error, CrossSlotError):
        return Error(errors.CROSS_SLOT)
    if isinstance(error, TransactionConflictError):
        return Error(_TOO_SLOW)
    if isinstance(error, TransactionAbortedError):
        return Error(errors.EXEC_ABORTED)
    if isinstance(error, AuthError):  # what it says is of the gateway's password, not of the client's
        get_logger().warning("gateway.not_let_in", code=error.code)
        return Error(_NOT_LET_IN)
    if isinstance(error, ClusterError) and error.code in {"MOVED", "ASK"}:
        return Error(_NOT_APPLIED)
    if isinstance(error, ServerError):
        return Error(f"{error.code} {error.message}" if error.code else error.message)
    if isinstance(error, CommandRefusedError):
        return Error(f"ERR {error}")
    get_logger().warning("gateway.backend_lost", exception=type(error).__name__, applied=error.applied)
    return Error(_NOT_APPLIED if error.applied == "no" else _UNKNOWN)


def _finished(reply: Reply | Deferred) -> Reply:
    return reply() if callable(reply) else reply


def _reply(theirs: Any) -> Reply:
    """A reply of the backend, as one of ours."""
    if isinstance(theirs, KVError):
        return _error_of(theirs)
    if isinstance(theirs, TheirSimpleString):
        return SimpleString(theirs)
    if isinstance(theirs, TheirVerbatim):
        return Verbatim(theirs)
    if isinstance(theirs, list | tuple):
        return [_reply(each) for each in theirs]
    if isinstance(theirs, set | frozenset):
        return Set(_reply(each) for each in theirs)
    if isinstance(theirs, dict):
        if all(isinstance(key, bytes) for key in theirs):
            return {key: _reply(value) for key, value in theirs.items()}
        return [part for pair in theirs.items() for part in map(_reply, pair)]
    reply: Reply = theirs
    return reply
