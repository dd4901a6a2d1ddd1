"""Recordings: binary safe, in the order of the effects, and the first difference is told."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

import kvclient
import kvserver
from kvclient.errors import AuthError, ServerError
from kvserver.testing import Difference, Instruments, Recording, RecordingError
from kvserver.testing.recording import Entry


def new_server() -> kvserver.Server:
    return kvserver.Server(port=0, instruments=Instruments(), clock_command="local")


@pytest.fixture
def server() -> Iterator[kvserver.Server]:
    with new_server() as started:
        yield started


def instruments(server: kvserver.Server) -> Instruments:
    assert server.instruments is not None
    return server.instruments


@given(
    st.lists(
        st.builds(
            Entry,
            at=st.integers(0, 2**53), client=st.integers(1, 99), db=st.integers(0, 15), resp=st.sampled_from([2, 3]),
            command=st.lists(st.binary() | st.text().map(str.encode), min_size=1).map(tuple), reply=st.binary(),
            refused=st.booleans(),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_what_is_saved_comes_back(tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]) -> None:
    path = tmp_path_factory.getbasetemp() / "recording.jsonl"
    Recording(entries).save(path)
    assert Recording.load(path).entries == entries
    for line in path.read_text("utf-8").split("\n")[:-1]:
        json.loads(line)


def work(url: str, protocol: int = 3) -> None:
    with kvclient.connect(url, protocol=protocol, db=2) as kv:  # type: ignore[arg-type]
        kv.set(b"\xff\r\n", b"\x00binary\xfe", ttl=100)
        kv.pttl(b"\xff\r\n")
        kv.clock(freeze=True)
        kv.clock(advance=99)
        kv.pttl(b"\xff\r\n")
        kv.clock(advance=2)
        kv.get(b"\xff\r\n")
        kv.clock(resume=True)
        with kv.transaction() as queued:
            queued.incr("n")
            queued.mget("n", "none")
        with pytest.raises(kvclient.KVError):
            kv.execute("INCR", "n", "too many")
        kv.publish("channel", "message")
        kv.randomkey()
        kv.lock("name", ttl=5).__enter__().release()
        kv.execute("KV.GETL", "leased", 1000)


@pytest.mark.parametrize("protocol", [2, 3])
def test_it_runs_again_with_the_same_replies(server: kvserver.Server, tmp_path: Path, protocol: int) -> None:
    with instruments(server).recording() as recording:
        work(server.url, protocol)
    recording.save(tmp_path / "session.jsonl")
    text = (tmp_path / "session.jsonl").read_text("utf-8")
    assert {json.loads(line)["resp"] for line in text.splitlines()[1:]} == {protocol}
    loaded = Recording.load(tmp_path / "session.jsonl")
    assert loaded == recording
    names = [entry.command[0] for entry in recording.entries]
    assert {b"SET", b"PTTL", b"MULTI", b"EXEC", b"PUBLISH"} <= set(names)
    assert not {b"HELLO", b"CLIENT", b"KV.CLOCK", b"PING"} & set(names)
    with new_server() as other:
        instruments(other).replay(loaded)
        assert other.direct("SELECT", 2) == b"OK"
        assert other.direct("GET", "n") == b"1"
        with kvclient.connect(other.url) as kv:
            assert abs(kv.clock() - server._state.clock()) < 60_000
            assert kv.info("clients")["connected_clients"] == "1"


def everything_in_transactions(server: kvserver.Server) -> None:
    """What has a place in EXEC's reply without being recorded itself, or keeps EXEC from running."""
    faults = instruments(server).faults
    with redis.Redis(port=server.port, protocol=3) as client:
        for words in ("PING", "RANDOMKEY", "SELECT 3", "CLIENT ID", "OBJECT IDLETIME there", "INFO server", "TIME"):
            client.execute_command("MULTI")
            client.execute_command("INCR", "n")
            client.execute_command(*words.split())
            client.execute_command("INCR", "n")
            client.execute_command("EXEC")
        client.execute_command("SELECT", "0")
        for refuse in ("NONSENSE x", "GET", "SUBSCRIBE", "AUTH"):
            client.execute_command("MULTI")
            client.execute_command("INCR", "n")
            with pytest.raises(redis.RedisError):
                client.execute_command(*refuse.split())
            with pytest.raises(redis.RedisError):
                client.execute_command("EXEC")
        faults.refuse("INCRBY")
        faults.refuse("EXEC", after=1)
        for _ in range(2):
            client.execute_command("MULTI")
            with contextlib.suppress(redis.RedisError):
                client.execute_command("INCRBY", "n", 100)
            with pytest.raises(redis.RedisError):
                client.execute_command("EXEC")
        faults.clear()
        client.execute_command("WATCH", "n")
        client.execute_command("MULTI")
        client.execute_command("RESET")
        client.execute_command("WATCH", "n")
        client.execute_command("RESET")
        client.execute_command("INCR", "n")
        client.execute_command("MULTI")
        client.execute_command("INCR", "n")
        client.execute_command("EXEC")
        client.execute_command("OBJECT", "IDLETIME", "there")


def test_transactions_run_again_with_all_they_held(server: kvserver.Server) -> None:
    server.direct("SET", "there", "v")
    with server.fork(instruments=Instruments()) as other:
        with instruments(server).recording() as recording:
            everything_in_transactions(server)
        instruments(other).replay(recording)
        for db in (0, 3):
            server.direct("SELECT", db)
            other.direct("SELECT", db)
            assert other.direct("GET", "n") == server.direct("GET", "n")
        assert int(server.direct("GET", "n") or 0) > 0  # type: ignore[arg-type]


def test_leases_and_users(server: kvserver.Server) -> None:
    with instruments(server).recording() as recording, kvclient.connect(server.url) as kv:
        _, _, lease = kv.getl("k", 1000)
        assert lease
        assert kv.setl("k", lease, "v")
        assert not kv.setl("k", lease, "again")
        kv.acl_setuser("ann", "on", ">secret", "~a*", "+@all")
        with kvclient.connect(server.url, username="ann", password="secret") as ann:
            ann.set("a", 1)
            with pytest.raises(AuthError):
                ann.set("b", 1)
            queued = ann.transaction()
            queued.incr("a")
            queued.get("b")
            with pytest.raises(ServerError):
                queued.__exit__(None, None, None)
        kv.get("b")
    with new_server() as other:
        instruments(other).replay(recording)
        assert other.direct("GET", "k") == b"v"
        assert other.direct("GET", "a") == b"1"


def test_a_database_that_is_not_there(server: kvserver.Server) -> None:
    entry = Entry(1, 1, 99, 2, (b"GET", b"k"), b"$-1\r\n")
    with pytest.raises(RecordingError, match="command 1 is of database 99; this server has 16"):
        instruments(server).replay(Recording([entry]))


def test_the_first_difference_is_told(server: kvserver.Server) -> None:
    with instruments(server).recording() as recording, kvclient.connect(server.url) as kv:
        kv.set("a", 1)
        kv.get("a")
        kv.get("b")
    with new_server() as other:
        other.direct("SET", "b", "not there before")
        with pytest.raises(Difference) as caught:
            instruments(other).replay(recording)
    assert caught.value.number == 3
    assert caught.value.entry.command == (b"GET", b"b")
    assert str(caught.value).endswith(r"'GET b' was answered '_\r\n', and now '$16\r\nnot there before\r\n'")


def test_the_order_is_that_of_the_effects(server: kvserver.Server) -> None:
    """Many clients at once, and every reply is the same again when their commands run one after the other."""
    start = threading.Barrier(4)

    def client(number: int) -> None:
        with kvclient.connect(server.url) as kv:
            start.wait(60)
            for _ in range(50):
                kv.incr("n")
                kv.append("text", str(number))
                with kv.transaction() as queued:
                    queued.incr("n")
                    queued.strlen("text")

    with instruments(server).recording() as recording:
        threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({entry.client for entry in recording.entries}) == 4
    with new_server() as other:
        instruments(other).replay(recording)
        assert other.direct("GET", "n") == b"400"


def test_no_password_is_in_it(server: kvserver.Server, tmp_path: Path) -> None:
    with instruments(server).recording() as recording, kvclient.connect(server.url) as kv:
        kv.acl_setuser("ann", "on", ">S3CRET", "~*", "+@all")
        kv.config_set({"requirepass": "S3CRET"})
        with kvclient.connect(server.url, username="ann", password="S3CRET") as ann:
            ann.set("k", "v")
    recording.save(tmp_path / "recording")
    assert "S3CRET" not in (tmp_path / "recording").read_text()
    assert [entry.command for entry in recording.entries] == [(b"SET", b"k", b"v")]


def test_it_ends_with_its_block(server: kvserver.Server) -> None:
    with instruments(server).recording() as recording:
        again = instruments(server).recording()
        with pytest.raises(RuntimeError, match="already"):
            again.__enter__()
    with kvclient.connect(server.url) as kv:
        kv.set("k", "v")
    assert not recording.entries
    with instruments(server).recording():
        pass


def test_without_a_movable_clock_it_is_refused() -> None:
    with (
        kvserver.Server(port=0, instruments=Instruments()) as plain,
        pytest.raises(RuntimeError, match="clock_command"),
    ):
        instruments(plain).replay(Recording())


HEADER = '{"kvserver-recording": 1}\n'
GOOD = {"at": 1, "client": 1, "db": 0, "resp": 2, "command": ["GET", "k"], "reply": "$-1\r\n"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1 is not that of a recording"),
        ("[]\n", "line 1 is not that of a recording"),
        ('{"kvserver-recording": 2}\n', "version 2 is not one that can be read"),
        (HEADER + "{}\n", "line 2 is not a command with its reply"),
        (HEADER + json.dumps(GOOD) + "\n" + json.dumps({**GOOD, "resp": 4}) + "\n", "line 3 is not a command"),
        (HEADER + json.dumps({**GOOD, "command": []}) + "\n", "line 2 is not a command"),
        (HEADER + json.dumps({**GOOD, "at": "1"}) + "\n", "line 2 is not a command"),
        (HEADER + json.dumps({**GOOD, "reply": {"base64": "?"}}) + "\n", "line 2 is not a command"),
        ("\udcff", "line 1 is not that of a recording"),
        ("[" * 100_000, "line 1 is not that of a recording"),
        (HEADER + "[" * 100_000, "line 2 is not a command"),
        (HEADER + json.dumps({**GOOD, "reply": 5}) + "\n", "line 2 is not a command"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "file"
    path.write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(RecordingError) as caught:
        Recording.load(path)
    assert said in str(caught.value)
