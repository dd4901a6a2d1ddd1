"""Fixtures for tests that need a server. pytest finds them by itself wherever kvserver is installed.

========================  =======  ==================================================================================
fixture                   scope    what it is
========================  =======  ==================================================================================
``kvserver``              session  a running server, in this process, on a free port
``kv``                    test     a :class:`kvclient.Client` of it; the server is empty when the test begins
``kv_url``                test     its URL, for any other client; likewise
``redis_client``          test     a ``redis.Redis`` of it, for programs that use redis-py; likewise
``kv_clock``              test     its time: ``freeze()``, ``advance(seconds)``, ``set(moment)``; as it was afterwards
``kv_faults``             test     what is to go wrong (:class:`kvserver.testing.Faults`); a rule that nothing met fails
``kv_recording``          test     what clients send during the test, with the replies; ``save(path)``
``kv_replay``             test     ``kv_replay(path)`` sends it again, and fails at the first reply that is different
``kvserver_factory``      session  ``kvserver_factory(**settings)`` starts another server, which ends with the session
========================  =======  ==================================================================================

Settings are those of :class:`kvserver.Config`, for all of these servers: lines ``name = value`` of the ini option
``kvserver``, or ``--kvserver name=value``. With pytest-xdist each worker has a server of its own.

Not here: any import of the server before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from pathlib import Path

    import redis

    import kvclient
    from kvserver.server import Server
    from kvserver.testing import Faults, Recording

    Factory = Callable[..., Server]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The settings' places."""
    parser.addini("kvserver", "settings of the fixture kvserver, as lines name = value", type="linelist")
    parser.getgroup("kvserver").addoption(
        "--kvserver",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="kvserver_settings",
        help="a setting of the fixture kvserver, such as maxmemory=10mb; wins over the ini file",
    )


def _settings(config: pytest.Config) -> dict[str, str]:
    settings: dict[str, str] = {}
    for line in (*config.getini("kvserver"), *config.getoption("kvserver_settings")):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not name:
            raise pytest.UsageError(f"kvserver: {line!r} is not name=value")
        settings[name.replace("-", "_")] = value
    return settings


@pytest.fixture(scope="session")
def kvserver_factory(pytestconfig: pytest.Config) -> Iterator[Factory]:
    """Starts a server with these settings, on a free port unless told otherwise. All end with the session."""
    from kvserver.config import ConfigError
    from kvserver.server import Server
    from kvserver.testing import Instruments

    with ExitStack() as running:

        def start(**settings: object) -> Server:
            chosen: dict[str, Any] = {"port": 0, "clock_command": "yes"} | _settings(pytestconfig) | settings
            try:
                return running.enter_context(Server(**({"instruments": Instruments()} | chosen)))
            except ConfigError as error:
                raise pytest.UsageError(f"kvserver: {error}") from None

        yield start


@pytest.fixture(scope="session")
def kvserver(kvserver_factory: Factory) -> Server:
    """A running server."""
    return kvserver_factory()


@pytest.fixture(scope="session")
def _kv_for_all_tests(kvserver: Server) -> Iterator[kvclient.Client]:
    import kvclient

    with kvclient.connect(kvserver.url) as client:
        yield client


@pytest.fixture
def _kv_emptied(_kv_for_all_tests: kvclient.Client) -> None:
    """Before each test that uses the server, and once, however many of the fixtures it uses."""
    _kv_for_all_tests.flushall()


@pytest.fixture
def kv(kvserver: Server, _kv_emptied: None) -> Iterator[kvclient.Client]:
    """A client of an empty server."""
    import kvclient

    with kvclient.connect(kvserver.url) as client:
        yield client


@pytest.fixture
def kv_url(kvserver: Server, _kv_emptied: None) -> str:
    """The URL of an empty server."""
    return kvserver.url


class ServerClock:
    """The time of the fixture's server, which every time to live goes by."""

    def __init__(self, client: kvclient.Client) -> None:
        self._client = client

    def now(self) -> float:
        """Its time, in seconds since 1970."""
        return self._client.clock() / 1000

    def freeze(self) -> None:
        """Stop it."""
        self._client.clock(freeze=True)

    def advance(self, time: float | timedelta) -> None:
        """Step forwards, by seconds or a timedelta; backwards if that is negative."""
        self._client.clock(advance=time)

    def set(self, moment: float | datetime) -> None:
        """Step to a moment: seconds since 1970, or a datetime with a time zone."""
        self._client.clock(set_to=moment)

    def resume(self) -> None:
        """Make it the system's time again, as it is after each test."""
        self._client.clock(resume=True)


@pytest.fixture
def kv_clock(_kv_for_all_tests: kvclient.Client, _kv_emptied: None) -> Iterator[ServerClock]:
    """The server's time, to be stopped and moved."""
    clock = ServerClock(_kv_for_all_tests)
    yield clock
    clock.resume()


@pytest.fixture
def kv_faults(kvserver: Server, _kv_emptied: None) -> Iterator[Faults]:
    """What is to go wrong in the server during this test. A rule that nothing has met is an error of the test."""
    assert kvserver.instruments is not None
    faults = kvserver.instruments.faults
    yield faults
    try:
        faults.check()
    finally:
        faults.clear()


@pytest.fixture
def kv_recording(kvserver: Server, _kv_emptied: None) -> Iterator[Recording]:
    """What clients send to the server during this test, and what they are answered."""
    assert kvserver.instruments is not None
    with kvserver.instruments.recording() as recording:
        yield recording


@pytest.fixture
def kv_replay(kvserver: Server, _kv_emptied: None) -> Callable[[str | Path | Recording], None]:
    """Sends the commands of a recording, or of a file with one, to the empty server, and compares the replies."""
    from kvserver.testing import Recording

    def replay(recording: str | Path | Recording) -> None:
        assert kvserver.instruments is not None
        kvserver.instruments.replay(recording if isinstance(recording, Recording) else Recording.load(recording))

    return replay


@pytest.fixture
def redis_client(kvserver: Server, _kv_emptied: None) -> Iterator[redis.Redis]:
    """A client of redis-py's, of an empty server. Skips the test if redis-py is not installed."""
    redis = pytest.importorskip("redis")
    with redis.Redis.from_url(kvserver.url) as client:
        yield client
