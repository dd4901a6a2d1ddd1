"""One connection's thread, from accept to close: recv, decode, dispatch, one send for the whole batch, and again.

The thread that runs :meth:`Connection.run` is the only one that reads, writes or closes the socket. Others may only
wake it, with ``shutdown``, through :meth:`Connection.finish` and :meth:`Connection.abort`.

Waiting is left to the kernel: the socket blocks, with ``SO_SNDTIMEO`` and, while a command is half received,
``SO_RCVTIMEO``. A Python-level timeout would cost a ``poll`` before every ``recv`` and ``send``.

With TLS, data goes through a :class:`~kvserver.tls.TLSStream`; waiting, shutting down and closing are the socket's.
"""

from __future__ import annotations

import contextlib
import errno
import select
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from kvserver.buffers import STEP, Part
from kvserver.dispatch import execute, log_large_reply
from kvserver.journal.writer import Journal
from kvserver.observe.log import get_logger
from kvserver.observe.stats import End
from kvserver.protocol.decoder import STRANGER, CommandTooLongError, Decoder, Limits, ProtocolError
from kvserver.protocol.encoder import encode_error
from kvserver.protocol.replies import Reply, Several
from kvserver.pushes import PushQueue
from kvserver.runs import Run, execute_run
from kvserver.session import Replies, Session
from kvserver.sockets import LARGE, RECV_MAX, RECV_MIN, add_large, gather, next_size, send_parts, set_timeout

if TYPE_CHECKING:  # not otherwise, since ssl is slow to import
    from kvserver.tls import TLSStream

_SEND_AT = 64 * 1024
"""Replies are sent when the batch is done, or when this many bytes are waiting: a client that asks for more than it
reads is held back by its own socket, not by the server's memory."""
_ON = Replies.ON
_Selector: type[selectors.PollSelector | selectors.SelectSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)
"""For a connection that waits for two things. Unlike epoll it needs no descriptor of its own."""
_RUN = 4
"""Commands from which on it is worth looking whether they can be run together."""
_HAND_OVER = 16 * 1024
"""Bytes of replies that the journal's thread may be left to send. They nearly always fit into the socket's buffer."""
_SEND_NOW: int = getattr(socket, "MSG_DONTWAIT", 0)
_LINGER_SECONDS = 1
_LINGER_BYTES = 1024 * 1024


class _InputTimeoutError(Exception):
    """The client has sent nothing, or not the whole of a command, for too long, or its machine is gone."""

    def __init__(self, why: End) -> None:
        super().__init__(why)
        self.why = why


def _input_timeout(error: OSError, deadline: float) -> _InputTimeoutError:
    if error.errno == errno.ETIMEDOUT:  # the system has given up its probes
        return _InputTimeoutError(End.KEEPALIVE)
    return _InputTimeoutError(End.HALF_COMMAND if deadline else End.IDLE)


class _Stream(Protocol):
    """A socket, or a TLSStream on one."""

    def recv(self, size: int, /) -> bytes | None: ...
    def send(self, data: bytes, flags: int, /) -> int: ...
    def sendall(self, data: bytes, /) -> object: ...


class Connection:
    """A client's socket and the session that goes with it."""

    def __init__(
        self,
        sock: socket.socket,
        session: Session,
        tls: TLSStream | None = None,
        run: Callable[[Session, list[bytes]], Reply] = execute,
    ) -> None:
        self._sock = sock
        self._run_command = run
        self._tls = tls
        self._stream: _Stream = tls or sock  # what data goes through
        self._session = session
        self._decoder = Decoder(Limits())
        self._stopping = False
        self._selector: selectors.BaseSelector | None = None  # once there is a push queue
        self._turn = threading.Lock()  # to send; held by the journal's thread, as it were, while it has replies of ours
        self._refusing = False  # since before this batch, writes are refused
        self._awaited = 0  # the half-received command, by how many were run before it
        self._idle_limit = 0  # seconds to wait for a command, as the socket knows it
        self._counted = 0  # bytes in our buffers, in whole steps, as all connections' are added up
        if sys.platform != "win32":
            session.pause = self._pause

    # Called by other threads

    def finish(self) -> None:
        """Let the command in progress be answered, then close: ``recv`` returns as if the client had closed."""
        self._stopping = True
        self._shut(socket.SHUT_RD)

    def abort(self) -> None:
        """Close at once, also out of a ``send`` that the client does not take; what it has sent is not run."""
        self._stopping = True
        self._session.drop()
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):  # the client was quicker
            self._sock.shutdown(how)

    # The connection's own thread

    def run(self) -> None:
        """Serve until either side has had enough, then close the socket."""
        state = self._session.state
        try:
            if self._tls is None or self._shake_hands(self._tls):
                self._serve()
        except _InputTimeoutError as timeout:
            state.stats.count_end(timeout.why)
            get_logger().info("connection.timed_out", client=self._session.id, why=timeout.why.name.lower())
        except (BlockingIOError, TimeoutError):
            state.stats.count_end(End.STALLED)
            get_logger().warning("connection.stalled", client=self._session.id)
        except OSError:
            get_logger().debug("connection.lost", client=self._session.id)
        except MemoryError:  # a reply too large to put together; what was asked for has been done
            get_logger().warning("connection.out_of_memory", client=self._session.id)
        finally:
            self._settle()
            state.clients.remove(self._session)  # first: whoever finds it listed may still shut the socket down
            state.retire(self._session)
            if self._tls is not None:
                self._tls.close_notify()
            self._sock.close()

    def _shake_hands(self, tls: TLSStream) -> bool:
        """Agree with the client on keys; False if that failed."""
        state = self._session.state
        try:
            tls.handshake(state.config.request_timeout)
        except OSError as error:  # also what OpenSSL raises
            state.stats.count_end(End.HANDSHAKE)
            why = getattr(error, "reason", None) or type(error).__name__
            get_logger().info("connection.tls_failed", client=self._session.id, why=why)
            return False
        return True

    def _serve(self) -> None:
        session, decoder, stream = self._session, self._decoder, self._stream
        size, before = RECV_MIN, 0  # bytes to ask for, as next_size has it
        deadline = 0.0  # for the rest of a half-received command; 0 while there is none
        while not self._stopping:
            if session.state.config.timeout != self._idle_limit and not deadline:
                self._limit_idleness()
            try:
                if session.pushes is not None:
                    self._await_input(session.pushes, deadline)
                received = stream.recv(size)
            except (BlockingIOError, TimeoutError) as error:
                raise _input_timeout(error, deadline) from None
            if not received:
                if received is None:
                    deadline = self._watch(deadline)
                    continue
                return
            size, before = next_size(size, len(received), before)
            session.reads += 1
            session.received += len(received)
            session.since = time.monotonic_ns()
            session.large_input = decoder.pending or len(received) > session.state.large_request
            decoder.limits = session.state.limits if session.authenticated else STRANGER
            try:
                self._answer(decoder.feed(received))
            except ProtocolError as error:
                self._refuse(error)
                return
            received = b""  # as nothing that was decoded, it is not kept while the client is idle
            if session.leaving:
                if not session.dropped:
                    self._linger()
                return
            if decoder.pending or deadline or self._tls or session.special or session.kept or self._counted:
                session.pending_input = decoder.held
                self._count_buffers()
                deadline = self._watch(deadline)
        if not session.dropped:
            self._linger()  # what has come since is not run, but must not cost the last replies

    def _limit_idleness(self) -> None:
        """Let the socket wait for a command as long as the settings now say."""
        self._idle_limit = self._session.state.config.timeout
        set_timeout(self._sock, socket.SO_RCVTIMEO, self._idle_limit)

    def _idle_until(self) -> float:
        """When a connection that also gets messages has sent nothing for too long; 0 for never."""
        session = self._session
        exempt = session.subscribed or session.monitoring
        return session.active + self._idle_limit if self._idle_limit and not exempt else 0.0

    def _await_input(self, queue: PushQueue, deadline: float) -> None:
        """Send what other threads have put into the queue, until there is input (or the end of it).

        Raises:
            TimeoutError: neither came in time.
        """
        if self._selector is None:
            self._selector = _Selector()
            self._selector.register(self._sock, selectors.EVENT_READ)
            self._selector.register(queue.woken, selectors.EVENT_READ)
        has_input = False
        while not has_input:
            until = deadline or self._idle_until()
            ready = self._selector.select(max(0.0, until - time.monotonic()) if until else None)
            if not ready:
                raise TimeoutError
            has_input = any(key.fileobj is self._sock for key, _ in ready)
            # Also when there is input: it may be the client's last, and what came before that is the client's.
            while messages := queue.take(_SEND_AT):
                self._send([message.encode(self._session.protocol) for message in messages])

    def _answer(self, commands: Iterable[list[bytes]]) -> None:
        """Run a batch of commands and send the replies, those before a protocol error included."""
        session = self._session
        replies: list[bytes] = []
        waiting = 0
        self._refusing = session.state.refuses_writes is not None
        gateway = session.state.gateway
        may_run = isinstance(commands, list) and len(commands) >= _RUN and self._run_command is execute
        following = iter(commands if gateway is None else gateway.ahead(session, commands))
        try:
            words = next(following, None)
            while words is not None:
                run = execute_run(session, words, following) if may_run and session.replies is _ON else None
                if run is not None:
                    waiting += self._add_run(run, replies)
                    words = run.next
                else:
                    waiting += self._answer_one(words, replies)
                    words = None
                if waiting >= _SEND_AT:
                    self._send(replies)
                    session.since = time.monotonic_ns()  # what the client was slow to take is not the next one's time
                    waiting = 0
                    if self._stopping:
                        break
                if session.leaving:
                    break
                if words is None:  # not before: to ask for a command may raise, or have a gateway ask for some
                    words = next(following, None)
        finally:
            if replies and not session.dropped:
                self._send(replies)

    def _answer_one(self, words: list[bytes], replies: list[bytes]) -> int:
        """Run one command and add its reply; how many bytes that has."""
        session = self._session
        if session.pushes is not None:  # what came before this command goes before its reply
            replies += [message.encode(session.protocol) for message in session.pushes.take()]
        was_strange = not session.authenticated
        reply = self._run_command(session, words)
        session.commands += 1
        if was_strange and session.authenticated:
            self._decoder.limits = session.state.limits
        if session.replies is not _ON and not self._is_answered(reply):
            return 0
        return self._add(reply, words, replies)

    def _add_run(self, run: Run, replies: list[bytes]) -> int:
        """Add the replies of a run; how many bytes they have."""
        encode = self._session.encoding
        self._session.commands += len(run.replies)
        last = run.replies.pop()
        encoded = [encode[reply.__class__](reply) for reply in run.replies]
        replies += encoded
        return sum(map(len, encoded)) + self._add(last, run.last, replies)

    def _add(self, reply: Reply, words: list[bytes], replies: list[bytes]) -> int:
        """Add the reply to a command; how many bytes it has."""
        session = self._session
        if reply.__class__ is bytes and len(reply) >= LARGE:
            size = add_large(replies, reply)
        else:
            encoded = session.encoding[reply.__class__](reply)
            replies.append(encoded)
            size = len(encoded)
        if size > session.state.large_reply:
            log_large_reply(session, words, size)
        return size

    def _is_answered(self, reply: Reply) -> bool:
        """Whether CLIENT REPLY lets the command just run be answered. Subscriptions are always confirmed."""
        session = self._session
        if session.replies is Replies.SKIP_NEXT:
            session.replies = Replies.SKIPPING
        elif session.replies is Replies.SKIPPING:
            session.replies = Replies.ON
        return type(reply) is Several

    def _pause(self, seconds: float | None, until: int | None) -> None:
        """Wait, while the client stays connected and nobody shuts the socket down. What the client sends can wait."""
        poller = select.poll()
        poller.register(self._sock, getattr(select, "POLLRDHUP", 0))  # that it has hung up is always told
        if until is not None:
            poller.register(until, select.POLLIN)
        poller.poll(None if seconds is None else seconds * 1000)

    def _send(self, replies: list[bytes]) -> None:
        if len(replies) > 1 and any(len(reply) >= LARGE for reply in replies) and self._session.authenticated:
            self._send_large(replies)
            return
        data = replies[0] if len(replies) == 1 else b"".join(replies)
        replies.clear()
        if not self._session.authenticated:
            self._send_to_stranger(data)
            return
        persistence = self._session.state.persistence
        if persistence is None or not self._hold_back(persistence.journal, data):
            if len(data) < STEP:
                self._stream.sendall(data)
            else:
                self._count_buffers(len(data))
                self._stream.sendall(data)
                self._count_buffers()
            self._count_sent(len(data))

    def _send_large(self, replies: list[bytes]) -> None:
        """Send replies of which one at least is large: that is not copied."""
        parts = gather(replies)
        size = sum(map(len, parts))
        replies.clear()
        persistence = self._session.state.persistence
        if persistence is not None:
            self._wait_safe(persistence.journal)
        self._count_buffers(size)
        if self._tls is None:
            send_parts(self._sock, parts)
        else:
            for part in parts:
                self._stream.sendall(part)
        self._count_buffers()
        self._count_sent(size)

    def _count_buffers(self, output: int = 0) -> None:
        """Keep the total of what all connections hold right; too much of it ends some, maybe this one."""
        size = self._session.held + output
        counted = size - size % STEP
        if counted != self._counted:
            self._counted = counted
            buffers = self._session.state.buffers
            if buffers.count(self._session, Part.OWN, counted):
                buffers.enforce()

    def _send_to_stranger(self, data: bytes) -> None:
        """Send what the socket's buffer takes at once: nobody waits for a client that has not authenticated.

        Raises:
            BlockingIOError: it did not take everything (CVE-2025-21605).
        """
        if _SEND_NOW:
            if self._stream.send(data, _SEND_NOW) < len(data):
                raise BlockingIOError
        else:
            self._stream.sendall(data)
        self._count_sent(len(data))

    def _count_sent(self, size: int) -> None:
        self._session.writes += 1
        self._session.sent += size

    # Replies that wait for the disk

    def _hold_back(self, journal: Journal, data: bytes) -> bool:
        """See that what a reply tells of is safe before it leaves; True if the journal's thread will send it.

        Raises:
            OSError: it cannot be made safe, so the client must not be told that it is.
        """
        if self._refusing or len(data) > _HAND_OVER or not _SEND_NOW or self._tls is not None:
            self._wait_safe(journal)
            return False
        self._turn.acquire()  # what was handed over before goes first
        # Whatever these replies tell of, done or seen, is among the batches up to here.
        if journal.when_safe(journal.appended, partial(self._deliver, data)):
            return True
        self._turn.release()
        return False

    def _wait_safe(self, journal: Journal) -> None:
        """As :meth:`_hold_back`, for what this thread will send itself."""
        number = journal.appended
        with self._turn:  # what was handed over before goes first
            if not self._refusing and not journal.wait_safe(number):
                raise OSError

    def _deliver(self, data: bytes, is_safe: bool) -> None:
        """Send replies whose batch is synced. The journal's thread, which must not wait for a client."""
        if not is_safe:
            self.abort()
            self._turn.release()
            return
        try:
            sent = self._sock.send(data, _SEND_NOW)
        except BlockingIOError:
            sent = 0
        except OSError:  # the client has left; the connection's own thread will find out
            sent = len(data)
        self._count_sent(sent)
        if sent == len(data):
            self._turn.release()
            return
        rest = threading.Thread(target=self._deliver_rest, args=(data[sent:],), name="kvserver-late-reply")
        try:
            rest.start()
        except RuntimeError:  # the system gives no more threads
            self.abort()
            self._turn.release()

    def _deliver_rest(self, data: bytes) -> None:
        """Send what a client did not take at once. A thread of its own, which ends with it; rare."""
        try:
            self._sock.sendall(data)
            self._count_sent(len(data))
        except OSError:
            self.abort()
        finally:
            self._turn.release()

    def _settle(self) -> None:
        """Wait until what was handed over has been sent."""
        with self._turn:
            pass

    def _refuse(self, error: ProtocolError) -> None:
        """Say what was wrong with the framing, and close."""
        stats = self._session.state.stats
        stats.count_error("ERR")
        if isinstance(error, CommandTooLongError):
            stats.count_end(End.TOO_LONG)
        get_logger().info("connection.protocol_error", client=self._session.id, error=str(error).partition("'")[0])
        if self._session.replies is _ON:
            self._send([encode_error(f"ERR Protocol error: {error}")])
        self._linger()

    def _linger(self) -> None:
        """Take in what the client has already sent, for a moment.

        Closing with unread input makes the kernel send a reset, which may destroy the last reply on its way.
        """
        self._settle()
        with contextlib.suppress(OSError):  # the client has left, or says nothing more and stays: both will do
            if self._tls is not None:
                self._tls.close_notify()
            self._sock.shutdown(socket.SHUT_WR)
            set_timeout(self._sock, socket.SO_RCVTIMEO, _LINGER_SECONDS)
            until, budget = time.monotonic() + _LINGER_SECONDS, _LINGER_BYTES
            while budget > 0 and time.monotonic() < until and (rest := self._sock.recv(RECV_MAX)):
                budget -= len(rest)

    def _watch(self, deadline: float) -> float:
        """Keep the deadline of a half-received command; returns it, or 0 when no command is pending.

        A client that sends one command after the other may always have half of one on its way, so each has its own.

        Raises:
            _InputTimeoutError: it has passed.
        """
        session = self._session
        limit = session.state.config.request_timeout
        if not limit or not (self._decoder.pending or (self._tls is not None and self._tls.in_record)):
            if deadline:
                self._limit_idleness()
            return 0.0
        now = time.monotonic()
        if not deadline or session.commands != self._awaited:
            self._awaited = session.commands
            deadline = now + limit
        elif now >= deadline:  # it comes a byte at a time, so that no recv ever waited long
            raise _InputTimeoutError(End.HALF_COMMAND)
        set_timeout(self._sock, socket.SO_RCVTIMEO, max(0.001, deadline - now))
        return deadline
