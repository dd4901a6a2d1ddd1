"""TLS: certificates, and what encrypts a connection. The standard library's ``ssl`` does the work.

``ssl.SSLSocket`` is not used: it would need a Python-level timeout, that is a ``poll`` around each call, or else it
would try for ever when the kernel's own time limit passes. Here the socket stays a plain blocking one, and between it
and the connection stands an ``ssl.SSLObject``, which only turns bytes into other bytes.

Only the connection's own thread may use a :class:`TLSStream`: OpenSSL's objects are not for two threads.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

from kvserver.config import Config, ConfigError
from kvserver.sockets import RECV_MAX, RECV_MIN, next_size

_RECORD_HEADER = 5
_ENCRYPT_AT_ONCE = 64 * 1024
"""Bytes. A large reply is not held a second time, encrypted."""
_SEND_NOW: int = getattr(socket, "MSG_DONTWAIT", 0)


class Certificates:
    """Who the server is, and which clients it trusts, from the files that the settings name.

    Connections keep what they began with when the files are read again.

    Raises:
        ConfigError: a file cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._context = _context(config)

    def reload(self) -> None:
        """Read the files again. Those read before stay in force when that fails.

        Raises:
            ConfigError: a file cannot be used.
        """
        self._context = _context(self._config)

    def stream(self, sock: socket.socket) -> TLSStream:
        """What encrypts one connection; its handshake has not begun."""
        return TLSStream(sock, self._context)


def _context(config: Config) -> ssl.SSLContext:
    if not config.tls_cert:
        raise ConfigError("--tls-port: a certificate is needed; name its file with --tls-cert, and --tls-key.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client could have the server do the costly part again and again
    passphrase = _NoPassphrase()
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key or None, password=passphrase)
    except OSError as error:
        key = f" with --tls-key {config.tls_key}" if config.tls_key else ""
        why = _ENCRYPTED if passphrase.was_wanted else _why_not(error)
        raise ConfigError(f"--tls-cert {config.tls_cert}{key}: {why}.") from None
    wanted = config.tls_auth_clients
    if wanted == "auto":
        wanted = "yes" if config.tls_ca else "no"
    if wanted != "no":
        if not config.tls_ca:
            raise ConfigError(f"--tls-auth-clients {wanted}: whom to trust is not said; name a file with --tls-ca.")
        try:
            context.load_verify_locations(config.tls_ca)
        except OSError as error:
            raise ConfigError(f"--tls-ca {config.tls_ca}: {_why_not(error)}.") from None
        context.verify_mode = ssl.CERT_REQUIRED if wanted == "yes" else ssl.CERT_OPTIONAL
    return context


class _NoPassphrase:
    """Stands in for the terminal, where OpenSSL would ask for a key's passphrase otherwise."""

    was_wanted = False

    def __call__(self) -> str:
        self.was_wanted = True
        return ""


_ENCRYPTED = "the key is encrypted; write it without a passphrase, readable only for the server"


def _why_not(error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return f"cannot be read: {error.strerror}"
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not the certificate's"
    return f"is not in PEM format, or does not hold all that is needed ({error.reason or 'unknown format'})"


class TLSStream:
    """An encrypted connection, with the methods of a socket that move data.

    Args:
        sock: connected and blocking; stays the caller's, who sets its time limits, shuts it down and closes it.
        context: the settings.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._record = bytearray()  # the beginning of one that has not arrived whole
        self._recv_size, self._before = RECV_MIN, 0  # as next_size has it

    @property
    def in_record(self) -> bool:
        """Whether a record has arrived in part."""
        return bool(self._record)

    def handshake(self, seconds: float) -> None:
        """Agree with the client on keys.

        Args:
            seconds: how long that may take; 0 for any time. The socket waits without limit again afterwards.

        Raises:
            TimeoutError: it took longer.
            ssl.SSLError: they cannot agree. The client has been told why, if it takes that at once.
            OSError: the connection has ended.
        """
        until = time.monotonic() + seconds
        while not self._shake():
            if seconds:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._sock.settimeout(left)
            data = self._sock.recv(RECV_MIN)
            if not data:
                raise ConnectionAbortedError
            self._feed(data)
        self._sock.settimeout(None)

    def _shake(self) -> bool:
        """Go on with the handshake as far as what has come goes; whether it is done."""
        try:
            self._tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            done = False
        except ssl.SSLError:
            self._flush_if_taken()
            raise
        self._flush()
        return done

    def recv(self, _size: int = 0, /) -> bytes | None:
        """Everything that one ``recv`` of the socket completes; None if that is nothing yet, and empty at the end.

        Nothing that could be read stays behind, so that waiting for the socket is waiting for data.
        """
        if not self._incoming.pending:  # the client's first commands may have come with the end of the handshake
            data = self._sock.recv(self._recv_size)
            self._recv_size, self._before = next_size(self._recv_size, len(data), self._before)
            if not data:
                return b""
            self._feed(data)
        plain: list[bytes] = []
        try:
            while self._incoming.pending or self._tls.pending():
                chunk = self._tls.read(RECV_MAX)
                if not chunk:
                    break
                plain.append(chunk)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # the client has closed its side, in order
            return b"".join(plain)
        self._flush()  # OpenSSL may have something to answer, such as a change of keys
        return b"".join(plain) if plain else None

    def _feed(self, data: bytes) -> None:
        """Hand bytes to OpenSSL, and note whether they end in the middle of a record (RFC 8446, 5.1)."""
        self._incoming.write(data)
        record = self._record
        record += data
        start = 0
        while len(record) - start >= _RECORD_HEADER:
            size = _RECORD_HEADER + int.from_bytes(record[start + 3 : start + 5])
            if len(record) - start < size:
                break
            start += size
        del record[:start]

    def sendall(self, data: bytes, /) -> None:
        """Send everything, waiting for the client as the socket does."""
        view = memoryview(data)
        for start in range(0, len(view), _ENCRYPT_AT_ONCE):
            self._tls.write(view[start : start + _ENCRYPT_AT_ONCE])
            self._flush()

    def send(self, data: bytes, flags: int, /) -> int:
        """Send everything at once.

        Raises:
            BlockingIOError: the socket did not take everything; what it took is of no use, so this is the end.
        """
        self._tls.write(data)
        encrypted = self._outgoing.read()
        if self._sock.send(encrypted, flags) < len(encrypted):
            raise BlockingIOError
        return len(data)

    def close_notify(self) -> None:
        """Tell the client that nothing more comes, unless its buffer is full."""
        with contextlib.suppress(ssl.SSLError, ValueError):  # it waits for the client's own, which may never come
            self._tls.unwrap()
        self._flush_if_taken()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())

    def _flush_if_taken(self) -> None:
        data = self._outgoing.read()
        if data and _SEND_NOW:
            with contextlib.suppress(OSError):
                self._sock.send(data, _SEND_NOW)
