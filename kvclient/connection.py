"""One socket's life: create, connect, shake hands, send, receive, close.

Not here: who uses the connection when (pool.py), what is sent (commands/), how bytes become replies
(protocol.py). A connection belongs to one thread at a time, and after any exception but a ServerError its
owner closes it: what is still on the wire belongs to a call that has failed.

Time: a Python socket with a timeout asks the kernel twice per call, once whether it may and once to do it. So
the socket blocks, and the kernel itself gives up after SLICE seconds (SO_RCVTIMEO); only who has to wait
longer than that pays for an exact deadline. The slice is short because Python restarts an interrupted recv()
with the whole slice: a signal that keeps arriving must not be able to put the deadline off.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from kvclient.errors import (
    CallTimeoutError,
    CannotConnectError,
    ConnectionLostError,
    KVError,
    ProtocolError,
    ServerError,
)
from kvclient.handshake import check_greeting, greeting, refuses_hello, why_not
from kvclient.protocol import INCOMPLETE, Decoder, Reply, decode_single, encode_command

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from kvclient.errors import Applied
    from kvclient.protocol import Value
    from kvclient.url import Options

SLICE: Final = 0.005  # seconds
# Bytes asked of one recv(). With more, the allocator maps fresh memory for each, and long values come slower.
CHUNK: Final = 64 * 1024
# A pipeline's unanswered bytes. They fit into the kernel's buffers even if the server reads nothing, so that
# it and we cannot both be stuck in send(), each waiting for the other to read.
WINDOW: Final = 48 * 1024

_KERNEL_SLICES: Final = os.name == "posix"
_monotonic = time.monotonic


class Connection:
    """A connection to the server that `options` names; open() makes it.

    Attributes:
        used: monotonic time at which the pool last had it back.
        protocol: the RESP version agreed in the handshake.
    """

    __slots__ = ("__weakref__", "_decoder", "_options", "_slices", "_sock", "_tls", "protocol", "used")

    def __init__(self, options: Options, tls: ssl.SSLContext | None = None, *, listens: bool = False) -> None:
        self._options = options
        self._tls = tls
        self._sock: socket.socket | None = None
        # Python's ssl takes a kernel's timeout for nothing to say yet, and tries for ever: TLS waits by Python's.
        self._slices = _KERNEL_SLICES and tls is None
        self._decoder = Decoder()
        if listens:
            self._decoder = Decoder(on_push=lambda push: self._decoder.replies.append(push))
        self.protocol: int = options.protocol
        self.used = 0.0

    # ---- opening and closing -------------------------------------------------------------------------------

    def open(self, deadline: float) -> None:
        """Connect and shake hands, by `deadline` (monotonic seconds).

        Raises:
            CannotConnectError: nobody is there, or what is there does not behave like a server.
            AuthError: the server does not accept the user and password.
        """
        try:
            self._connect(deadline)
            self._handshake(deadline)
        except ServerError:
            self.close()
            raise
        except (KVError, OSError, UnicodeError) as error:
            self.close()
            raise CannotConnectError(f"cannot connect to {self._options.address}: {why_not(error)}") from error
        except BaseException:
            self.close()
            raise

    def _connect(self, deadline: float) -> None:
        options = self._options
        wait = _remaining(deadline)
        if options.path is not None:
            sock = socket.socket(socket.AF_UNIX)
            self._sock = sock
            sock.settimeout(wait)
            sock.connect(options.path)
        else:
            sock = socket.create_connection((options.host, options.port), wait)
            self._sock = sock
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._tls is not None:
            sock.settimeout(_remaining(deadline))
            self._sock = self._tls.wrap_socket(sock, server_hostname=options.host)
        self.adopt(self._sock)

    def adopt(self, sock: socket.socket) -> None:
        """Use a socket that is already connected."""
        self._sock = sock
        sock.settimeout(None)
        if self._slices:
            slice_ = struct.pack("ll", 0, int(SLICE * 1e6))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, slice_)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, slice_)

    def _handshake(self, deadline: float) -> None:
        """Agree on protocol, user, name and database: one write and one read, unless the server is old."""
        replies = self._ask(greeting(self._options, self.protocol), deadline)
        if self.protocol == 3 and refuses_hello(replies[0]):
            self.protocol = 2
            replies = self._ask(greeting(self._options, 2), deadline)
        check_greeting(replies)

    def _ask(self, commands: list[tuple[Value, ...]], deadline: float) -> list[Reply]:
        replies: list[Reply] = []
        self._send(b"".join(map(encode_command, commands)), deadline)
        try:
            self._collect(replies, len(commands), len(commands), deadline)
        except ConnectionLostError:
            if replies and isinstance(replies[0], ServerError):  # one that accepts nobody says why and closes
                raise CannotConnectError(str(replies[0])) from None
            raise
        return replies

    def close(self) -> None:
        """Close the socket; harmless when it is closed already."""
        sock, self._sock = self._sock, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def __del__(self) -> None:
        # KeyboardInterrupt between two bytecodes can lose a connection. No lock is needed to close it.
        self.close()

    @property
    def address(self) -> str:
        """The server's, for messages."""
        return self._options.address

    @property
    def place(self) -> tuple[str, int]:
        """The server's host and port."""
        return self._options.host, self._options.port

    @property
    def closed(self) -> bool:
        """True before open() and after close()."""
        return self._sock is None

    def quiet(self) -> bool:
        """True if the connection is usable: the server has neither closed it nor sent what nobody asked for."""
        sock = self._sock
        if sock is None or not self._decoder.idle:
            return False
        try:
            sock.settimeout(0)
            sock.recv(1)
        except OSError as error:
            if _would_block(error):
                sock.settimeout(None)
                return True
        return False

    # ---- one command ---------------------------------------------------------------------------------------

    def call(self, payload: bytes, deadline: float) -> Reply:
        """Send one command and return its reply; an error reply is returned, not raised.

        Raises:
            ConnectionLostError, CallTimeoutError, ProtocolError: the connection is now to be closed.
        """
        self._send(payload, deadline)
        data = self._recv(deadline)
        reply = decode_single(data)
        if reply is not INCOMPLETE:
            return reply
        replies: list[Reply] = []
        self._take(data, replies, 1)
        self._collect(replies, 1, 1, deadline)
        return replies[0]

    def wait_longer(self, deadline: float) -> Reply:
        """The reply of a call() that has raised CallTimeoutError while it waited: it may still come.

        Raises:
            ConnectionLostError, CallTimeoutError, ProtocolError: the connection is now to be closed.
        """
        replies: list[Reply] = []
        self._collect(replies, 1, 1, deadline)
        return replies[0]

    # ---- many commands -------------------------------------------------------------------------------------

    def exchange(self, chunks: Sequence[tuple[bytes, int]], timeout: float, replies: list[Reply]) -> None:
        """Send chunks of encoded commands, each with its number of commands, and append all replies.

        At most WINDOW bytes are unanswered at a time, unless one chunk alone is longer. `timeout` (seconds)
        begins anew with each chunk. On failure, `replies` holds what came before it.

        Raises:
            ConnectionLostError, CallTimeoutError, ProtocolError: the connection is now to be closed. Their
                `applied` speaks of the first command without a reply.
        """
        pending: collections.deque[tuple[int, int]] = collections.deque()  # (bytes, replies once answered)
        waiting = promised = 0
        for payload, count in chunks:
            deadline = _monotonic() + timeout
            while pending and waiting + len(payload) > WINDOW:
                size, upto = pending.popleft()
                self._collect(replies, upto, promised, deadline)
                waiting -= size
            try:
                self._send(payload, deadline)
            except (ConnectionLostError, CallTimeoutError) as error:
                if count > 1 or promised > len(replies):
                    error.applied = "unknown"
                raise
            promised += count
            waiting += len(payload)
            pending.append((len(payload), promised))
        for _, upto in pending:
            self._collect(replies, upto, promised, _monotonic() + timeout)

    def collect(self, replies: list[Reply], count: int, deadline: float) -> None:
        """Append the replies to so many commands, which send() has sent.

        Raises:
            ConnectionLostError, CallTimeoutError, ProtocolError: the connection is now to be closed.
        """
        self._collect(replies, count, count, deadline)

    # ---- listening -----------------------------------------------------------------------------------------

    def send(self, payload: bytes, deadline: float) -> None:
        """Send commands whose replies come by receive().

        Raises:
            ConnectionLostError, CallTimeoutError: the connection is now to be closed.
        """
        self._send(payload, deadline)

    def receive(self, deadline: float) -> list[Reply]:
        """Wait for the next bytes and return the replies and pushes that they complete, perhaps none.

        Raises:
            CallTimeoutError: nothing came; the connection may go on being used.
            ConnectionLostError, ProtocolError: the connection is now to be closed.
        """
        data = self._recv(deadline)
        if not data:
            raise ConnectionLostError("the server closed the connection", applied="no")
        decoder = self._decoder
        try:
            decoder.feed(data)
        finally:
            replies = list(decoder.replies)
            decoder.replies.clear()
        return replies

    def fileno(self) -> int:
        """The socket's number, for select(); -1 if it is closed."""
        return -1 if self._sock is None else self._sock.fileno()

    @property
    def buffered(self) -> bool:
        """Whether bytes have come that select() does not see: TLS may have deciphered more than was asked for."""
        pending = getattr(self._sock, "pending", None)
        return pending is not None and pending() > 0

    def shutdown(self) -> None:
        """End the conversation, from any thread: whoever waits in receive() finds the connection lost."""
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    # ---- bytes ---------------------------------------------------------------------------------------------

    def _send(self, payload: bytes, deadline: float) -> None:
        """Send all of `payload`. A single command that fails here was not executed: it never arrived whole."""
        sock = self._socket("no")
        sent = 0
        try:
            if self._slices:
                sent = sock.send(payload)
        except OSError as error:
            if not _would_block(error):
                raise ConnectionLostError(f"connection lost before sending: {error}", applied="no") from error
        if sent != len(payload):
            self._send_rest(sock, memoryview(payload)[sent:], deadline)

    def _send_rest(self, sock: socket.socket, rest: memoryview, deadline: float) -> None:
        try:
            while rest:
                sock.settimeout(_remaining(deadline))
                rest = rest[sock.send(rest) :]
            sock.settimeout(None)
        except TimeoutError:
            raise CallTimeoutError(_TOO_SLOW.format("take the command"), applied="no") from None
        except OSError as error:
            raise ConnectionLostError(f"connection lost while sending: {error}", applied="no") from error

    def _recv(self, deadline: float) -> bytes:
        """The next bytes; b"" at the end. Waits for one slice first, and exactly if that was too short."""
        sock = self._socket("unknown")
        try:
            if self._slices:
                try:
                    return sock.recv(CHUNK)
                except OSError as error:
                    if not _would_block(error):
                        raise
            sock.settimeout(_remaining(deadline))
            try:
                return sock.recv(CHUNK)
            finally:  # also when the time is up, since who listens may try again
                sock.settimeout(None)
        except TimeoutError:
            raise CallTimeoutError(_TOO_SLOW.format("reply")) from None
        except OSError as error:
            raise ConnectionLostError(f"connection lost while waiting for the reply: {error}") from error

    def _collect(self, replies: list[Reply], upto: int, promised: int, deadline: float) -> None:
        """Receive until `replies` holds `upto` replies; more than `promised` is an error."""
        while len(replies) < upto:
            if _monotonic() > deadline:  # a server that trickles never lets recv() wait
                raise CallTimeoutError(_TOO_SLOW.format("reply"))
            self._take(self._recv(deadline), replies, promised)

    def _take(self, data: bytes, replies: list[Reply], promised: int) -> None:
        """Decode what was received."""
        if not data:
            raise ConnectionLostError("the server closed the connection before its reply was complete")
        decoder = self._decoder
        try:
            decoder.feed(data)
        finally:
            replies += decoder.replies
            decoder.replies.clear()
        if len(replies) > promised or (len(replies) == promised and not decoder.idle):
            raise ProtocolError("the server sent more replies than there were commands")

    def _socket(self, applied: Applied) -> socket.socket:
        if self._sock is None:
            raise ConnectionLostError("the connection is closed", applied=applied)
        return self._sock


_TOO_SLOW: Final = "the server did not {} in time: give a longer timeout=, or see what keeps the server busy"


def _remaining(deadline: float) -> float:
    """Seconds until `deadline`; TimeoutError if it has passed."""
    left = deadline - _monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _would_block(error: OSError) -> bool:
    """True if the kernel (or TLS above it) merely has nothing yet. By name, since ssl is slow to import."""
    return isinstance(error, BlockingIOError) or type(error).__name__ in {
        "SSLWantReadError",
        "SSLWantWriteError",
    }
