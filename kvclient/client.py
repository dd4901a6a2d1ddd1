"""The client: commands that run at once over a pool of connections, and the mapping face.

Not here: which commands there are (commands/), how a socket is used (connection.py), how connections are
shared (pool.py).
"""

from __future__ import annotations

import contextlib
import copy
import time
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from kvclient.commands import refuse_connection_commands, to
from kvclient.connection import Connection
from kvclient.errors import BadURLError, CommandRefusedError, KVError, ServerError, UnpackError
from kvclient.listening import Monitor, Subscription
from kvclient.observer import name_of, told
from kvclient.once import Once
from kvclient.pipeline import NOT_IN_A_NAMESPACE, Manner, Pipeline, Source
from kvclient.pool import Pool
from kvclient.protocol import encode_command, to_bytes
from kvclient.recipes.caching import Cache
from kvclient.retry import pause_before_retry
from kvclient.serializers import PLAIN, In, Out, Serializer
from kvclient.text import escape_glob
from kvclient.toolbox import Toolbox
from kvclient.transaction import Transaction, Watch, watching
from kvclient.url import Options, default_url, parse_url

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator

    from kvclient.cluster.slots import SlotMap
    from kvclient.commands.base import Args
    from kvclient.observer import Observer
    from kvclient.protocol import Key, Name, Reply, Value
    from kvclient.transaction import WatchingTransaction

T = TypeVar("T")
X = TypeVar("X")
_monotonic = time.monotonic


@overload
def connect(
    url: str | None = None, *, observer: Observer | None = None,
    timeout: float | None = None, max_connections: int | None = None, max_idle: float | None = None,
    retries: int | None = None, name: str | None = None, username: str | None = None, password: str | None = None,
    db: int | None = None, protocol: Literal[2, 3] | None = None, tls: ssl.SSLContext | None = None,
) -> Client: ...  # fmt: skip
@overload
def connect(
    url: str | None = None, *, serializer: Serializer[In, Out], observer: Observer | None = None,
    timeout: float | None = None, max_connections: int | None = None, max_idle: float | None = None,
    retries: int | None = None, name: str | None = None, username: str | None = None, password: str | None = None,
    db: int | None = None, protocol: Literal[2, 3] | None = None, tls: ssl.SSLContext | None = None,
) -> Client[In, Out]: ...  # fmt: skip
def connect(
    url: str | None = None,
    *,
    serializer: Serializer[Any, Any] = PLAIN,
    observer: Observer | None = None,
    timeout: float | None = None,
    max_connections: int | None = None,
    max_idle: float | None = None,
    retries: int | None = None,
    name: str | None = None,
    username: str | None = None,
    password: str | None = None,
    db: int | None = None,
    protocol: Literal[2, 3] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Client[Any, Any]:
    """Connect to kvserver, Redis or Valkey.

    Args:
        url: redis://[USER:PASSWORD@]HOST[:PORT][/DB], or rediss:// for TLS, or unix:///PATH; valkey:// and
            valkeys:// mean the same. A cluster is valkey+cluster://HOST:PORT,HOST:PORT, with some of its nodes. Options
            may follow as ?name=value&...; what is given here wins. Without a URL, that of the environment variable
            KV_URL, or redis://127.0.0.1:6379/0.
        serializer: how values become bytes and bytes values, see kvclient.serializers. Without one, values are
            bytes, text or numbers going in, and bytes coming out.
        observer: is told of each call and of what becomes of connections; see kvclient.observer.
        timeout: seconds that one call may take, waiting, connecting and trying again included. Default 5.
        max_connections: the most connections to open, as many as calls can run at once. Default 32.
        max_idle: seconds after which a connection that nobody uses is closed. Default 300.
        retries: how often a call that failed is made again, where that cannot apply it twice. Default 3.
        name: what CLIENT LIST shows for this client's connections.
        username: user to authenticate as; needs a password.
        password: password to authenticate with.
        db: database number. Default 0.
        protocol: 3 or 2, the version of RESP. Default 3, and 2 with a server that knows no other.
        tls: a context to encrypt with, for more than the URL's tls_ca, tls_cert, tls_key and tls_verify say.

    Raises:
        CannotConnectError: nobody answers there.
        AuthError: the user or the password is wrong.
        BadURLError: the URL or an option makes no sense.
    """
    options = parse_url(
        url or default_url(), timeout=timeout, max_connections=max_connections, max_idle=max_idle, retries=retries,
        name=name, username=username, password=password, db=db, protocol=protocol,
        tls=True if tls is not None else None,
    )  # fmt: skip
    client = client_of(options, serializer, tls, observer)
    try:
        client.check()
    except BaseException:
        client.close()
        raise
    return client


def client_of(
    options: Options,
    serializer: Serializer[In, Out],
    tls: ssl.SSLContext | None = None,
    observer: Observer | None = None,
) -> Client[In, Out]:
    """A client of one server or of a cluster, as the options say; not connected yet."""
    if not options.nodes:
        return Client(options, tls, serializer, observer)
    from kvclient.cluster.client import ClusterClient  # here, since few need it

    return ClusterClient(options, tls, serializer, observer)


class Client(Toolbox[In, Out]):
    """A server, as an object whose methods are its commands. Threads may share it, and so may forked children.

    Client[In, Out] takes values of the one type and returns those of the other; plain Client takes bytes, text and
    numbers and returns bytes. As a mapping it goes from keys (bytes or str) to values: client[key], `in`, del, len()
    and iteration. Make one with connect().
    """

    def __init__(
        self,
        options: Options,
        tls: ssl.SSLContext | None,
        serializer: Serializer[In, Out],
        observer: Observer | None = None,
    ) -> None:
        super().__init__(serializer)
        self.options = options
        self._observer = observer
        self._timeout = options.timeout
        context = tls if tls is not None or not options.tls else tls_context(options)
        self._context = context
        self._pool = self._make_pool(context)
        self._cache = Cache(_monotonic)

    def _make_pool(self, tls: ssl.SSLContext | None) -> Source:
        """What lends the connections."""
        options = self.options
        return Pool(lambda: Connection(options, tls), options.max_connections, options.max_idle, self._observer)

    def __repr__(self) -> str:
        within = f" in {self._prefix.decode()!r}" if self._prefix else ""
        return f"<kvclient.Client {self.options.address} db={self.options.db}{within}>"

    # ---- views ---------------------------------------------------------------------------------------------

    def ns(self, prefix: str) -> Client[In, Out]:
        """The keys that begin with a prefix, as a client that knows them without it. It shares the connections.

            app = client.ns("app:")
            app.set("x", 1)  # the server's key is app:x
            list(app)        # [b"x"]

        Whatever takes keys is within the namespace: commands, pipelines, transactions, locks, iteration. Commands
        about all keys, such as flushdb(), and execute() raise CommandRefusedError. Channels have no prefix.
        """
        return self._view(self.serializer, self._prefix + prefix.encode())

    def typed(self, serializer: Serializer[T, X]) -> Client[T, X]:
        """The same keys, with values of other types; see kvclient.serializers. It shares the connections."""
        return self._view(serializer, self._prefix)

    @property
    def once(self) -> Once[In, Out]:
        """The same commands, each applied once, however often the connection is lost: for incr() and its like.

            client.once.incr("visits")  # asked again until it is answered, within the timeout

        Needs kvserver; CommandRefusedError with other servers, and nothing is done. Server command: KV.ONCE.
        """
        return Once(self, self._prefix)

    @property
    def _everything(self) -> Client:
        """The client outside of all namespaces, with values as bytes."""
        return self._view(PLAIN, b"")

    def _view(self, serializer: Serializer[T, X], prefix: bytes) -> Client[T, X]:
        view: Any = copy.copy(self)
        view.show(serializer, prefix)
        shown: Client[T, X] = view
        return shown

    # ---- running commands ----------------------------------------------------------------------------------

    def execute(self, *args: Value, timeout: float | None = None) -> Reply:
        """Run any command, given word by word, and return the server's reply.

        Args:
            args: the command and its arguments, as in "OBJECT", "ENCODING", "key".
            timeout: seconds this call may take; default: the client's.

        Raises:
            ServerError: the server refused the command.
            CommandRefusedError: it would change a connection that is shared; the message says what to do.
            KVError: no reply came; its `applied` says whether the command may have taken effect.
        """
        refuse_connection_commands(args)
        if self._prefix:
            raise CommandRefusedError(NOT_IN_A_NAMESPACE)
        return self.run(args, to.anything, False, self._timeout if timeout is None else timeout, self.options.retries)

    def _submit(self, words: Args, convert: Callable[[Reply], T], safe: bool, patience: float | None) -> T:
        payload = encode_command(words)
        timeout = self._timeout if patience is None else self._timeout + patience
        if self._observer is not None:
            with self._told(name_of(words)):
                return self._run(payload, convert, safe, timeout, self.options.retries)
        return self._run(payload, convert, safe, timeout, self.options.retries)

    def _told(self, name: str, count: int = 1) -> contextlib.AbstractContextManager[None]:
        """For a with block that is a call: the observer is told of it at its end, if there is one."""
        return told(self._observer, self.options, name, count)

    def run(self, words: Args, convert: Callable[[Reply], T], safe: bool, timeout: float, retries: int) -> T:
        """Run one command, made again as often as `retries` says. For the modules that are part of a client."""
        with self._told(name_of(words)):
            return self._run(encode_command(words), convert, safe, timeout, retries)

    def _run(self, payload: bytes, convert: Callable[[Reply], T], safe: bool, timeout: float, retries: int) -> T:
        """Send one command and convert its reply; again if it failed and that cannot apply it twice."""
        deadline = _monotonic() + timeout
        try:  # most calls succeed
            return self._attempt(payload, convert, deadline)
        except KVError as error:
            return self._again(error, payload, convert, safe, deadline, retries)

    def _again(
        self, error: KVError, payload: bytes, convert: Callable[[Reply], T], safe: bool, deadline: float, retries: int
    ) -> T:
        """Make a call again that failed, as often as that is allowed; otherwise raise the error."""
        attempt = 1
        while True:
            left = deadline - _monotonic()
            pause = pause_before_retry(error, attempt, safe=safe, retries=retries, left=left)
            if pause is None:
                raise error
            self._pool.pause(pause)
            attempt += 1
            try:
                return self._attempt(payload, convert, deadline)
            except KVError as failure:
                error = failure

    def _attempt(self, payload: bytes, convert: Callable[[Reply], T], deadline: float) -> T:
        pool = self._pool
        connection = pool.take(deadline)
        try:
            reply = connection.call(payload, deadline)
            if isinstance(reply, ServerError):
                raise reply
            result = convert(reply)
        except (ServerError, UnpackError):  # the reply was whole
            pool.give(connection)
            raise
        except BaseException as error:
            # Whatever is still under way on this connection, nobody else may read it.
            pool.drop(connection, error)
            raise
        pool.give(connection)
        return result

    def _manner(self, timeout: float | None, *, raise_errors: bool = True) -> Manner[In, Out]:
        seconds = self._timeout if timeout is None else timeout
        return Manner(self.serializer, self._prefix, seconds, self.options.retries, raise_errors, self._told)

    def pipeline(self, *, raise_errors: bool = True, timeout: float | None = None) -> Pipeline[In, Out]:
        """Collect commands in a with block and send them together at its end.

        Args:
            raise_errors: raise PipelineError at the end if the server refused some of the commands; otherwise
                only the futures of those raise.
            timeout: seconds to wait for each 16 KiB of commands or so; default: the client's.
        """
        return Pipeline(self._pool, self._manner(timeout, raise_errors=raise_errors))

    @overload
    def transaction(self, *, timeout: float | None = None) -> Transaction[In, Out]: ...
    @overload
    def transaction(
        self, work: Callable[[WatchingTransaction[In, Out]], T], *, watch: Iterable[Key], timeout: float | None = None
    ) -> T: ...
    def transaction(
        self,
        work: Callable[[WatchingTransaction[In, Out]], T] | None = None,
        *,
        watch: Iterable[Key] = (),
        timeout: float | None = None,
    ) -> Transaction[In, Out] | T:
        """Run commands together, with nobody else's in between.

        Without `work`, collect them in a with block, as for pipeline(). With `work` and keys to watch, call
        work(t): it reads by t.now, which runs at once, and queues by t; what it queued runs only if no watched key
        was changed since, or else all is done again. Returns what `work` returned.

            def buy(t):
                if int(t.now.get("stock") or 0) > 0:
                    t.decr("stock")

            client.transaction(buy, watch=["stock"])

        Server commands: MULTI, EXEC, WATCH, UNWATCH.

        Args:
            work: may be called several times, so it should do nothing but read and queue.
            watch: keys.
            timeout: seconds for all attempts together; default: the client's.

        Raises:
            TransactionConflictError: in all that time somebody else was quicker.
        """
        return self._transaction(timeout) if work is None else self._watching(work, watch, timeout)

    def _transaction(self, timeout: float | None) -> Transaction[In, Out]:
        return Transaction(self._pool, self._manner(timeout))

    def _watching(
        self, work: Callable[[WatchingTransaction[In, Out]], T], watch: Iterable[Key], timeout: float | None
    ) -> T:
        return watching(self._pool, work, watch, self._manner(timeout))

    def watch(self, *keys: Key) -> Watch[In, Out]:
        """Watch keys, for a program that goes on step by step; transaction() with keys to watch is what most want."""
        return Watch(self._pool, self._manner(None), keys)

    # ---- listening -----------------------------------------------------------------------------------------

    def listen(
        self, *channels: Key, patterns: Iterable[Key] = (), shards: Iterable[Key] = (), reconnect: bool = True
    ) -> Subscription:
        """Listen to channels, to glob patterns of channels, to shard channels; on a connection of its own.

            with client.listen("news") as messages:
                for message in messages:
                    ...

        When the connection is lost it is made again, and `messages.gaps` counts that; with reconnect=False,
        ConnectionLostError is raised. Server commands: SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE.
        """
        subscription = Subscription(self._listening, self._timeout, reconnect=reconnect)
        try:
            subscription.subscribe(*channels, patterns=patterns, shards=shards)
        except BaseException:
            subscription.__exit__()
            raise
        return subscription

    def monitor(self) -> Monitor:
        """Watch every command that the server runs, on a connection of its own. It is not made again when it is lost.

        Server command: MONITOR.
        """
        return Monitor(self._listening(), self._timeout)

    def _listening(self) -> Connection:
        return Connection(self.options, self._context, listens=True)

    # ---- lifetime ------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Make sure that the server can be reached.

        Raises:
            CannotConnectError, AuthError, PoolTimeoutError, ClientClosedError: as any command.
        """
        self._pool.give(self._pool.take(_monotonic() + self._timeout))

    def close(self) -> None:
        """Close all connections, each one in use as soon as its call is over."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- the mapping face ----------------------------------------------------------------------------------

    def scan_iter(
        self,
        *,
        match: Name | None = None,
        count: int | None = None,
        type: Name | None = None,  # noqa: A002 - the server's word for it
    ) -> Iterator[bytes]:
        """Iterate over keys without stopping the server; see scan() for the options.

        Every key that is there from beginning to end is yielded at least once. Redis and Valkey may yield one
        twice, a cluster too if its slots move, and keys that come or go meanwhile may be missing or not.
        """
        prefix, everything = self._prefix, self._everything
        if prefix:
            match = escape_glob(prefix) + to_bytes(b"*" if match is None else match)
        before = self._whereabouts()
        while True:
            cursor = -1
            while cursor:
                cursor, keys = everything.scan(max(cursor, 0), match=match, count=count, type=type)
                yield from ([key[len(prefix) :] for key in keys] if prefix else keys)
            after = self._whereabouts()
            if not has_moved(before, after):
                return
            before = after

    def _whereabouts(self) -> SlotMap | None:
        """Which server has which keys now; None if there is only one."""
        return None

    def __iter__(self) -> Iterator[bytes]:
        return self.scan_iter()

    def __len__(self) -> int:
        return len(set(self)) if self._prefix else self.dbsize()

    def __bool__(self) -> bool:
        """True, always: without this, `if client:` would ask the server for its number of keys."""
        return True

    def __contains__(self, key: Key) -> bool:
        return self.exists(key) == 1

    def __getitem__(self, key: Key) -> Out:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Key, value: In) -> None:
        self.set(key, value)

    def __delitem__(self, key: Key) -> None:
        if not self.delete(key):
            raise KeyError(key)


def has_moved(before: SlotMap | None, after: SlotMap | None) -> bool:
    """Whether keys have gone from one server to another.

    It may have been from one that was not walked over yet to one that was: then all are to be walked over again.
    """
    return before is not None and after is not None and bool(after.gained_since(before))


def tls_context(options: Options) -> ssl.SSLContext:
    """The TLS settings that the URL asks for."""
    import ssl  # here, since it is slow and few need it

    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
        if not options.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if options.tls_cert is not None:
            context.load_cert_chain(options.tls_cert, options.tls_key)
    except OSError as error:
        raise BadURLError(f"bad option: cannot load the TLS files: {error}") from error
    return context
