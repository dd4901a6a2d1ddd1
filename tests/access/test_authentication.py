"""Who is let in: passwords from every source, what a stranger may do, and what a failure tells."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from pathlib import Path

import pytest
import redis
from access.conftest import Connect
from conformance.oracle import Wire, request
from support import real_valkey

import kvclient
import kvserver
from kvserver.access import users
from kvserver.access.users import Users
from kvserver.commands.needs import CATALOGUE
from kvserver.config import ConfigError

NOAUTH = b"-NOAUTH Authentication required.\r\n"
WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
SECRET = "hunter2"


@pytest.fixture(params=["flag", "file", "file without a line end"])
def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> kvserver.Server:
    """A server with a password, not started."""
    if request.param == "flag":
        return kvserver.Server(port=0, requirepass=SECRET)
    file = tmp_path / "password"
    file.write_text(SECRET + ("\n" if request.param == "file" else ""))
    return kvserver.Server(port=0, password_file=str(file))


def test_clients_get_in_with_the_password_and_not_without(guarded: kvserver.Server) -> None:
    with guarded as server:
        url = f"redis://:{SECRET}@127.0.0.1:{server.port}"
        assert redis.Redis.from_url(url).set("k", "v")
        assert redis.Redis.from_url(url, protocol=2).get("k") == b"v"
        with kvclient.connect(url) as kv:
            assert kv.get("k") == b"v"
        for wrong in ("", ":wrong@", "nobody:hunter2@"):
            with pytest.raises(redis.AuthenticationError):
                redis.Redis.from_url(f"redis://{wrong}127.0.0.1:{server.port}").get("k")


def test_the_password_is_nowhere_to_be_seen(guarded: kvserver.Server, caplog: pytest.LogCaptureFixture) -> None:
    with guarded as server, Wire(server.port) as wire:
        wire.ask("AUTH", SECRET)
        seen = b"".join(
            wire.ask(*line.split())
            for line in (
                "CONFIG GET *",
                "ACL LIST",
                "ACL GETUSER default",
                "INFO everything",
                "SLOWLOG GET",
                "CLIENT LIST",
            )
        )
    digest = hashlib.sha256(SECRET.encode())
    assert SECRET.encode() not in seen
    assert digest.hexdigest().encode() in seen  # as ACL LIST shows it
    assert SECRET not in caplog.text
    assert SECRET not in repr(server._state.config)
    assert digest.hexdigest() not in repr(server._state.config)


def test_a_password_file_that_is_of_no_use(tmp_path: Path) -> None:
    for settings, why in (
        ({"password_file": str(tmp_path / "none")}, "cannot be read"),
        ({"password_file": os.devnull}, "is empty"),
        ({"password_file": os.devnull, "requirepass": "x"}, "one of the two"),
    ):
        with pytest.raises(ConfigError, match=why):
            kvserver.Server(port=0, **settings).start()


def test_25_what_a_stranger_may_do() -> None:
    with kvserver.Server(port=0, requirepass=SECRET) as server, Wire(server.port) as wire:
        for line in (
            "PING",
            "NOSUCH",
            "GET",
            "GET k",
            "COMMAND",
            "SUBSCRIBE c",
            "MULTI",
            "EXEC",
            "MONITOR",
            "CONFIG",
            "ACL WHOAMI",
        ):
            assert wire.ask(*line.split()) == NOAUTH, line
        assert wire.ask("HELLO", "3").startswith(b"-NOAUTH HELLO must be called")
        assert wire.ask("RESET") == b"+RESET\r\n"
        assert wire.ask("AUTH") == b"-ERR wrong number of arguments for 'auth' command\r\n"
        assert wire.ask("AUTH", SECRET) == b"+OK\r\n"
        assert wire.ask("PING") == b"+PONG\r\n"
        assert wire.ask("RESET") == b"+RESET\r\n"
        assert wire.ask("PING") == NOAUTH
        assert wire.ask("QUIT") == b"+OK\r\n"


def test_24_a_failure_tells_nothing_and_changes_nothing(connect: Connect) -> None:
    admin = connect("ACL", "SETUSER", "worker", "on", ">" + SECRET, "+@all", "~*")
    admin.ask("ACL", "SETUSER", "disabled", ">" + SECRET)
    worker = connect("AUTH", "worker", SECRET)
    for name, password in (
        (b"worker", b"wrong"), (b"nobody", SECRET.encode()), (b"disabled", SECRET.encode()), (b"worker", b""),
        (b"worker", b"x" * 1_000_000), (b"worker", SECRET.encode() + b"\0"), (b"\0" * 20, b"\xff" * 20),
        (b"WORKER", SECRET.encode()), (b"", b""),
    ):  # fmt: skip
        assert worker.ask("AUTH", name, password) == WRONG
        assert worker.ask("HELLO", "3", "AUTH", name, password) == WRONG
        assert worker.ask("ACL", "WHOAMI") == b"$6\r\nworker\r\n"  # in RESP2 still


def test_a_wrong_name_takes_the_steps_of_a_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare(first: str, second: str) -> bool:
        compared.append((first, second))
        return first == second

    monkeypatch.setattr(users, "compare_digest", compare)
    all_users = Users(lambda: None)
    all_users.set(b"worker", [b"on", b">secret"], CATALOGUE)
    for name, password in ((b"worker", b"wrong"), (b"nobody", b"secret"), (b"nobody", b"")):
        compared.clear()
        assert all_users.authenticate(name, password) is None
        assert len(compared) == 1
    assert all_users.authenticate(b"worker", b"secret") is not None


def test_7_a_stranger_cannot_announce_much() -> None:
    with kvserver.Server(port=0, requirepass=SECRET) as server:
        for data, fault in (
            (b"*11\r\n", b"unauthenticated multibulk length"),
            (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", b"unauthenticated bulk length"),
            (b"*1\r\n$-5\r\n", b"invalid bulk length"),
            (b"*x\r\n", b"invalid multibulk length"),
        ):
            with Wire(server.port) as wire:
                assert wire.ends(data) == b"-ERR Protocol error: " + fault + b"\r\n"
        long = request([b"SET", b"k", b"v" * 100_000]) + request([b"DEL", *[b"k%d" % i for i in range(20)]])
        with Wire(server.port) as wire:  # in one read with what lifts the limit
            wire.send(request([b"AUTH", SECRET.encode()]) + long)
            assert [wire.read() for _ in range(3)] == [b"+OK\r\n", b"+OK\r\n", b":0\r\n"]


def test_a_password_set_and_taken_away_while_it_runs(connect: Connect) -> None:
    before = connect("SELECT", "1")
    admin = connect("CONFIG", "SET", "requirepass", SECRET)
    assert before.ask("PING") == b"+PONG\r\n"  # who is in stays in
    stranger = connect()
    assert stranger.ask("PING") == NOAUTH
    assert admin.ask("CONFIG", "GET", "requirepass") == b"*2\r\n$11\r\nrequirepass\r\n$8\r\n(hidden)\r\n"
    assert admin.ask("CONFIG", "SET", "requirepass", "") == b"+OK\r\n"
    assert stranger.ask("PING") == b"+PONG\r\n"
    assert admin.ask("CONFIG", "GET", "requirepass") == b"*2\r\n$11\r\nrequirepass\r\n$0\r\n\r\n"


def _outward_address() -> str:
    """An address of this machine that is not its loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but its loopback")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "outward"])
def test_nobody_listens_to_the_world_without_a_password(host: str, tmp_path: Path) -> None:
    host = _outward_address() if host == "outward" else host
    with pytest.raises(ConfigError, match="protected-mode no"):
        kvserver.Server(port=0, host=host).start()
    file = tmp_path / "users"
    file.write_text("user default on >secret ~* &* +@all\n")
    for settings in ({"requirepass": SECRET}, {"protected_mode": "no"}, {"acl_file": str(file)}):
        with kvserver.Server(port=0, host=host, **settings):
            pass


def test_who_comes_from_elsewhere_is_refused_once_the_password_is_gone() -> None:
    address = _outward_address()
    with (
        kvserver.Server(port=0, host=f"{address},127.0.0.1", requirepass=SECRET) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as inside,
    ):
        inside.sendall(b"AUTH %b\r\nCONFIG SET requirepass ''\r\n" % SECRET.encode())
        replies = inside.makefile("rb")
        assert [replies.readline() for _ in range(2)] == [b"+OK\r\n"] * 2
        with socket.create_connection((address, server.port), timeout=20) as outside:
            assert outside.recv(1000).startswith(b"-DENIED ")
        inside.sendall(b"PING\r\n")
        assert replies.readline() == b"+PONG\r\n"
        replies.close()


def test_users_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("# those who may\n\nuser worker on >secret ~jobs:* +get (+set ~x)\nuser default off\n")
    file.chmod(0o600)
    with kvserver.Server(port=0, acl_file=str(file)) as server, Wire(server.port) as wire:
        assert wire.ask("PING") == NOAUTH
        assert wire.ask("AUTH", "worker", "secret") == b"+OK\r\n"
        assert wire.ask("GET", "jobs:1") == b"$-1\r\n"
        assert wire.ask("ACL", "SAVE").startswith(b"-NOPERM")
        server._state.users.set(b"worker", [b"+@all"], CATALOGUE)
        assert wire.ask("ACL", "SETUSER", "new", "on", "nopass", "~*", "+@all") == b"+OK\r\n"
        assert wire.ask("ACL", "SAVE") == b"+OK\r\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        saved = file.read_text()
        file.write_text(saved + "user worker on\n")
        assert b":4: the user worker" in wire.ask("ACL", "LOAD")
        file.write_text("user new on nopass ~* +nosuch\n")
        assert b":1: Unknown command" in wire.ask("ACL", "LOAD")
        assert wire.ask("ACL", "WHOAMI") == b"$6\r\nworker\r\n"  # and nothing has changed
        with Wire(server.port) as other:
            assert other.ask("AUTH", "new", "any") == b"+OK\r\n"
            file.write_text("user worker on >secret ~* +@all\n")
            assert wire.ask("ACL", "LOAD") == b"+OK\r\n"
            assert other.ends(b"") == b""  # the user is gone
        assert wire.ask("ACL", "USERS") == b"*2\r\n$7\r\ndefault\r\n$6\r\nworker\r\n"
    with kvserver.Server(port=0, acl_file=str(file)) as server, Wire(server.port) as wire:
        assert wire.ask("PING") == b"+PONG\r\n"  # the file says nothing of the default user


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        kvserver.Server(port=0, acl_file=str(tmp_path / "none")).start()
    bad = tmp_path / "users"
    bad.write_text("nobody\n")
    with pytest.raises(ConfigError, match=r":1: a line begins with the word user"):
        kvserver.Server(port=0, acl_file=str(bad)).start()


def test_valkey_reads_our_file_and_we_read_its(tmp_path: Path) -> None:
    file = tmp_path / "users.acl"
    file.write_text("user default on nopass ~* &* +@all\n")
    rules = [">secret", "on", "~a*", "%R~b*", "&c*", "+@read", "-get", "+config|get", "(+set %W~z db=1)", "db=0,3"]
    with kvserver.Server(port=0, acl_file=str(file)) as server, Wire(server.port) as wire:
        assert wire.ask("ACL", "SETUSER", "worker", *rules) == b"+OK\r\n"
        assert wire.ask("ACL", "SAVE") == b"+OK\r\n"
        told = wire.ask("ACL", "LIST")
    with real_valkey(aclfile=str(file)) as port, Wire(port) as wire:
        assert wire.ask("ACL", "LIST") == told
        assert wire.ask("ACL", "SETUSER", "other", "+@hash", "allkeys", "allchannels") == b"+OK\r\n"
        assert wire.ask("ACL", "SAVE") == b"+OK\r\n"
        told = wire.ask("ACL", "LIST")
    with kvserver.Server(port=0, acl_file=str(file)) as server, Wire(server.port) as wire:
        assert wire.ask("ACL", "LIST") == told
