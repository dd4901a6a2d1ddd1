"""Starting on what is there: our own files, those of Redis and Valkey, cut, damaged, foreign, in use, or half made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from journal.conftest import contents
from journal.oracles import SERVERS, await_rewrite, contents_of, started

import kvserver
from kvserver.config import ConfigError
from kvserver.journal.directory import Directory, Manifest, parse_manifest
from kvserver.journal.format import encode_batch, encode_command

Fill = Callable[[redis.Redis], None]


def fill(client: redis.Redis) -> None:
    client.set("a", 1)
    client.set("b", b"\0\r\n\xff", px=10**9)
    client.append("a", "x" * 100)
    client.incrby("n", 5)
    client.execute_command("SETEX", "s", 10**6, "v")
    client.mset({"m1": 1, "m2": 2})
    client.delete("m1")
    client.persist("b")
    client.pexpireat("n", 10**14)
    with client.pipeline() as transaction:
        transaction.setrange("r", 5, "range").setbit("bit", 7, 1).incrbyfloat("f", 0.5).execute()
    with redis.Redis(port=client.connection_pool.connection_kwargs["port"], db=3) as third:
        third.set("third", 3)
        third.copy("third", "copied")
        third.rename("copied", "renamed")
    client.swapdb(3, 4)
    client.getdel("m2")
    client.getex("a", px=10**9)


def increment(data: Path) -> Path:
    return max((data / "appendonlydir").glob("*.incr.aof"))


def write(data: Path, text: bytes, *, base: bytes | None = None) -> None:
    directory = Directory(data)
    directory.open()
    names = [(directory.increment_name(1), 1)]
    (directory.folder / names[0][0]).write_bytes(text)
    if base is not None:
        (directory.folder / directory.base_name(1)).write_bytes(base)
    directory.write_manifest(Manifest((directory.base_name(1), 1) if base is not None else None, tuple(names)))
    directory.close()


def refusal(data: Path) -> str:
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as refused:
        kvserver.Server(port=0, data_dir=str(data)).start()
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
    return str(refused.value)


@pytest.mark.parametrize("name", SERVERS)
def test_it_starts_on_what_the_others_wrote_and_they_on_what_it_wrote_there(name: str, data: Path) -> None:
    """Back and forth on one directory, so that files have parts of both kinds."""
    data.mkdir()
    with started(name, data) as client:
        fill(client)
        wanted = contents_of(client)
    for turn in range(2):
        with kvserver.Server(port=0, data_dir=str(data)) as server, redis.Redis(port=server.port) as client:
            assert contents(server) == wanted
            fill(client)
            client.set(f"turn {turn}", turn)
            wanted = contents(server)
        with started(name, data) as client:
            assert contents_of(client) == wanted
            fill(client)
            if turn:
                client.bgrewriteaof()
                await_rewrite(client)
                client.incr("n")
            wanted = contents_of(client)


def test_a_base_in_rdb_format_is_refused_with_the_way_out(data: Path) -> None:
    data.mkdir()
    with started("valkey-server", data, "--aof-use-rdb-preamble", "yes") as client:
        fill(client)
        client.bgrewriteaof()
        await_rewrite(client)
        wanted = contents_of(client)
    assert "RDB format" in refusal(data)
    with started("valkey-server", data, "--aof-use-rdb-preamble", "no") as client:
        client.bgrewriteaof()
        await_rewrite(client)
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == wanted


def test_a_command_of_another_type_is_refused_by_name(data: Path) -> None:
    write(data, encode_command([b"SET", b"a", b"1"]) + encode_command([b"LPUSH", b"list", b"1"]))
    text = refusal(data)
    assert "LPUSH" in text
    assert "at byte 27" in text


@pytest.mark.parametrize("words", [[b"SHUTDOWN"], [b"CONFIG", b"SET", b"maxclients", b"1"], [b"PUBLISH", b"a", b"b"]])
def test_what_changes_no_data_has_no_place_in_a_journal(data: Path, words: list[bytes]) -> None:
    write(data, encode_batch([words]))
    assert words[0].decode() in refusal(data)


def test_a_command_that_fails_is_refused(data: Path) -> None:
    write(data, encode_batch([[b"SET", b"a", b"text"], [b"INCR", b"a"]]))
    assert "not an integer" in refusal(data)


@pytest.mark.parametrize("cut", [1, 5, 20, 30])
def test_a_tail_that_is_cut_off_is_loaded_without(data: Path, cut: int) -> None:
    first, last = encode_batch([[b"SET", b"a", b"1"]]), encode_batch([[b"SET", b"b", b"2"]])
    write(data, first + last[:-cut])
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == {0: {b"a": (b"1", None)}}
        assert increment(data).stat().st_size == len(first)
        with redis.Redis(port=server.port) as client:
            client.set("c", 3)
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == {0: {b"a": (b"1", None), b"c": (b"3", None)}}


def test_a_cut_in_another_file_than_the_last_is_damage(data: Path) -> None:
    batch = encode_batch([[b"SET", b"a", b"1"]])
    write(data, batch, base=batch[:-1])
    assert "base.aof: at byte 0" in refusal(data)


def test_a_cut_before_an_empty_file_is_a_tail(data: Path) -> None:
    """A rewrite was about to begin: its increment counts already, and nothing has been written to it."""
    batch = encode_batch([[b"SET", b"a", b"1"]])
    write(data, batch + batch[:-1])
    directory = Directory(data)
    directory.open()
    (directory.folder / directory.increment_name(2)).touch()
    directory.write_manifest(Manifest(None, (*directory.manifest.increments, (directory.increment_name(2), 2))))
    directory.close()
    for _ in range(2):
        with kvserver.Server(port=0, data_dir=str(data)) as server:
            assert contents(server) == {0: {b"a": (b"1", None)}}


def test_damage_in_the_middle_is_told_with_file_and_place(data: Path) -> None:
    first, last = encode_batch([[b"SET", b"a", b"1"]]), encode_batch([[b"SET", b"b", b"2"]])
    write(data, first + last.replace(b"2", b"3") + first)
    text = refusal(data)
    assert f"incr.aof: at byte {len(first)}" in text
    assert "checksum" in text
    assert "kvserver repair" in text


def test_another_server_on_the_directory_is_refused(data: Path) -> None:
    with kvserver.Server(port=0, data_dir=str(data)):
        assert "another server uses this directory" in refusal(data)
    with kvserver.Server(port=0, data_dir=str(data)):
        pass


def test_a_missing_manifest_or_file_is_no_fresh_start(data: Path) -> None:
    write(data, encode_batch([[b"SET", b"a", b"1"]]))
    manifest = data / "appendonlydir" / "appendonly.aof.manifest"
    text = manifest.read_text()
    manifest.unlink()
    assert "is missing" in refusal(data)
    manifest.write_text(text)
    increment(data).unlink()
    assert "is missing" in refusal(data)


@pytest.mark.parametrize(
    "text", ["file x", "file ../x seq 1 type b", "file a seq 1 type b\nfile b seq 2 type b", "x" * 300]
)
def test_a_manifest_that_makes_no_sense(data: Path, text: str) -> None:
    write(data, b"")
    (data / "appendonlydir" / "appendonly.aof.manifest").write_text(text)
    assert "manifest: cannot be read" in refusal(data)


def test_a_manifest_reads_as_it_was_written() -> None:
    manifest = Manifest(
        ("appendonly.aof.3.base.aof", 3), (("appendonly.aof.3.incr.aof", 3), ("appendonly.aof.4.incr.aof", 4))
    )
    assert parse_manifest(manifest.text()) == manifest
    with_history = manifest.text() + "file appendonly.aof.1.base.aof seq 1 type h\n# a comment\n\n"
    assert parse_manifest(with_history) == manifest


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--data-dir"):
        kvserver.Server(port=0, data_dir=str(tmp_path / "file")).start()


def test_what_an_interrupted_rewrite_left_is_removed(data: Path) -> None:
    write(data, encode_batch([[b"SET", b"a", b"1"]]))
    folder = data / "appendonlydir"
    strays = [
        folder / "temp_appendonly.aof.2.base.aof",
        folder / "appendonly.aof.2.base.aof",
        folder / "temp_appendonly.aof.manifest",
    ]
    for stray in strays:
        stray.write_bytes(b"half")
    mine = folder / "notes.txt"
    mine.write_text("mine")
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == {0: {b"a": (b"1", None)}}
    assert not any(stray.exists() for stray in strays)
    assert mine.exists()


def test_clients_are_told_while_it_loads(data: Path) -> None:
    """From inside the loading, by its progress: what needs data is refused, INFO tells how far it is."""
    write(data, b"".join(encode_batch([[b"SET", b"%d" % number, b"v"]]) for number in range(2000)))
    seen: list[str] = []
    server = kvserver.Server(port=0, data_dir=str(data))

    def progress(done: int, total: int) -> None:
        if not seen:
            with redis.Redis(port=server.port) as client:
                info = client.info("persistence")
                assert info["loading"] == 1
                assert 0 < info["loading_loaded_bytes"] < info["loading_total_bytes"] == total
                with pytest.raises(redis.exceptions.BusyLoadingError):
                    client.get("1")
                seen.append("told")

    server.start(progress=progress)
    try:
        assert seen == ["told"]
        with redis.Redis(port=server.port) as client:
            assert client.dbsize() == 2000
            assert client.info("persistence")["loading"] == 0
    finally:
        server.stop()


def test_recovery_twice_is_recovery_once(data: Path) -> None:
    with kvserver.Server(port=0, data_dir=str(data)) as server, redis.Redis(port=server.port) as client:
        fill(client)
        wanted = contents(server)
    copy = data.with_name("copy")
    shutil.copytree(data, copy)
    for _ in range(3):
        with kvserver.Server(port=0, data_dir=str(copy)) as server:
            assert contents(server) == wanted
    assert increment(copy).read_bytes() == increment(data).read_bytes()
