"""kvserver check, repair and backup, as commands and on what they are for."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis
from journal.conftest import contents
from journal.test_recovery import fill, increment, write
from support import need

import kvserver
from kvserver.cli import main
from kvserver.journal.format import encode_batch

FIRST, SECOND, THIRD = (encode_batch([[b"SET", key, b"1"]]) for key in (b"a", b"b", b"c"))


def test_check_of_good_files(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(data, FIRST + SECOND, base=THIRD)
    assert main(["check", str(data)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("appendonly.aof.1.base.aof: good; 1 batches")
    assert lines[1].startswith("appendonly.aof.1.incr.aof: good; 2 batches")
    assert lines[2] == "All files are good."


def test_check_of_a_tail_that_is_cut_off(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(data, FIRST + SECOND[:-1])
    assert main(["check", str(data)]) == 0
    assert f"cut short at byte {len(FIRST)}" in capsys.readouterr().out
    assert increment(data).stat().st_size == len(FIRST + SECOND) - 1


def test_check_and_repair_of_damage_in_the_middle(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = FIRST + SECOND.replace(b"\n1\r", b"\n2\r") + THIRD
    write(data, damaged)
    assert main(["check", str(data)]) == 1
    assert "DAMAGED" in capsys.readouterr().out
    assert main(["repair", str(data)]) == 0
    told = capsys.readouterr().out
    assert f"{len(SECOND + THIRD)} bytes from there on will be lost" in told
    assert increment(data).read_bytes() == FIRST
    assert increment(data).with_name(increment(data).name + ".before-repair").read_bytes() == damaged
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == {0: {b"a": (b"1", None)}}
    assert main(["repair", str(data)]) == 0
    assert "nothing was changed" in capsys.readouterr().out


def test_repair_forgets_the_files_behind_the_damage(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(data, THIRD, base=FIRST + SECOND[:-1])
    assert main(["repair", str(data)]) == 0
    capsys.readouterr()
    with kvserver.Server(port=0, data_dir=str(data)) as server:
        assert contents(server) == {0: {b"a": (b"1", None)}}


def test_a_base_of_which_nothing_is_left_cannot_be_repaired(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(data, THIRD, base=b"garbage")
    assert main(["repair", str(data)]) == 1
    assert "restore the directory from a backup" in capsys.readouterr().out
    assert increment(data).read_bytes() == THIRD


def test_repair_of_a_directory_in_use_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with kvserver.Server(port=0, data_dir=str(data)):
        assert main(["repair", str(data)]) == 1
        assert "another server uses this directory" in capsys.readouterr().out


@pytest.mark.parametrize("tool", ["check", "repair", "backup"])
def test_where_there_is_nothing(tmp_path: Path, tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(tmp_path / "none")] + ([str(tmp_path / "copy")] if tool == "backup" else [])
    assert main([tool, *words]) == 1
    assert capsys.readouterr().out.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["--help"], ["a", "b", "c"], ["-x"]])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *words]) == (0 if words == ["--help"] else 2)
    assert capsys.readouterr().err.startswith("kvserver check DIR: ")


def test_a_backup_of_a_running_server(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While it is written to and rewritten. Every copy is the data at one moment: a counter and its double agree."""
    stop = threading.Event()
    with kvserver.Server(port=0, data_dir=str(data), fsync="no") as server, redis.Redis(port=server.port) as client:
        fill(client)

        def work() -> None:
            with redis.Redis(port=server.port) as writer:
                while not stop.is_set():
                    with writer.pipeline() as transaction:
                        transaction.incr("one").incrby("two", 2).execute()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for number in range(6):
                if number % 2:
                    with contextlib.suppress(redis.ResponseError):  # the one before is not done yet
                        client.bgrewriteaof()
                assert main(["backup", str(data), str(tmp_path / str(number))]) == 0
        finally:
            stop.set()
            thread.join()
    capsys.readouterr()
    seen = []
    for number in range(6):
        with kvserver.Server(port=0, data_dir=str(tmp_path / str(number))) as server:
            found = contents(server)[0]
            seen.append(int(found.get(b"one", (b"0", None))[0]))
            assert int(found.get(b"two", (b"0", None))[0]) == 2 * seen[-1]
            assert found[b"r"] == (b"\0\0\0\0\0range", None)
    assert seen == sorted(seen)


def test_a_backup_does_not_overwrite(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(data, FIRST)
    (tmp_path / "mine").write_text("mine")
    assert main(["backup", str(data), str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().out
    assert (tmp_path / "mine").read_text() == "mine"


def test_redis_checks_what_was_written_under_load(data: Path) -> None:
    program = need("redis-check-aof")
    with kvserver.Server(port=0, data_dir=str(data)) as server, redis.Redis(port=server.port) as client:
        fill(client)
        client.bgrewriteaof()
        fill(client)
    done = subprocess.run(
        [program, str(data / "appendonlydir" / "appendonly.aof.manifest")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "All AOF files and manifest are valid" in done.stdout


def test_as_commands(data: Path, tmp_path: Path) -> None:
    write(data, FIRST)
    run = [sys.executable, "-m", "kvserver"]
    assert subprocess.run([*run, "check", str(data)], capture_output=True, check=False).returncode == 0
    assert (
        subprocess.run([*run, "backup", str(data), str(tmp_path / "b")], capture_output=True, check=False).returncode
        == 0
    )
    shutil.rmtree(tmp_path / "b")
