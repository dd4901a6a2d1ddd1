"""redis-benchmark, unmodified: it starts, measures every test of strings, and ends well."""

from __future__ import annotations

import csv
import subprocess

import pytest
from support import need

import kvserver


@pytest.mark.parametrize(
    "options", [[], ["-P", "16"], ["-3"], ["--threads", "2"], ["-r", "1000", "-d", "500"]], ids=" ".join
)
def test_benchmark(server: kvserver.Server, options: list[str]) -> None:
    done = subprocess.run(
        [
            need("redis-benchmark"),
            "-p",
            str(server.port),
            *("-t", "ping,set,get,incr,mset", "-n", "2000", "-c", "10", "--csv"),
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = {row["test"]: float(row["rps"]) for row in csv.DictReader(done.stdout.splitlines())}
    assert set(rows) == {"PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"}
    assert min(rows.values()) > 0


def test_quiet_output(server: kvserver.Server) -> None:
    command = [need("redis-benchmark"), "-p", str(server.port), "-t", "set,get", "-n", "2000", "-c", "10", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "SET: " in done.stdout
    assert "requests per second" in done.stdout
    assert "ERR" not in done.stdout + done.stderr
