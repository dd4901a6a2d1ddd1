"""The client: commands that run at once over a pool of connections, and the mapping face.

Not here: which commands there are (commands/), how a socket is used (connection.py), how connections are
shared (pool.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, Self, TypeVar, overload

from kvclient.commands import Commands, refuse_connection_commands, to
from kvclient.commands.base import Direct
from kvclient.connection import Connection
from kvclient.errors import BadURLError, ConnectionLostError, ServerError
from kvclient.listening import Monitor, Subscription
from kvclient.locking import Lock
from kvclient.pipeline import Pipeline
from kvclient.pool import Pool
from kvclient.protocol import encode_command
from kvclient.recipes.caching import get_or_set
from kvclient.recipes.limits import use
from kvclient.recipes.locks import LockRecipes
from kvclient.recipes.steps import Ask, Call, Pause, Together, run
from kvclient.transaction import Transaction, watching
from kvclient.url import DEFAULT_URL, Options, parse_url

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator

    from kvclient.commands.base import Args, Command, P, S
    from kvclient.protocol import Key, Reply, Value
    from kvclient.recipes.limits import RateLimit
    from kvclient.recipes.steps import Recipe, Step
    from kvclient.transaction import WatchingTransaction

T = TypeVar("T")
_monotonic = time.monotonic


def connect(
    url: str = DEFAULT_URL,
    *,
    timeout: float | None = None,
    max_connections: int | None = None,
    name: str | None = None,
    username: str | None = None,
    password: str | None = None,
    db: int | None = None,
    protocol: Literal[2, 3] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Client:
    """Connect to kvserver, Redis or Valkey.

    Args:
        url: redis://[USER:PASSWORD@]HOST[:PORT][/DB], or rediss:// for TLS, or unix:///PATH; valkey:// and
            valkeys:// mean the same. Options may follow as ?name=value&...; what is given here wins.
        timeout: seconds that one call may take, waiting and connecting included. Default 5.
        max_connections: the most connections to open, as many as calls can run at once. Default 32.
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
        url, timeout=timeout, max_connections=max_connections, name=name, username=username,
        password=password, db=db, protocol=protocol, tls=True if tls is not None else None,
    )  # fmt: skip
    client = Client(options, tls)
    try:
        client.check()
    except BaseException:
        client.close()
        raise
    return client


class Client(Commands, Direct):
    """A server, as an object whose methods are its commands. Threads may share it, and so may forked children.

    As a mapping it goes from keys (bytes or str) to values (bytes): client[key], `in`, del, len() and
    iteration. Make one with connect().
    """

    def __init__(self, options: Options, tls: ssl.SSLContext | None = None) -> None:
        self.options = options
        self._timeout = options.timeout
        context = tls if tls is not None or not options.tls else tls_context(options)
        self._context = context
        self._pool = Pool(lambda: Connection(options, context), options.max_connections)

    def __repr__(self) -> str:
        return f"<kvclient.Client {self.options.address} db={self.options.db}>"

    @classmethod
    def _bind(cls, command: Command[S, P, T]) -> Callable[..., object]:
        build, convert, safe, patience = command.build, command.convert, command.safe, command.patience
        if patience is None:

            def method(self: Client, *args: object, **kwargs: object) -> T:
                return self._run(build(self, *args, **kwargs), convert, safe)  # type: ignore[arg-type]
        else:

            def method(self: Client, *args: object, **kwargs: object) -> T:
                words = build(self, *args, **kwargs)  # type: ignore[arg-type]
                return self._run(words, convert, safe, self._timeout + patience(words))

        return method

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
        return self._run(args, to.anything, False, timeout)

    def _run(self, args: Args, convert: Callable[[Reply], T], safe: bool, timeout: float | None = None) -> T:
        """Send one command and convert its reply; once more if the connection broke and that cannot harm."""
        payload = encode_command(args)
        deadline = _monotonic() + (self._timeout if timeout is None else timeout)
        try:
            return self._attempt(payload, convert, deadline)
        except ConnectionLostError as error:
            if not safe and error.applied != "no":
                raise
        return self._attempt(payload, convert, deadline)

    def _attempt(self, payload: bytes, convert: Callable[[Reply], T], deadline: float) -> T:
        pool = self._pool
        connection = pool.take(deadline)
        try:
            reply = connection.call(payload, deadline)
            if not isinstance(reply, ServerError):
                result = convert(reply)
        except BaseException:
            # Whatever is still under way on this connection, nobody else may read it.
            pool.drop(connection)
            raise
        pool.give(connection)
        if isinstance(reply, ServerError):
            raise reply
        return result

    def pipeline(self, *, raise_errors: bool = True, timeout: float | None = None) -> Pipeline:
        """Collect commands in a with block and send them together at its end.

        Args:
            raise_errors: raise PipelineError at the end if the server refused some of the commands; otherwise
                only the futures of those raise.
            timeout: seconds to wait for each 16 KiB of commands or so; default: the client's.
        """
        return Pipeline(self._pool, self._timeout if timeout is None else timeout, raise_errors=raise_errors)

    @overload
    def transaction(self, *, timeout: float | None = None) -> Transaction: ...
    @overload
    def transaction(
        self, work: Callable[[WatchingTransaction], T], *, watch: Iterable[Key], timeout: float | None = None
    ) -> T: ...
    def transaction(
        self,
        work: Callable[[WatchingTransaction], T] | None = None,
        *,
        watch: Iterable[Key] = (),
        timeout: float | None = None,
    ) -> Transaction | T:
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
        seconds = self._timeout if timeout is None else timeout
        if work is None:
            return Transaction(self._pool, seconds, raise_errors=True)
        return watching(self._pool, work, watch, seconds)

    # ---- what is built on commands -------------------------------------------------------------------------

    def lock(self, name: str, *, ttl: float = 30, wait: float = 10, extend: bool = True) -> Lock:
        """A lock that all programs share which use the same name; for a with block.

            with client.lock("report") as lock:
                store.write(report, fence=lock.fence)

        It works with kvserver, Valkey and Redis. What it protects is safe from a holder that was suspended for longer
        than the ttl only if it refuses a `fence` lower than one it has seen.

        Args:
            name: the key; a counter is beside it, at name + ":fence".
            ttl: seconds after which it ends by itself, if this program dies.
            wait: seconds to wait for somebody else who holds it.
            extend: keep it for as long as the block takes, by a thread.

        Raises (on entering):
            LockTimeoutError: somebody else held it all the time.
        """
        return Lock(self._follow, LockRecipes(name, ttl, _monotonic), wait, extend=extend)

    def rate_limit(self, key: Key, limit: int, *, per: float) -> RateLimit:
        """Count one use of a key, of which `limit` are allowed within `per` seconds; whether this one was.

            if not client.rate_limit(f"login:{user}", 5, per=60):
                raise TooManyTries

        The count begins with the first use. One round trip, to any server.
        """
        return self._follow(use(key, limit, per))

    def get_or_set(
        self, key: str, compute: Callable[[], bytes], *, ttl: float, stale: float = 0, lease: float = 10
    ) -> bytes:
        """The value of a key; if there is none, compute() it and store it, one caller at a time.

        Args:
            key: the key; who computes holds another, key + ":lease".
            compute: gives the value.
            ttl: seconds after which the value is computed anew.
            stale: seconds for which the old one will do for everybody else, while one caller computes.
            lease: seconds that computing may take; after them another caller begins.

        Raises:
            CallTimeoutError: others were computing all the time, twice the lease, and no value came.
        """
        return self._follow(get_or_set(key, ttl, stale, lease, _monotonic), compute)

    def _follow(self, recipe: Recipe[T], compute: Callable[[], bytes] | None = None) -> T:
        def take(step: Step) -> Reply:
            match step:
                case Ask(args):
                    return self.execute(*args)
                case Together(commands):
                    with self.transaction() as transaction:
                        futures = [transaction.execute(*args) for args in commands]
                    return [future.result() for future in futures]
                case Pause(seconds):
                    self._pool.pause(seconds)
                    return None
                case Call():
                    assert compute is not None
                    return compute()

        return run(recipe, take)

    # ---- listening -----------------------------------------------------------------------------------------

    def listen(self, *channels: Key, patterns: Iterable[Key] = (), shards: Iterable[Key] = ()) -> Subscription:
        """Listen to channels, to glob patterns of channels, to shard channels; on a connection of its own.

            with client.listen("news") as messages:
                for message in messages:
                    ...

        Server commands: SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE.
        """
        subscription = Subscription(self._listening(), self._timeout)
        try:
            subscription.subscribe(*channels, patterns=patterns, shards=shards)
        except BaseException:
            subscription.__exit__()
            raise
        return subscription

    def monitor(self) -> Monitor:
        """Watch every command that the server runs, on a connection of its own.

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
        match: Key | None = None,
        count: int | None = None,
        type: Key | None = None,  # noqa: A002 - the server's word for it
    ) -> Iterator[bytes]:
        """Iterate over keys without stopping the server; see scan() for the options.

        Every key that is there from beginning to end is yielded at least once. Redis and Valkey may yield one
        twice, and keys that come or go meanwhile may be missing or not.
        """
        cursor = -1
        while cursor:
            cursor, keys = self.scan(max(cursor, 0), match=match, count=count, type=type)
            yield from keys

    def __iter__(self) -> Iterator[bytes]:
        return self.scan_iter()

    def __len__(self) -> int:
        return self.dbsize()

    def __bool__(self) -> bool:
        """True, always: without this, `if client:` would ask the server for its number of keys."""
        return True

    def __contains__(self, key: Key) -> bool:
        return self.exists(key) == 1

    def __getitem__(self, key: Key) -> bytes:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Key, value: Value) -> None:
        self.set(key, value)

    def __delitem__(self, key: Key) -> None:
        if not self.delete(key):
            raise KeyError(key)


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
