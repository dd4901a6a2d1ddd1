"""`kv migrate` when something is wrong: arguments, passwords, full or restarted servers, large keys; and following."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from authorities import Authority, Identity
from client.migrating import Proxy, Tool, assert_equal, content, fill
from clients.terminal import Terminal

import kvclient
import kvserver
from kvclient.cli import main
from kvserver.testing import Faults, Instruments

Two = tuple[kvserver.Server, kvserver.Server]


@pytest.fixture
def two() -> Iterator[Two]:
    with kvserver.Server(port=0) as one, kvserver.Server(port=0) as other:
        yield one, other


@pytest.fixture
def clients(two: Two) -> Iterator[tuple[kvclient.Client, kvclient.Client]]:
    with kvclient.connect(two[0].url, timeout=30) as one, kvclient.connect(two[1].url, timeout=30) as other:
        yield one, other


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(["migrate", *argv])
    out, err = capsys.readouterr()
    return status, out, err


def urls(two: Two) -> tuple[str, ...]:
    return ("--from", two[0].url, "--to", two[1].url)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_bad_arguments(two: Two, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    one, other = two
    for argv, text in (
        (("--from", one.url, "--to", one.url), "are the same database of the same server"),
        (("--from", one.url, "--to", f"{other.url}/3"), "--to names a database and --from does not"),
        (("--from", f"{one.url}/2", "--to", other.url, "--db", "3"), "are not the same, or it is negative"),
        (("--from", one.url, "--to", other.url, "--db", "-1"), "are not the same, or it is negative"),
        (("--from", one.url, "--to", other.url, "--rate", "0"), "--rate is not a positive number"),
        (("--from", one.url, "--to", other.url, "--timeout", "nan"), "--timeout is not a positive number"),
        (("--from", "nonsense", "--to", other.url), "bad URL"),
        (("--from", one.url, "--to", "redis://127.0.0.1:1"), "cannot connect to 127.0.0.1:1"),
        (("--from", one.url, "--to", other.url, "--state", str(tmp_path)), "cannot read"),
        (("--from", one.url, "--to", other.url, "--state", str(tmp_path / "a" / "b")), "cannot open"),
    ):
        status, out, err = run(capsys, *argv)
        assert (status, out) == (2, ""), argv
        assert text in err
        assert err.count("\n") == 1


def test_a_full_target_is_refused(
    two: Two, clients: tuple[kvclient.Client, kvclient.Client], capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = clients
    source.set("a", "1")
    target.set("b", "2")
    status, _, err = run(capsys, *urls(two))
    assert (status, err) == (2, f"kv: {target.options.address} is not empty (1 keys): empty it, or add --into-existing "
                                "to copy into it\n")  # fmt: skip
    assert run(capsys, *urls(two), "--db", "1")[0] == 0
    assert run(capsys, *urls(two), "--into-existing")[0] == 0
    assert content(target) == {b"a": (b"1", -1), b"b": (b"2", -1)}


def test_passwords(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with kvserver.Server(port=0, requirepass="s3cret") as one, kvserver.Server(port=0, requirepass="0ther") as other:
        source, target = f"redis://:s3cret@127.0.0.1:{one.port}", f"redis://:0ther@127.0.0.1:{other.port}"
        with kvclient.connect(source) as kv:
            kv.set("a", "1")
        for wrong in (
            ("--from", f"redis://:x@127.0.0.1:{one.port}", "--to", target),
            ("--from", source, "--to", other.url),
        ):
            status, _, err = run(capsys, *wrong)
            assert status == 2
            assert "check the user and password in the URL" in err
            assert err.count("\n") == 1
        state = tmp_path / "state"
        assert run(capsys, "--from", source, "--to", target, "--state", str(state))[0] == 0
    for file in tmp_path.iterdir():
        assert b"s3cret" not in file.read_bytes()
        assert b"0ther" not in file.read_bytes()


def test_a_state_file_of_others(two: Two, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert run(capsys, *urls(two), "--state", str(path))[0] == 0
    status, _, err = run(capsys, "--from", two[1].url, "--to", two[0].url, "--state", str(path))
    assert status == 2
    assert err.startswith("kv: this state file is of another migration (from: ")
    assert err.count("\n") == 1
    status, _, err = run(capsys, *urls(two), "--state", str(path), "--match", "a*")
    assert "(pattern: all, and not a*)" in err
    (tmp_path / "state.keys").unlink()
    status, _, err = run(capsys, *urls(two), "--state", str(path))
    assert status == 2
    assert "state.keys, which belongs to" in err
    path.write_text("nonsense")
    assert run(capsys, *urls(two), "--state", str(path))[0] == 2


# ---- one database, a pattern, a rate, only to see --------------------------------------------------------------------


def test_one_database_to_another(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    with kvclient.connect(f"{two[0].url}/2") as kv:
        fill(kv, 10)
    with kvclient.connect(two[0].url) as kv:
        kv.set("not", "this")
    assert run(capsys, "--from", f"{two[0].url}/2", "--to", f"{two[0].url}/5")[0] == 0
    assert run(capsys, "--from", f"{two[0].url}/2", "--to", two[1].url)[0] == 0
    for url in (f"{two[0].url}/5", f"{two[1].url}/2"):
        with kvclient.connect(url) as kv:
            assert len(content(kv)) == 10
    with kvclient.connect(two[1].url) as kv:
        assert kv.dbsize() == 0


def test_a_database_that_the_target_has_not(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    with kvserver.Server(port=0, databases=2) as small, kvclient.connect(f"{two[0].url}/7") as kv:
        fill(kv, 3)
        status, _, err = run(capsys, "--from", two[0].url, "--to", small.url)
    assert status == 1
    assert "the target has no database 7: its 3 keys were not copied" in err


def test_a_pattern(
    two: Two, clients: tuple[kvclient.Client, kvclient.Client], capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = clients
    source.mset({"user:1": "a", "other": "b"})
    with Tool(*urls(two), "--match", "user:*", "--follow") as tool:
        tool.see("all is copied")
        source.mset({"user:2": "a", "other2": "b"})
        assert tool.stop() == 0
    assert sorted(target) == [b"user:1", b"user:2"]


def test_only_to_see(
    two: Two, clients: tuple[kvclient.Client, kvclient.Client], capsys: pytest.CaptureFixture[str]
) -> None:
    fill(clients[0], 10)
    status, out, _ = run(capsys, *urls(two), "--dry-run", "--json", "--verify", "--follow")
    found = json.loads(out)
    assert (status, found["dry_run"], found["copied"], found["bytes"]) == (0, True, 10, 70)
    assert run(capsys, *urls(two), "--dry-run")[2].startswith("kv: would copy 10 keys (70 bytes)")
    assert clients[1].dbsize() == 0


def test_a_rate(two: Two, clients: tuple[kvclient.Client, kvclient.Client], capsys: pytest.CaptureFixture[str]) -> None:
    fill(clients[0], 50)
    status, out, _ = run(capsys, *urls(two), "--rate", "100", "--json")
    assert status == 0
    assert json.loads(out)["seconds"] > 0.3


# ---- following -------------------------------------------------------------------------------------------------------


def until(tool: Tool, true: Callable[[], bool]) -> None:
    """Wait until something that the tool does has been done; each look is a question to a server."""
    while not true():
        assert tool.process.poll() is None, tool.wait()


def test_the_target_is_not_overwritten_by_old_values(
    two: Two, clients: tuple[kvclient.Client, kvclient.Client]
) -> None:
    """Not even when all is walked again, since the connection was lost, or since it was started again."""
    source, target = clients
    source.mset({"mine": "old", "theirs": "old", "gone": "old", "longer": "old"})
    source.pexpire("longer", 1500)
    with Tool(*urls(two), "--follow") as tool:
        tool.see("all is copied")
        target.set("mine", "new")  # a program that was switched over
        target.set("fresh", "new")
        target.delete("gone")
        target.persist("longer")
        source.set("theirs", "newer")
        until(tool, lambda: target.get("theirs") == b"newer")
        source.client_kill(type="normal", skip_me=True)
        tool.see("all keys are walked again")
        until(tool, lambda: source.exists("longer") == 0)
        source.set("theirs", "newest")
        until(tool, lambda: target.get("theirs") == b"newest")
        assert tool.stop(signal.SIGINT) == 0, tool.said
    assert {key: value for key, (value, _) in content(target).items()} == {
        b"mine": b"new", b"fresh": b"new", b"theirs": b"newest", b"longer": b"old",
    }  # fmt: skip


def test_following_through_restarts_of_the_tool(
    two: Two, clients: tuple[kvclient.Client, kvclient.Client], tmp_path: Path
) -> None:
    source, target = clients
    source.mset({"mine": "old", "deleted": "old", "changed": "old"})
    argv = (*urls(two), "--follow", "--state", str(tmp_path / "state"))
    with Tool(*argv) as tool:
        tool.see("all is copied")
        tool.kill()
    target.set("mine", "new")
    target.set("fresh", "new")
    source.delete("deleted")
    source.set("changed", "new")
    with Tool(*argv) as tool:
        tool.see("all is copied")
        with Tool(*argv) as other:
            assert other.wait() == 2
            assert "another process uses it" in other.said
        assert tool.stop() == 0, tool.said
    assert {key: value for key, (value, _) in content(target).items()} == {
        b"mine": b"new", b"fresh": b"new", b"changed": b"new",
    }  # fmt: skip


def test_stopped_before_all_is_copied(
    two: Two, clients: tuple[kvclient.Client, kvclient.Client], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = clients
    fill(source, 100)
    argv = (*urls(two), "--state", str(tmp_path / "state"))
    with Tool(*argv, "--rate", "10") as tool:
        until(tool, lambda: target.dbsize() > 5)
        assert tool.stop(signal.SIGINT) == 130
        assert tool.said.endswith(f"start it again with --state {tmp_path / 'state'}\n")
    assert run(capsys, *argv)[0] == 0
    assert_equal(source, target)


# ---- servers that fail -----------------------------------------------------------------------------------------------


def test_a_target_that_is_full(two: Two, clients: tuple[kvclient.Client, kvclient.Client], tmp_path: Path) -> None:
    source, target = clients
    fill(source, 2000)
    target.config_set({"maxmemory": "1"})
    argv = (*urls(two), "--state", str(tmp_path / "state"))
    with Tool(*argv, "--timeout", "0.5") as tool:
        assert tool.wait() == 2
        assert "gave up after 0.5 seconds: the target" in tool.said
        assert "OOM" in tool.said
        assert f"go on later with --state {tmp_path / 'state'}" in tool.said
    with Tool(*argv) as tool:
        tool.see("trying again for 60 seconds")
        target.config_set({"maxmemory": "0"})
        assert tool.wait() == 0, tool.said
    assert_equal(source, target)


@pytest.mark.parametrize("which", ["source", "target"])
def test_a_server_that_is_started_again(which: str, tmp_path: Path) -> None:
    """The source keeps its data; the target has forgotten all, and gets all again."""
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                kvserver.Server(port=0, data_dir=str(tmp_path / name) if name == "source" else "")
            )
            for name in ("source", "target")
        }
        argv = ("--from", servers["source"].url, "--to", servers["target"].url, "--rate", "2000")
        with kvclient.connect(servers["source"].url, timeout=30) as source:
            fill(source, 3000)
            with kvclient.connect(servers["target"].url, timeout=30) as target, Tool(*argv) as tool:
                until(tool, lambda: target.dbsize() > 500)
                port = servers[which].port
                servers[which].stop()
                data = str(tmp_path / which) if which == "source" else ""
                stack.enter_context(kvserver.Server(port=port, data_dir=data))
                assert tool.wait() == 0, tool.said
                assert ("was lost" if which == "source" else "was started anew") in tool.said
                assert_equal(source, target)


def test_a_server_that_stays_away(two: Two, clients: tuple[kvclient.Client, kvclient.Client]) -> None:
    fill(clients[0], 3000)
    with Tool(*urls(two), "--rate", "1000", "--timeout", "0.5") as tool:
        until(tool, lambda: clients[1].dbsize() > 100)
        two[1].stop()
        assert tool.wait() == 2
    assert "gave up after 0.5 seconds: the target" in tool.said
    assert "Traceback" not in tool.said


def test_what_was_sent_and_arrives_late_overwrites_nothing(
    two: Two, clients: tuple[kvclient.Client, kvclient.Client]
) -> None:
    """The network keeps a connection's bytes for a while, and the key is copied again over another one meanwhile."""
    source, target = clients
    source.set("key", "the old value")
    with Proxy(two[1].url) as proxy:
        proxy.hold(b"the old value")
        with Tool("--from", two[0].url, "--to", proxy.url, "--follow", "--timeout", "4") as tool:
            assert proxy.holds.wait(30)
            source.set("key", "the new value")
            tool.see("all is copied")
            proxy.release()
            assert target.get("key") == b"the new value"
            assert tool.stop() == 0, tool.said


# ---- keys of all sizes -----------------------------------------------------------------------------------------------


@pytest.mark.untraced
def test_large_values(two: Two, clients: tuple[kvclient.Client, kvclient.Client]) -> None:
    """100 MB in one key, and 100 MB in keys of 1 MB: memory is bounded by the one."""
    source, target = clients
    source.set("large", b"\x00" * 100_000_000)
    for number in range(100):
        source.set(f"middle:{number}", b"%d" % number * 500_000)
    source.set("empty", b"")
    with Tool(*urls(two), "--verify") as tool:
        peak = peak_memory(tool)
        assert tool.wait() == 0, tool.said
    assert target.strlen("large") == 100_000_000
    assert target.get("middle:7") == b"7" * 500_000
    assert target.get("empty") == b""
    assert peak < 400_000


def peak_memory(tool: Tool) -> int:
    """The most KiB that were resident until it ended. What rusage says also counts who started it, and others."""
    peak = 0
    status = Path(f"/proc/{tool.process.pid}/status")
    while tool.process.poll() is None and status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii", errors="replace"))
        peak = max(peak, int(found[1]) if found else 0)  # it has none between its end and our asking
        time.sleep(0.005)
    return peak


def test_keys_that_end_meanwhile(two: Two, clients: tuple[kvclient.Client, kvclient.Client]) -> None:
    source, target = clients
    with source.pipeline() as pipeline:
        for number in range(2000):
            pipeline.set(f"short:{number}", "x", ttl=0.001 * (number + 1))
    with Tool(*urls(two), "--follow") as tool:
        tool.see("all is copied")
        until(tool, lambda: source.dbsize() == 0)
        assert tool.stop() == 0
    assert target.dbsize() == 0


def test_the_bar_is_for_terminals(two: Two, clients: tuple[kvclient.Client, kvclient.Client]) -> None:
    fill(clients[0], 3000)
    with Terminal([sys.executable, "-m", "kvclient", "migrate", *urls(two), "--rate", "4000"]) as terminal:
        terminal.see("changes waiting")
        terminal.see("copied 3000 keys")
        assert terminal.exit_status() == 0


# ---- servers that are different --------------------------------------------------------------------------------------


@pytest.fixture
def faulty() -> Iterator[tuple[kvserver.Server, Faults]]:
    with kvserver.Server(port=0, instruments=Instruments()) as server:
        assert server.instruments is not None
        yield server, server.instruments.faults
        server.instruments.faults.clear()


def test_a_source_that_tells_no_deadlines(
    faulty: tuple[kvserver.Server, Faults], two: Two, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As Redis before 7: it says how long a key lives, and what time it is."""
    server, faults = faulty
    faults.refuse("PEXPIRETIME", error="ERR unknown command 'PEXPIRETIME'", times=None)
    argv = ("--from", server.url, "--to", two[1].url, "--state", str(tmp_path / "state"), "--json")
    with kvclient.connect(server.url) as source, kvclient.connect(two[1].url) as target:
        source.set("lives", "x", ttl=1000)
        source.set("stays", "x")
        status, out, _ = run(capsys, *argv, "--verify")
        assert (status, json.loads(out)["copied"]) == (0, 2)
        assert abs(target.pttl("lives") - source.pttl("lives")) < 1000
        assert target.pttl("stays") == -1
        status, out, _ = run(capsys, *argv)
        assert (status, json.loads(out)["copied"], json.loads(out)["unchanged"]) == (0, 0, 2)


@pytest.mark.parametrize("command", ["SET", "DEL"])
def test_connections_that_end_in_the_middle(
    faulty: tuple[kvserver.Server, Faults], two: Two, clients: tuple[kvclient.Client, kvclient.Client], command: str
) -> None:
    server, faults = faulty
    fill(clients[0], 1500)
    with kvclient.connect(server.url) as target, Tool("--from", two[0].url, "--to", server.url, "--follow") as tool:
        if command == "SET":
            faults.drop("SET", applied=True, times=3)
        tool.see("all is copied")
        if command == "DEL":
            faults.drop("DEL", applied=True, times=3)
        clients[0].delete(*(f"still:{number}" for number in range(0, 1500, 7)))
        assert tool.stop() == 0, tool.said
        assert "trying again" in tool.said
        assert_equal(clients[0], target)


def test_a_user_who_may_not(two: Two, clients: tuple[kvclient.Client, kvclient.Client]) -> None:
    source, target = clients
    fill(source, 10)
    target.execute("ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all", "-set")
    to = f"redis://ann:pw@{target.options.address}"
    with Tool("--from", two[0].url, "--to", to) as tool:
        assert tool.wait() == 2
    assert tool.said.count("\n") == 1
    assert "NOPERM" in tool.said


@pytest.mark.parametrize("side", ["source", "target"])
def test_over_tls(
    authority: Authority, identity: Identity, two: Two, clients: tuple[kvclient.Client, kvclient.Client], side: str
) -> None:
    with kvserver.Server(port=None, tls_port=0, tls_cert=identity.cert, tls_key=identity.key) as server:
        url = f"rediss://127.0.0.1:{server.tls_port}?tls_ca={authority.file}"
        with kvclient.connect(url, timeout=30) as kv:
            source, target = (kv, clients[1]) if side == "source" else (clients[0], kv)
            argv = ("--from", url, "--to", two[1].url) if side == "source" else ("--from", two[0].url, "--to", url)
            fill(source, 2000)
            with Tool(*argv, "--follow") as tool:
                tool.see("all is copied")
                fill(source, 3000, 1000)
                source.delete("still:7")
                assert tool.stop() == 0, tool.said
            assert_equal(source, target)


@pytest.mark.slow
def test_many_keys(two: Two, clients: tuple[kvclient.Client, kvclient.Client]) -> None:
    fill(clients[0], 100_000)
    with Tool(*urls(two), "--verify", "--json") as tool:
        assert tool.wait() == 0, tool.said
    found = json.loads(tool.out)
    assert (found["copied"], found["verified"]["compared"]) == (100_000, 100_000)
