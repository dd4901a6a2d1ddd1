"""The client as an object: mapping, pipelines, lifetime."""

from __future__ import annotations

import pickle
import socket
import threading
from pathlib import Path

import pytest

import kvclient
import kvserver
from kvclient.errors import AuthError, BadURLError, KVError, ServerError, server_error


def test_it_is_a_mapping(kv: kvclient.Client) -> None:
    kv["a"] = 1
    kv[b"b"] = "two"
    assert kv["a"] == b"1"
    assert "a" in kv
    assert b"no" not in kv
    assert len(kv) == 2
    assert sorted(kv) == [b"a", b"b"]
    del kv["a"]
    with pytest.raises(KeyError):
        del kv["a"]
    with pytest.raises(KeyError):
        kv["a"]
    del kv["b"]
    assert len(kv) == 0
    assert kv  # an empty database does not make a client false


def test_a_pipeline_gives_typed_futures(kv: kvclient.Client) -> None:
    with kv.pipeline() as p:
        stored = p.set("k", "v", ttl=10)
        value = p.get("k")
        raw = p.execute("STRLEN", "k")
        nothing = p.get("missing")
        assert len(p) == 4
    assert (stored.result(), value.result(), raw.result(), nothing.result()) == (True, b"v", 1, None)
    assert len(p) == 0
    p.incr("n")
    assert p.run() == (1,)


def test_a_long_pipeline_does_not_block_against_a_server_that_sends_as_much(kv: kvclient.Client) -> None:
    """40 MB of commands whose replies are 40 MB: more than any socket buffer, both ways at once."""
    big = b"x" * 200_000
    with kv.pipeline() as p:
        echoes = [p.echo(big) for _ in range(200)]
        small = [p.incr("n") for _ in range(3000)]
        more = [p.echo(big) for _ in range(10)]
    assert all(echo.result() == big for echo in echoes + more)
    assert [number.result() for number in small] == list(range(1, 3001))


def test_a_small_pipeline_is_one_write(own_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    send = kvclient.connection.Connection._send

    def counted(self: object, payload: bytes, deadline: float) -> None:
        writes.append(len(payload))
        send(self, payload, deadline)  # type: ignore[arg-type]

    with kvclient.connect(own_url) as kv:
        monkeypatch.setattr(kvclient.connection.Connection, "_send", counted)
        with kv.pipeline() as p:
            for number in range(100):
                p.set(f"k{number}", number)
    assert len(writes) == 1


def test_large_values(kv: kvclient.Client) -> None:
    for size in (1022, 1023, 1024, 65_000, 65_536, 5_000_000):
        value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        kv["big"] = value
        assert kv["big"] == value


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with kvserver.Server(port=0, unix_socket=str(path)), kvclient.connect(f"unix://{path}?name=me") as kv:
        assert kv.client_getname() == b"me"


def test_database_and_name_are_set_in_the_handshake(url: str) -> None:
    with kvclient.connect(url, db=3, name="me") as kv:
        assert kv.client_getname() == b"me"
        assert kv.client_info()["db"] == "3"
        assert "db=3" in repr(kv)
    with pytest.raises(ServerError, match="DB index"):
        kvclient.connect(url, db=99)


def test_a_password(valkey_port: int) -> None:
    base = f"127.0.0.1:{valkey_port}"
    with kvclient.connect(f"redis://{base}") as admin:
        admin.execute("ACL", "SETUSER", "tester", "on", ">se:c@ret", "~*", "+@all")
        for protocol in ("2", "3"):
            url = f"redis://tester:se%3Ac%40ret@{base}?protocol={protocol}"
            with kvclient.connect(url) as kv:
                assert kv.client_info()["user"] == "tester"
            with pytest.raises(AuthError, match="password"):
                kvclient.connect(url, password="wrong")
        admin.execute("ACL", "DELUSER", "tester")


def test_bad_options() -> None:
    with pytest.raises(BadURLError):
        kvclient.connect("redis://h", timeout=-1)
    with pytest.raises(BadURLError, match="TLS"):
        kvclient.connect("rediss://h?tls_ca=/nonexistent")


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(server_error(b"WRONGTYPE no")))
    assert (type(error), error.code, error.message) == (kvclient.errors.WrongTypeError, "WRONGTYPE", "no")
    assert isinstance(error, KVError)


def test_nothing_is_left_open(own_url: str) -> None:
    threads = threading.active_count()
    kv = kvclient.connect(own_url)
    held: socket.socket | None = kv._pool._idle[0]._sock
    kv.close()
    assert held is not None
    assert held.fileno() == -1
    assert threading.active_count() >= threads
