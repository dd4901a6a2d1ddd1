"""What all connections of one server share: configuration, data, the list of clients, counters.

Nothing here does anything by itself; the server makes one, and handlers reach it through their session.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kvserver import errors
from kvserver.access.log import DenialLog
from kvserver.access.users import Users
from kvserver.buffers import Buffers, Part
from kvserver.changes import Changes
from kvserver.clients import Clients
from kvserver.clock import MovableClock, wall_clock
from kvserver.cluster import Cluster
from kvserver.config import Config, ConfigError
from kvserver.journal.service import Persistence, Policy
from kvserver.monitors import Monitors
from kvserver.observe.commandlog import CommandLog
from kvserver.observe.hotkeys import Collection
from kvserver.observe.info import memory_resident
from kvserver.observe.latency import Latency
from kvserver.observe.log import get_logger
from kvserver.observe.stats import COUNTED, End, Stats
from kvserver.observe.usage import Tally, Usage
from kvserver.pause import Pause
from kvserver.protocol.decoder import Limits
from kvserver.protocol.replies import Error
from kvserver.pubsub import PubSub
from kvserver.pushes import PushQueue
from kvserver.session import Session
from kvserver.store.memory import Keyspace
from kvserver.tracking import Tracking

if TYPE_CHECKING:
    from kvserver.commands.known_scripts import Function
    from kvserver.gateway import Gateway


def _or_never(amount: int, factor: int) -> int:
    return amount * factor if amount >= 0 else sys.maxsize


def _gateway(config: Config) -> Gateway | None:
    """The way to another server, if one has the data."""
    if not config.backend:
        return None
    from kvserver.gateway import Gateway  # here, since few need it, and it needs the client

    return Gateway(config)


class State:
    """One server's shared state.

    Args:
        config: the settings it started with; CONFIG SET replaces ``config`` as a whole.
        clock: wall-clock milliseconds; tests give their own.
    """

    def __init__(self, config: Config, clock: Callable[[], int] = wall_clock) -> None:
        if config.clock_command != "no" and not isinstance(clock, MovableClock):
            clock = MovableClock(clock)
        self.clock = clock
        mode = config.cluster_mode
        self.cluster = None if mode == "off" else Cluster(emulated=mode == "emulated")
        self.gateway = _gateway(config)
        self.keyspace = Keyspace(
            1 if self.stands_for_cluster or self.gateway is not None else config.databases,
            clock,
            durable=bool(config.data_dir),
        )
        self.keyspace.can_swap = not self.stands_for_cluster
        self.persistence: Persistence | None = None  # with a data directory, once it has been opened
        self.clients = Clients()
        self.direct_sessions: dict[int, Session] = {}  # of the embedding program, by thread identifier
        self.stats = Stats()
        self.buffers = Buffers(lambda: self.config.maxmemory_clients, self._evict)
        self._minding = threading.Lock()
        self.users = Users(self.mind)
        self.denials = DenialLog()
        self.config = config
        self.pubsub = PubSub()
        self.tracking = Tracking(self.clients, lambda: self.config.tracking_table_max_keys)
        self.changes = Changes(self.keyspace, self.pubsub, self.tracking)
        self.monitors = Monitors()
        self.pause = Pause()
        # Whether something is in force that dispatch has to mind for every session; see ``mind``.
        self.special = self.cluster is not None or self.gateway is not None
        self.usage = Usage()
        self.slow_commands = CommandLog()
        self.large_requests = CommandLog()
        self.large_replies = CommandLog()
        self.latency = Latency()
        self.hotkeys: Collection | None = None  # the collection that runs, or the last one
        self.loading: tuple[float, int, int] | None = None  # since when (monotonic), bytes read, bytes in all
        self.refuses_writes: str | None = None  # why, while the journal cannot take any
        self.fail: Callable[[], object] = lambda: None  # end at once: nothing can be acknowledged; the server's own
        self.shut_down: Callable[[], object] = lambda: None  # SHUTDOWN; the server puts its own here
        self.scripts: dict[bytes, Function] = {}  # what SCRIPT LOAD and EVAL have brought, by SHA1
        if config.requirepass:
            self.users.set_password(config.requirepass.sha256)
        self.apply(config)
        self.stopping = threading.Event()  # set once the server stops; a waiting handler gives up then
        self.active_expiry = threading.Event()  # cleared by DEBUG SET-ACTIVE-EXPIRE 0
        self.active_expiry.set()
        self.addresses: list[tuple[str, str]] = []  # where the server listens: kind, and host:port or a path
        self.port = self.tls_port = 0
        self.run_id = secrets.token_hex(20)
        self.process_id = os.getpid()
        self.started = time.monotonic()
        self.started_at = clock()
        self.memory_at_start = memory_resident()

    def apply(self, config: Config) -> None:
        """Make ``config`` the settings in force, under the keyspace lock.

        Each setting is replaced as a whole, so that those who read one without the lock never see half of a change.
        """
        if config.requirepass != self.config.requirepass:
            self.users.set_password(config.requirepass.sha256 or None)
        self.config = config
        if self.persistence is not None:
            self.persistence.journal.policy = config.fsync
        self.changes.notify(config.notify_keyspace_events)
        # What every command is compared with; off is what none ever reaches.
        self.slow_ns = min(
            _or_never(config.slowlog_log_slower_than, 1000),
            _or_never(config.latency_monitor_threshold or -1, 1_000_000),
        )
        self.large_request = _or_never(config.commandlog_request_larger_than, 1)
        self.large_reply = _or_never(config.commandlog_reply_larger_than, 1)
        self.limits = Limits(
            arguments=config.max_arguments, bulk=config.max_bulk_length, command=config.max_command_length
        )
        self.keyspace.max_value = config.max_bulk_length
        self.keyspace.outcomes.most = config.once_max_outcomes
        if self.persistence is not None or not config.data_dir:  # not while the data is being loaded
            self.keyspace.eviction.configure(config.maxmemory, config.maxmemory_policy)

    def own_data(self) -> Keyspace:
        """The data that this server has itself.

        Raises:
            ConfigError: it is a gateway, and has none.
        """
        if self.gateway is not None:
            raise ConfigError("a gateway has no data of its own to copy: with --backend it is at the server behind it.")
        return self.keyspace

    def make_room(self) -> None:
        """Evict what is over the limit, letting others have the lock now and then. Lock not held."""
        keyspace, more = self.keyspace, True
        while more:
            with keyspace.lock:
                keyspace.moment = None
                more = keyspace.eviction.is_over and keyspace.eviction.make_room()

    def mind(self) -> None:
        """Note whether dispatch has to look closer at every command. Any thread; the lock keeps the newest answer."""
        with self._minding:
            self.special = (
                self.cluster is not None
                or self.gateway is not None
                or self.users.are_limited
                or bool(self.monitors.sessions)
                or self.pause.active
                or self.counts_hotkeys()
                or self.loading is not None
                or self.refuses_writes is not None
            )

    @property
    def stands_for_cluster(self) -> bool:
        """Whether it answers as a cluster of one node."""
        return self.cluster is not None and self.cluster.emulated

    def is_protected(self) -> bool:
        """Whether only this machine is let in: there is no password, and nobody said that this is meant."""
        return self.users.is_open and self.config.protected_mode == "yes"

    def open_data(
        self,
        replay: Callable[[list[bytes]], Error | None],
        progress: Callable[[int, int], object],
        in_thread: Callable[[], object],
    ) -> None:
        """Load the data directory, and keep a journal in it from now on. Clients are told to wait meanwhile.

        Args:
            replay: runs a command of the journal.
            progress: told now and then how many bytes of how many have been read.
            in_thread: called by the journal's thread when it begins.

        Raises:
            DirectoryError, RecoveryError: it cannot be used.
        """
        persistence = Persistence(self.config.data_dir, self.keyspace, self._policy, self.mind_journal)
        began = self.begin_loading()

        def run(words: list[bytes]) -> str | None:
            error = replay(words)
            return None if error is None else error.text

        def report(done: int, total: int) -> None:
            self.loading = began, done, total
            progress(done, total)

        try:
            persistence.open(run, report, in_thread)
            self.persistence = persistence
        finally:
            self.loading = None
            self.mind()
        with self.keyspace.lock:
            self.apply(self.config)
        self.make_room()
        loaded = persistence.report
        get_logger().info("data.loaded", keys=loaded.keys, commands=loaded.commands, seconds=round(loaded.seconds, 3))
        if loaded.cut is not None:
            path, offset, reason = loaded.cut
            get_logger().warning("data.tail_cut_off", file=path.name, at=offset, reason=reason)

    def begin_loading(self) -> float:
        """Tell clients to wait for the data; returns when that began, in monotonic seconds."""
        if self.loading is None:
            self.loading = time.monotonic(), 0, 0
            self.mind()
        return self.loading[0]

    def close_data(self) -> bool:
        """Let the data directory go, everything written and synced; whether that could be done. Safe to call again."""
        persistence = self.persistence
        return persistence is None or persistence.close()

    def close(self) -> bool:
        """Take leave: tell what would break in a cluster, if that was noted, and close the data. Safe to call again."""
        if self.cluster is not None:
            totals = self.cluster.take_leave()
            if totals is not None:
                get_logger().info("cluster.report", **totals)
        if self.gateway is not None:
            self.gateway.close()
        return self.close_data()

    def _policy(self) -> Policy:
        config = self.config
        return Policy(config.fsync, config.auto_aof_rewrite_percentage, config.auto_aof_rewrite_min_size)

    def mind_journal(self) -> None:
        """The journal has failed, or recovered. Any thread, with a lock of the journal's held."""
        failure = None if self.persistence is None else self.persistence.failure
        if failure is not None and self.config.fsync == "always":
            self.fail()
        self.refuses_writes = failure
        self.mind()

    def counts_hotkeys(self) -> bool:
        """Whether a collection of HOTKEYS runs. Its time may be over: what is asked of it next ends it."""
        found = self.hotkeys
        if found is not None and found.ended is None and found.is_over(self.clock()):
            found.end(found.started + found.plan.duration * 1000)
        return found is not None and found.ended is None

    def adopt(self, session: Session) -> None:
        """Count what the calling thread, of the embedding program, does from now on by this session."""
        ident = threading.get_ident()
        before = self.direct_sessions.get(ident)  # of a thread that has ended: identifiers are given anew
        self.direct_sessions[ident] = session
        if before is not None:
            self.retire(before)

    def _counting(self) -> list[Session]:
        """The sessions whose counters have not been kept yet."""
        return [*self.clients.sessions(), *self.direct_sessions.values()]

    def command_usage(self) -> dict[str, Tally]:
        """What each command has cost, by name."""
        return self.usage.total(session.usage for session in self._counting())

    def counted(self) -> Counter[str]:
        """The sum of what live and ended connections counted, since the last reset."""
        with self.stats.lock:
            total = self.stats.closed.copy()
            total.subtract(self.stats.resets)  # not "-", which leaves out what is negative so far
            for session in self._counting():
                for name in COUNTED:
                    total[name] += getattr(session, name)
            return total

    def reset_counters(self) -> None:
        """CONFIG RESETSTAT."""
        with self.keyspace.lock:
            self.keyspace.hits = self.keyspace.misses = self.keyspace.expired = 0
            self.keyspace.eviction.evicted = 0
        self.usage.reset(session.usage for session in self._counting())
        self.stats.reset(self.counted())

    def retire(self, session: Session) -> None:
        """Take leave of a connection that has ended, but for its counters, which are kept."""
        session.release()
        if session.pushes is not None:
            session.pushes.close()
        self.buffers.release(session)
        self.stats.retire(session)
        self.usage.retire(session.usage)

    def _drop_slow(self, session: Session) -> None:
        """End a connection that takes its messages too slowly."""
        self.stats.count_end(End.TOO_SLOW)
        get_logger().warning("connection.too_slow", client=session.id)
        self.clients.end(session)

    def _evict(self, session: Session) -> None:
        """End the connection that holds most of the memory for clients."""
        self.stats.count_end(End.BUFFERS)
        get_logger().warning("connection.evicted", client=session.id, limit=self.config.maxmemory_clients)
        self.clients.end(session)

    def open_pushes(self, session: Session) -> None:
        """Make a session able to receive messages from other threads. The session's own thread only.

        Raises:
            Error: the system has no descriptor left.
        """
        if session.pushes is None:
            try:
                session.pushes = PushQueue(
                    lambda: self.config.client_output_buffer_limit.pubsub,
                    lambda: self._drop_slow(session),
                    partial(self.buffers.count, session, Part.MESSAGES),
                    self.buffers.enforce,
                )
            except OSError:
                raise Error(errors.NO_DESCRIPTOR) from None
