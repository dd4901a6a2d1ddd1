"""The listening side: create, bind, listen, accept; one thread a connection; and an orderly end.

The life of a TCP server is all here and in ``connection.py``::

    socket() -> bind() -> listen() -> accept() -+-> recv() -> send() -> ... -> close()   one thread a connection
                                      ^         |
                                      +---------+

Who owns what: the accept thread alone accepts and starts threads; each connection's thread alone closes its socket;
``stop`` wakes them and waits. None is killed at interpreter exit, perhaps in the middle of a reply: ``threads.py`` says
how. ``stop`` reaches the accept thread, which sits in ``select``, through a socket pair.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from kvserver import errors
from kvserver.access.users import AccessFileError
from kvserver.clock import MovableClock, wall_clock
from kvserver.commands.needs import CATALOGUE
from kvserver.config import Config, ConfigError, password_of, with_settings
from kvserver.connection import Connection
from kvserver.dispatch import execute, replay
from kvserver.embedded import Direct
from kvserver.expirer import Expirer
from kvserver.journal.directory import DirectoryError
from kvserver.journal.recovery import RecoveryError
from kvserver.listeners import Listener, check_exposure, inherited, is_local, listen, show
from kvserver.observe.log import get_logger
from kvserver.protocol.encoder import encode_error
from kvserver.session import Session
from kvserver.sockets import set_timeout
from kvserver.state import State
from kvserver.store.copies import Contents, copied, filled
from kvserver.threads import ConnectionThreads, pin_thread
from kvserver.web import web_server

if TYPE_CHECKING:
    from kvserver.testing.instruments import Instruments
    from kvserver.tls import Certificates
    from kvserver.web.server import WebServer

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BACK_OFF_SECONDS = 0.05
"""How long not to accept when the machine has no descriptor left. Connections wait in the backlog meanwhile."""
_FINISH_SECONDS = 1.5
"""How long running commands and their replies may take once the server stops."""
_ABORT_SECONDS = 0.4
_END_SECONDS = 0.0005
"""How much longer for each connection: the interpreter ends one thread after the other."""


Snapshot: TypeAlias = tuple[Contents, ...]
"""What all databases of a server held at one moment."""


class Server:
    """A server that listens from :meth:`start` until :meth:`stop`, and works as a context manager.

    ::

        with kvserver.Server(port=0) as server:
            client = redis.Redis.from_url(server.url)

    Several may run in one process; each has its own data. Starting and stopping are for one thread; everything else
    is the clients' business.

    Args:
        config: the settings; without it, the defaults (not the environment or a file, which are the command line's).
        clock: wall-clock milliseconds since the epoch, for tests that move time.
        snapshot: what to begin with, of another server's :meth:`snapshot`; not with a data directory.
        instruments: what a test does to this server; see :mod:`kvserver.testing`.
        settings: single settings by field name of :class:`Config`, on top of ``config``.

    Attributes:
        direct: runs commands of the embedding program, without a connection.
        instruments: those given, or None.

    Raises:
        ConfigError: a setting does not exist or cannot be used; from ``start``: an address cannot be listened on.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        clock: Callable[[], int] = wall_clock,
        snapshot: Snapshot | None = None,
        instruments: Instruments | None = None,
        **settings: Any,
    ) -> None:
        chosen = with_settings(config or Config(), settings)
        _load_commands(chosen.load)
        self._state = State(chosen, clock)
        if snapshot is not None:
            if self._state.config.data_dir:
                raise ConfigError("a server begins with a snapshot or with what its data directory holds, not both.")
            filled(self._state.keyspace, snapshot)
        self.direct = Direct(self._state)
        self.instruments = instruments
        if instruments is not None:
            instruments.attach(self._state)
        self._listeners: list[Listener] = []
        self._certificates: Certificates | None = None  # with TLS, once it listens
        self._web: WebServer | None = None  # with an HTTP port, once it listens
        self._threads: ConnectionThreads[Connection] = ConnectionThreads()
        self._accepting: threading.Thread | None = None  # from start on; ends last
        self._no_more = threading.Event()  # set once nobody is accepted any more
        self._stop_once = threading.Lock()
        self._is_stopped = False  # guarded by _stop_once
        self._next_turn = 0.0  # monotonic seconds, when the next connection may come; see ``accept_rate``
        self._wake: socket.socket  # a byte sent here ends the accept thread; there from start on
        self._expirer = Expirer(self._state)
        self._end: Callable[[], object] | None = None
        self._state.fail, self._state.shut_down = self._fail, self._shut_down

    # What an embedding program reads

    @property
    def port(self) -> int:
        """The TCP port, also when a free one was asked for; 0 when there is none without TLS."""
        return self._state.port

    @property
    def tls_port(self) -> int:
        """The TCP port for TLS, also when a free one was asked for; 0 when there is none."""
        return self._state.tls_port

    @property
    def host(self) -> str:
        """The first address listened on."""
        return self._state.config.host[0]

    @property
    def url(self) -> str:
        """For any client: ``redis://host:port``, or ``rediss://host:port`` if all is encrypted, or ``unix://path``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port:
            return f"redis://{host}:{self.port}"
        return f"rediss://{host}:{self.tls_port}" if self.tls_port else f"unix://{self.addresses[0]}"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Everywhere it listens: ``host:port``, or the path of a Unix socket."""
        return tuple(address for _, address in self._state.addresses)

    # Copies

    def snapshot(self) -> Snapshot:
        """All data as it is at this moment, for servers that begin with it. Values are shared, not copied."""
        return copied(self._state.own_data())

    def fork(self, **settings: Any) -> Server:
        """Another server with the same settings, data and time, on a free port; to be started, as in a with block.

        From then on each goes its own way: whoever moves the clock of one does not move that of the other.

        Args:
            settings: what is to be otherwise. Users are not copied, nor is a data directory.
        """
        chosen: dict[str, Any] = {
            "port": 0,
            "tls_port": None,
            "unix_socket": "",
            "data_dir": "",
            "metrics_port": None,
            "load": "",
        }
        chosen |= settings  # what was loaded is there for the whole process: loading again would replace it
        clock = self._state.clock
        own = clock.copy() if isinstance(clock, MovableClock) else clock
        return Server(self._state.config, clock=own, snapshot=self.snapshot(), **chosen)

    @property
    def metrics_port(self) -> int:
        """The HTTP port, also when a free one was asked for; 0 when there is none."""
        return 0 if self._web is None else self._web.port

    @property
    def metrics_url(self) -> str:
        """Where a browser finds the live page; empty when there is none."""
        return "" if self._web is None else f"http://{self._web.addresses[0]}/"

    # Life

    def start(
        self,
        *,
        progress: Callable[[int, int], object] = lambda *_: None,
        on_end: Callable[[], object] | None = None,
        sockets: Sequence[tuple[str, socket.socket]] = (),
    ) -> Self:
        """Listen, load the data directory if there is one, and serve. A server is started once.

        Clients that connect before everything is loaded are told so (``-LOADING``).

        Args:
            progress: called now and then with how many bytes of how many have been loaded.
            on_end: called, from any thread, when the server wants to be stopped: by SHUTDOWN, or because it can no
                longer write to its directory. Without it the server stops itself.
            sockets: that another process listens on for this one, by name: ``tls``, ``metrics`` or any other. With one
                for RESP, the settings of addresses and ports do not count.
        """
        if self._accepting is not None:
            raise RuntimeError("this server has been started already; make another Server")
        self._end = on_end
        with contextlib.ExitStack() as undo:
            undo.callback(self._close_listeners)
            undo.callback(self._close_web)
            self._let_in()
            self._listen(sockets)
            self._check_addresses()
            wake, woken = socket.socketpair()
            undo.callback(wake.close)
            undo.callback(woken.close)
            accepting = threading.Thread(target=self._accept_all, args=(woken,), name="kvserver-accept")
            if self._state.config.data_dir:
                self._state.begin_loading()
            accepting.start()
            undo.pop_all()
        self._accepting, self._wake = accepting, wake
        try:
            if self._web is not None:  # before the data is loaded: /readyz tells of that too
                self._web.start()
            if self._state.config.data_dir:
                self._load(progress)
            self._expirer.start()
        except BaseException:
            self.stop()
            raise
        return self

    def _let_in(self) -> None:
        """Read who may use the server.

        Raises:
            ConfigError: a file cannot be used.
        """
        state, config = self._state, self._state.config
        if config.acl_file:
            try:
                state.users.load(config.acl_file, CATALOGUE)
            except AccessFileError as error:
                raise ConfigError(f"--acl-file {error}.") from None
        password = password_of(config)
        if password:
            state.users.set_password(password.sha256)

    def _check_addresses(self) -> None:
        """Refuse to let anybody in from elsewhere, unless that is meant, and to be one's own backend.

        Raises:
            ConfigError: it is not protected, or its backend is at one of its own addresses.
        """
        if self._state.is_protected():
            check_exposure("--host", self._listeners)
            check_exposure("--metrics-host", [] if self._web is None else self._web.listeners)
        if self._state.gateway is not None:
            self._state.gateway.check_backend(self._listeners)

    def _load(self, progress: Callable[[int, int], object]) -> None:
        """Load the data directory.

        Raises:
            ConfigError: it cannot be used; the text says why.
        """
        state = self._state
        session = Session(state, 0, "", "", recovering=True)
        try:
            state.open_data(partial(replay, session), progress, partial(pin_thread, state.config.pin_threads))
        except (DirectoryError, RecoveryError) as error:
            raise ConfigError(f"--data-dir {state.config.data_dir}: {error}") from None
        if self.instruments is not None and state.persistence is not None:
            self.instruments.attach_to_disk(state.persistence.journal)

    def stop(self) -> bool:
        """Stop accepting, let running commands finish, close everything; whether all threads have ended.

        Takes less than 2.5 s, a millisecond for each connection, and what the disk takes. With a data directory, False
        also means that not everything is on disk. Safe to call again, and before :meth:`start`.
        """
        if self._accepting is None:
            return True
        with self._stop_once:
            if not self._is_stopped:
                self._stop_accepting()
                self._is_stopped = True
        connections = self._threads.connections()
        longer = _END_SECONDS * len(connections)
        for connection in connections:
            connection.finish()
        ended = self._threads.wait(_FINISH_SECONDS + longer)
        if not ended:
            for connection in self._threads.connections():
                connection.abort()
            ended = self._threads.wait(_ABORT_SECONDS + longer)
        if ended:
            self._accepting.join()
        if self._web is not None:  # until now it has told that the server stops
            ended = self._web.stop() and ended
        return self._state.close() and ended

    def _stop_accepting(self) -> None:
        self._state.stopping.set()
        self._state.pause.stop()
        with contextlib.suppress(OSError):  # a connection that came just now has ended the accept loop already
            self._wake.send(b"\0")
        self._no_more.wait()
        self._wake.close()
        self._close_listeners()
        self._expirer.stop()

    def reload_certificates(self) -> None:
        """Read the files of TLS again, for connections from now on. What was read before stays in force on failure.

        Raises:
            ConfigError: a file cannot be used; the text says which and why.
        """
        if self._certificates is not None:
            self._certificates.reload()
            get_logger().info("tls.certificates_reloaded")

    def _shut_down(self) -> None:
        """SHUTDOWN: have the server stopped, by whoever started it, or in a thread of its own."""
        if self._end is not None:
            self._end()
        else:
            threading.Thread(target=self.stop, name="kvserver-shutdown").start()

    def _fail(self) -> None:
        """The journal can take nothing more, and nothing may be acknowledged without it: cut everybody off."""
        for connection in self._threads.connections():
            connection.abort()
        self._shut_down()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Listening

    def _listen(self, sockets: Sequence[tuple[str, socket.socket]]) -> None:
        state = self._state
        self._listeners, http = inherited(sockets)
        if state.config.tls_port is not None or any(at.tls for at in self._listeners):
            from kvserver.tls import Certificates  # here, since ssl is slow to import and few need it

            self._certificates = Certificates(state.config)
        if state.config.metrics_port is not None or http:
            self._web = web_server(state, http)
        self._listeners = self._listeners or listen(state.config)
        state.addresses = [(at.kind, show(at.sock.getsockname())) for at in self._listeners]
        state.port = next((at.port for at in self._listeners if at.kind == "tcp"), 0)
        state.tls_port = next((at.port for at in self._listeners if at.kind == "tls"), 0)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _close_web(self) -> None:
        if self._web is not None:
            self._web.close()

    # Accepting

    def _accept_all(self, woken: socket.socket) -> None:
        """Accept until the server stops, then wait for the threads this has started."""
        try:
            self._accept_loop(woken)
        finally:
            self._no_more.set()
            self._threads.wait()

    def _accept_loop(self, woken: socket.socket) -> None:
        pin_thread(self._state.config.pin_threads)  # and so the threads it starts, which inherit it
        with woken, selectors.DefaultSelector() as selector:
            selector.register(woken, selectors.EVENT_READ)
            for listener in self._listeners:
                selector.register(listener.sock, selectors.EVENT_READ, listener)
            while not self._state.stopping.is_set():
                for key, _ in selector.select():
                    if key.data is not None:
                        self._wait_turn()
                        self._accept(key.data)

    def _wait_turn(self) -> None:
        """Let connections come no faster than ``accept_rate``. Meanwhile they wait in the backlog."""
        rate = self._state.config.accept_rate
        if rate:
            now = time.monotonic()
            self._next_turn = max(self._next_turn, now - 1) + 1 / rate  # after a rest, a second's worth at once
            if self._next_turn > now:
                self._state.stats.count_delay()
                self._state.stopping.wait(self._next_turn - now)

    def _accept(self, listener: Listener) -> None:
        """Take one connection and start its thread. Never raises: nothing a client does may end this loop."""
        try:
            sock, peer = listener.sock.accept()
        except OSError as error:  # the client gave up (ECONNABORTED), or the machine is out of something
            if error.errno in _OUT_OF_RESOURCES:
                get_logger().warning("accept.out_of_resources", error=errno.errorcode.get(error.errno or 0))
                self._state.stopping.wait(_BACK_OFF_SECONDS)
            return
        state = self._state
        state.stats.count_connection()
        if state.is_protected() and not is_local(peer):
            self._refuse(sock, errors.PROTECTED, listener)
            return
        if len(state.clients) >= state.config.maxclients:
            self._refuse(sock, errors.MAX_CLIENTS, listener)
            return
        try:
            self._start_connection(sock, peer, listener)
        except OSError:  # reset before it began
            sock.close()
        except RuntimeError:  # the system gives no more threads
            get_logger().warning("accept.no_thread", clients=len(state.clients))
            self._refuse(sock, errors.NO_THREAD, listener)

    def _start_connection(self, sock: socket.socket, peer: Any, listener: Listener) -> None:
        state = self._state
        _prepare(sock, state.config)
        session = Session(
            state, state.clients.next_id(), show(peer) or f"{sock.getsockname()}:0", show(sock.getsockname()),
            sock.fileno(),
        )  # fmt: skip
        tls = self._certificates.stream(sock) if listener.tls and self._certificates is not None else None
        run = execute if self.instruments is None else self.instruments.execute
        connection = Connection(sock, session, tls, run)
        state.clients.add(session, connection.abort)
        try:
            self._threads.start(connection, connection.run, f"kvserver-client-{session.id}")
        except BaseException:
            state.clients.remove(session)
            raise

    def _refuse(self, sock: socket.socket, why: str, listener: Listener) -> None:
        """Send one error line if the socket takes it at once, and close. With TLS there is nothing to say it in yet."""
        self._state.stats.count_rejection()
        with contextlib.suppress(OSError), sock:
            if not listener.tls:
                sock.setblocking(False)
                sock.send(encode_error(why))


def _load_commands(modules: str) -> None:
    """Add the commands that are written in Python.

    Raises:
        ConfigError: a module cannot be loaded.
    """
    if modules:
        from kvserver.extensions import load  # here, since few need it

        try:
            load(modules)
        except ValueError as error:
            raise ConfigError(f"--load {error}") from None


def _prepare(sock: socket.socket, config: Config) -> None:
    """Socket options of an accepted connection."""
    sock.settimeout(None)
    if sock.family != getattr(socket, "AF_UNIX", None):
        # Replies are sent whole, so waiting to fill a segment would only delay them.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if config.tcp_keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in (
                ("TCP_KEEPIDLE", config.tcp_keepalive),
                ("TCP_KEEPINTVL", max(1, config.tcp_keepalive // 3)),
                ("TCP_KEEPCNT", 3),
            ):
                if hasattr(socket, name):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), min(value, 32767))
    if config.write_timeout:
        set_timeout(sock, socket.SO_SNDTIMEO, config.write_timeout)
