"""scripts/bench.py: it runs, leaves out what is missing, and adds up what it has measured."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from bench_report import chart, ratio, tables  # noqa: E402
from bench_workloads import Sample, durable, every  # noqa: E402

RESULTS = {
    "GET": {
        "kvserver": [Sample(50, 20, 1.5), Sample(90, 30, 2.5), Sample(10, 25, 2.0)],
        "redis-server": [Sample(100, 9, 0.3), Sample(100, 10, 0.2), Sample(100, 8, 0.3)],
    },
    "mixed <&>": {"kvserver": [Sample(300, 12)], "Manager().dict()": [Sample(100, 40)]},
}
SERVERS = ["kvserver", "redis-server", "Manager().dict()"]


def test_medians_stand_with_their_spread() -> None:
    text = tables(RESULTS, SERVERS)
    assert "| GET | 50 (10 to 90) | 100 (100 to 100) |  |" in text
    assert "| GET | 0.50 |  |" in text
    assert "| GET | 25.0 (20.0 to 30.0) | 9.0 (8.0 to 10.0) |  |" in text
    assert "| GET | 2.00 (1.50 to 2.50) | 0.30 (0.20 to 0.30) |  |" in text
    assert "| mixed <&> | 300 |  | 100 |" in text
    assert ratio(RESULTS["mixed <&>"], "kvserver") is None, "there is nothing to compare it with"


def test_what_a_program_in_python_may_have() -> None:
    results = {
        "GET, kvclient, 1 process": {"kvserver": [Sample(40, 1), Sample(30, 1), Sample(60, 1)]},
        "GET, redis-py, 1 process": {"redis-server": [Sample(20, 1)] * 3, "kvserver": [Sample(1, 1)] * 3},
        "GET, manager, 1 process": {"Manager().dict()": [Sample(10, 1), Sample(20, 1), Sample(30, 1)]},
    }
    text = tables(results, SERVERS)
    assert "| GET, 1 process | kvclient on kvserver | redis-py on redis-server | 2.00 |" in text
    assert "| GET, 1 process | kvclient on kvserver | Manager().dict() | 2.00 |" in text
    assert "4 processes |" not in text


def test_the_chart_is_well_formed() -> None:
    drawn = ET.fromstring(chart(RESULTS, SERVERS))
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "GET" in texts
    assert "0.50" in texts
    assert "mixed <&>" not in texts, "it has no ratio"


def test_every_workload_has_a_name_of_its_own() -> None:
    names = [each.name for each in every(1)]
    assert len(set(names)) == len(names)
    assert len(durable(1)) == 2


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "bench.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_a_server_that_there_is_not() -> None:
    answer = bench("--servers", "kvserver,rodis")
    assert answer.returncode == 2
    assert "there is no server 'rodis'" in answer.stderr


@pytest.mark.skipif(shutil.which("redis-benchmark") is None, reason="redis-benchmark is not installed")
def test_one_workload(tmp_path: Path) -> None:
    svg, markdown = tmp_path / "chart.svg", tmp_path / "table.md"
    answer = bench(
        "--quick", "--rounds", "1", "--servers", "kvserver", "--only", "get of 32 b, 1 connection, 16",
        "--svg", str(svg), "--markdown", str(markdown),
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "| GET of 32 B, 1 connection, 16 deep |" in markdown.read_text(encoding="utf-8")
    assert markdown.read_text(encoding="utf-8") == answer.stdout
    ET.parse(svg)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("redis-benchmark") is None, reason="redis-benchmark is not installed")
def test_all_of_it() -> None:
    answer = bench("--quick", "--rounds", "1")
    assert answer.returncode == 0, answer.stderr
    for server in ("kvserver", "redis-server", "valkey-server"):
        assert server in answer.stdout
    assert "Seconds to start" in answer.stdout
