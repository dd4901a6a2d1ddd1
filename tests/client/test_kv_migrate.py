"""`kv migrate`, outside-in: real servers, programs that write, kills, lost connections, what is refused."""

from __future__ import annotations

import contextlib
import json
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from client.migrating import Proxy, Tool, Writers, assert_equal, content, fill
from support import real_valkey

import kvclient
import kvserver
from kvclient.cli import main

Start = Callable[[str], kvclient.Client]
PAIRS = [("kvserver", "valkey"), ("valkey", "kvserver"), ("redis", "valkey"), ("kvserver", "redis")]


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts a server of a kind, empty, and gives a client of it, whose `url` fixtures know as url_of()."""
    with contextlib.ExitStack() as stack:

        def begin(kind: str) -> kvclient.Client:
            if kind == "kvserver":
                url = stack.enter_context(kvserver.Server(port=0)).url
            elif kind == "valkey":
                url = f"redis://127.0.0.1:{stack.enter_context(real_valkey())}"
            else:
                url = f"redis://127.0.0.1:{request.getfixturevalue('redis_port')}"
            client = stack.enter_context(kvclient.connect(url, timeout=30))
            client.flushall()
            return client

        yield begin


def url_of(client: kvclient.Client) -> str:
    return f"redis://{client.options.address}"


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(["migrate", *argv])
    out, err = capsys.readouterr()
    return status, out, err


# ---- all is copied ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "other"), PAIRS)
def test_everything_of_all_databases(start: Start, capsys: pytest.CaptureFixture[str], kind: str, other: str) -> None:
    source, target = start(kind), start(other)
    fill(source, 1200)
    source.set(b"\xff\x00\r\n", b"")
    source.set("", b"\x00\xff")
    source.set("lives", "long", ttl=1000.5)
    with kvclient.connect(f"{url_of(source)}/3") as third:
        third.set("elsewhere", "x")
    status, out, err = run(capsys, "--from", url_of(source), "--to", url_of(target))
    assert (status, out) == (0, "")
    assert err.startswith("kv: copied 1204 keys (")
    assert_equal(source, target)
    with kvclient.connect(f"{url_of(target)}/3") as third:
        assert content(third) == {b"elsewhere": (b"x", -1)}


@pytest.mark.parametrize(("kind", "other"), PAIRS)
def test_while_programs_write(start: Start, kind: str, other: str) -> None:
    source, target = start(kind), start(other)
    fill(source, 3000)
    with (
        Writers(url_of(source), seed=1) as writers,
        Tool("--from", url_of(source), "--to", url_of(target), "--follow") as tool,
    ):
        tool.see("all is copied")
        writers.write_more(200)
        writers.stop()
        assert tool.stop() == 0, tool.said
    assert "stopped: what has changed by now is copied" in tool.said
    assert_equal(source, target)
    assert target.dbsize() > 3000


def test_without_following_it_says_that_programs_still_write(start: Start) -> None:
    source, target = start("kvserver"), start("kvserver")
    fill(source, 100)
    with (
        Writers(url_of(source), seed=2),
        Tool("--from", url_of(source), "--to", url_of(target), "--json") as tool,
    ):
        assert tool.wait() == 0, tool.said
    assert json.loads(tool.out)["still_changing"] > 0


@pytest.mark.parametrize(("kind", "other"), PAIRS)
def test_flushed_while_it_follows(start: Start, kind: str, other: str) -> None:
    source, target = start(kind), start(other)
    fill(source, 1500)
    source.mset({"moved": "x", "elsewhere": "x"})
    with (
        kvclient.connect(f"{url_of(source)}/4") as fourth,
        Tool("--from", url_of(source), "--to", url_of(target), "--follow") as tool,
    ):
        tool.see("all is copied")
        target.set("mine", "new")
        fourth.set("first of its database", "x")
        source.move("moved", 4)
        source.copy("elsewhere", "copied", db=4)
        source.flushdb()
        source.set("after", "x")
        assert tool.stop() == 0, tool.said
    assert set(content(target)) == {b"mine", b"after"}
    with kvclient.connect(f"{url_of(target)}/4") as fourth:
        assert set(content(fourth)) == {b"first of its database", b"moved", b"copied"}


# ---- faults ----------------------------------------------------------------------------------------------------------


def killed_again_and_again(source: kvclient.Client, target: kvclient.Client, path: Path, seed: int, kills: int) -> None:
    chance = random.Random(seed)
    fill(source, 2000)
    with Writers(url_of(source), seed, threads=2) as writers, contextlib.ExitStack() as stack:
        near, far = (stack.enter_context(Proxy(url_of(each))) for each in (source, target))
        argv = ("--from", near.url, "--to", far.url, "--state", str(path / "state"), "--follow")
        for number in range(kills):
            with Tool(*argv) as tool:
                proxy, most = chance.choice(((near, 300_000), (far, 150_000)))
                proxy.after(int(most ** chance.random()), tool.process.kill)
                tool.process.wait(60)
                assert tool.process.returncode == -signal.SIGKILL, tool.process.communicate()
                near.after(0, lambda: None)
                far.after(0, lambda: None)
            fill(source, 50, 2000 + number * 50)
            source.delete(*(f"still:{chance.randrange(2000)}" for _ in range(20)))
        with Tool(*argv) as tool:
            tool.see("all is copied")
            writers.stop()
            assert tool.stop() == 0, tool.said
    assert_equal(source, target)


@pytest.mark.parametrize(("kind", "other"), [("kvserver", "valkey"), ("valkey", "kvserver")])
def test_killed_and_started_again(start: Start, tmp_path: Path, kind: str, other: str) -> None:
    killed_again_and_again(start(kind), start(other), tmp_path, seed=3, kills=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_killed_and_started_again_often(start: Start, tmp_path: Path, seed: int) -> None:
    killed_again_and_again(start(("valkey", "redis")[seed % 2]), start("kvserver"), tmp_path, seed, kills=20)


def kill_connections(server: kvclient.Client, flag: str, *doomed: str) -> None:
    """Kill those of the tool, as soon as there is one with a flag ("t": it is told of changes). Then delete keys."""
    ours: list[dict[str, str]] = []
    while not any(flag in each["flags"] for each in ours):
        ours = [each for each in server.client_list() if each["name"].startswith("kv-migrate-")]
    with server.pipeline() as pipeline:
        for each in ours:
            pipeline.client_kill(id=int(each["id"]))
        for key in doomed:
            pipeline.delete(key)


@pytest.mark.parametrize(("kind", "other"), [("kvserver", "valkey"), ("valkey", "kvserver")])
def test_connections_are_killed(start: Start, kind: str, other: str) -> None:
    source, target = start(kind), start(other)
    fill(source, 3000)
    with (
        Writers(url_of(source), seed=4) as writers,
        Tool("--from", url_of(source), "--to", url_of(target), "--follow") as tool,
    ):
        tool.see("all is copied")
        for number in range(3):
            kill_connections(target, "")
            kill_connections(source, "t", f"still:{number}")
            tool.see("was lost")
            tool.said = ""
        source.delete("still:7")
        writers.stop()
        assert tool.stop() == 0, tool.said
    assert_equal(source, target)


# ---- verifying -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "other"), PAIRS)
def test_both_sides_are_compared(start: Start, capsys: pytest.CaptureFixture[str], kind: str, other: str) -> None:
    source, target = start(kind), start(other)
    fill(source, 700)
    source.set("lives", "x", ttl=1000)
    urls = ("--from", url_of(source), "--to", url_of(target))
    status, _, err = run(capsys, *urls, "--verify")
    assert status == 0
    assert "compared 701 keys: none differ\n" in err
    target.set("still:1", "another")
    target.delete("still:2")
    target.set("extra", "x")
    target.persist("lives")
    status, _, err = run(capsys, *urls, "--verify-only")
    assert status == 1
    assert set(err.splitlines()) == {
        "kv: both sides are compared",
        'kv: another value: "still:1" (database 0)',
        'kv: missing at the target: "still:2" (database 0)',
        'kv: only at the target: "extra" (database 0)',
        'kv: another end of life: "lives" (database 0)',
        "kv: compared 701 keys: 4 differ",
    }
    status, out, _ = run(capsys, *urls, "--verify-only", "--json", "--match", "still:?")
    found = json.loads(out)
    assert (status, found["complete"], found["copied"]) == (1, False, 0)
    assert (found["verified"]["compared"], found["verified"]["different"]) == (10, 2)
    target.set("still:1", "value 1")
    target.set("still:2", "value 2")
    assert run(capsys, *urls, "--verify-only", "--match", "still:?")[0] == 0


def test_compared_while_programs_write(start: Start) -> None:
    source, target = start("kvserver"), start("valkey")
    fill(source, 500)
    urls = ("--from", url_of(source), "--to", url_of(target))
    with Writers(url_of(source), seed=5, threads=1), Tool(*urls, "--verify", "--json") as tool:
        status = tool.wait()
    found = json.loads(tool.out)["verified"]
    assert found["different"] == 0, found
    assert status == (1 if found["unsettled"] else 0)


# ---- other types -----------------------------------------------------------------------------------------------------


def every_type(kv: kvclient.Client) -> None:
    kv.set("string", "x")
    kv.execute("RPUSH", "list", "a", "b")
    kv.execute("HSET", "hash", *range(2000))
    kv.execute("SADD", "set", *(f"member {number}" for number in range(1000)))
    kv.execute("ZADD", "zset", 1, "a", 2, "b")
    kv.execute("XADD", "stream", "*", "field", "value")
    kv.pexpireat("list", 4_000_000_000_000)


def test_other_types_between_servers_that_have_them(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = start("redis"), start("valkey")
    every_type(source)
    urls = ("--from", url_of(source), "--to", url_of(target))
    status, _, err = run(capsys, *urls, "--verify")
    assert status == 0, err
    assert "compared 6 keys: none differ\n" in err
    assert target.execute("LRANGE", "list", 0, -1) == [b"a", b"b"]
    assert target.pexpiretime("list") == 4_000_000_000_000
    target.execute("HSET", "hash", "0", "other")
    target.execute("DEL", "set")
    target.set("set", "x")
    status, _, err = run(capsys, *urls, "--verify-only")
    assert status == 1
    assert 'another value: "hash"' in err
    assert 'of another type: "set"' in err


@pytest.mark.parametrize("other", ["kvserver", "redis"])
def test_other_types_that_cannot_be_there(start: Start, capsys: pytest.CaptureFixture[str], other: str) -> None:
    source, target = start("valkey"), start(other)
    every_type(source)
    for number in range(7):
        source.execute("RPUSH", f"other\x1b:{number}", "a")
    urls = ("--from", url_of(source), "--to", url_of(target))
    status, _, err = run(capsys, *urls)
    assert status == 1
    assert "8 keys of type list were not copied (" in err
    assert "1 keys of type stream were not copied (" in err
    assert "\x1b" not in err
    assert content(target) == {b"string": (b"x", -1)}
    status, out, _ = run(capsys, *urls, "--into-existing", "--json")
    found = json.loads(out)
    assert (status, found["complete"]) == (1, False)
    assert found["not_copied"]["list"]["count"] == 8
    assert len(found["not_copied"]["list"]["examples"]) == 5
