"""/metrics, /healthz and /readyz: what Prometheus reads and what supervisors ask."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from web.asking import Answer, Web
from web.conftest import Serve

import kvserver
from kvserver.config import ConfigError
from kvserver.journal import recovery
from kvserver.observe.info import INFO_SECTIONS

DASHBOARD = Path(__file__).parents[2] / "docs" / "operations" / "grafana-dashboard.json"


def samples(answer: Answer) -> dict[tuple[str, str], float]:
    """By name and first label, as the parser of prometheus-client reads them."""
    assert answer.status == 200
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


def test_what_info_tells_by_the_names_of_redis_exporter(web: Web) -> None:
    with redis.Redis(port=web.server.port) as client:
        client.set("a", 1)
        client.set("b", 1, ex=100)
        client.get("a")
        client.get("none")
        with pytest.raises(redis.ResponseError):
            client.incr("a", "x")  # type: ignore[arg-type]
        told = samples(web.get("/metrics"))
        info = client.info()
    assert told["redis_up", ""] == 1
    assert told["redis_connected_clients", ""] == 1
    assert told["redis_commands_total", "get"] == 2
    assert told["redis_commands_total", "set"] == 2
    assert told["redis_commands_failed_calls_total", "incrby"] == 1
    assert told["redis_commands_duration_seconds_total", "set"] > 0
    assert told["redis_errors_total", "ERR"] == info["errorstat_ERR"]["count"]
    assert (told["redis_keyspace_hits_total", ""], told["redis_keyspace_misses_total", ""]) == (1, 1)
    assert (told["redis_db_keys", "db0"], told["redis_db_keys_expiring", "db0"]) == (2, 1)
    assert told["redis_db_keys", "db15"] == 0
    assert told["redis_memory_used_bytes", ""] == info["used_memory"]
    assert told["redis_evicted_keys_total", ""] == told["redis_expired_keys_total", ""] == 0
    assert told["redis_aof_enabled", ""] == told["redis_aof_last_write_status", ""] - 1 == 0
    assert told["kvserver_command_duration_seconds_count", "get"] == 2
    assert told["kvserver_journal_lag_batches", ""] == 0


def test_every_field_of_the_mapping_is_one_of_info() -> None:
    from kvserver.web.metrics import _COUNTERS, _GAUGES

    with kvserver.Server(port=0) as server:
        fields = {name for make in INFO_SECTIONS.values() for name in make(server._state)}
    of_a_data_dir = {name for name in _GAUGES if name.startswith("aof_")}
    assert {*_GAUGES, *_COUNTERS} <= fields | of_a_data_dir


def test_a_histogram_a_command_with_the_same_buckets_always(web: Web) -> None:
    with redis.Redis(port=web.server.port) as client:
        for _ in range(10):
            client.get("a")
    text = web.get("/metrics").text
    of = {
        name: re.findall(rf'kvserver_command_duration_seconds_bucket{{cmd="{name}",le="(.*?)"}} (\S+)', text)
        for name in ("get", "info")
    }
    assert [bound for bound, _ in of["get"]] == [bound for bound, _ in of["info"]] or not of["info"]
    counts = [float(count) for _, count in of["get"]]
    assert len(counts) == 21
    assert counts == sorted(counts)
    assert counts[-1] == 10


def test_the_journals_lag(serve: Serve, tmp_path: Path) -> None:
    web = serve(data_dir=str(tmp_path), fsync="always")
    with redis.Redis(port=web.server.port) as client:
        client.set("a", 1)
    told = samples(web.get("/metrics"))
    assert told["redis_aof_enabled", ""] == 1
    assert told["redis_aof_current_size_bytes", ""] > 0
    assert told["kvserver_journal_lag_batches", ""] == 0


def test_who_prefers_openmetrics_gets_text(web: Web) -> None:
    answer = web.get("/metrics", Accept="application/openmetrics-text; version=1.0.0, text/plain; q=0.5")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert list(text_string_to_metric_families(answer.text))


def test_the_dashboard_asks_for_what_is_there(serve: Serve, tmp_path: Path) -> None:
    web = serve(data_dir=str(tmp_path))
    with redis.Redis(port=web.server.port) as client:
        client.set("a", 1, ex=100)
        client.config_set("slowlog-log-slower-than", 0)
        client.get("a")
        with pytest.raises(redis.ResponseError):
            client.execute_command("NOPE")
    web.get("/nowhere")
    text = web.get("/metrics").text
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 15
    for name in {name for query in queries for name in re.findall(r"\b(?:redis|kvserver)_\w+", query)}:
        assert re.search(rf"^{name}[ {{]", text, re.MULTILINE), name


def test_probes(web: Web) -> None:
    assert (web.get("/healthz").status, web.get("/readyz").status) == (200, 200)
    assert web.ask("HEAD", "/healthz").body == b""
    web.state.refuses_writes = "a test"
    assert (web.get("/healthz").status, web.get("/readyz").status) == (200, 503)
    web.state.refuses_writes = None
    assert web.get("/readyz").status == 200


def test_probes_need_no_password_and_no_name(serve: Serve) -> None:
    web = serve(requirepass="secret")
    assert web.get("/healthz", Host="pod-17.cluster").status == 200
    assert web.get("/readyz", Host="pod-17.cluster").status == 200
    assert web.get("/metrics").status == 401


def test_not_ready_while_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_TOGETHER", 1)
    with kvserver.Server(port=0, data_dir=str(tmp_path)) as server, redis.Redis(port=server.port) as client:
        client.set("k", "v")
        client.set("l", "v")
    seen: list[tuple[int, str, int]] = []
    server = kvserver.Server(port=0, metrics_port=0, data_dir=str(tmp_path))

    def look(_done: int, _total: int) -> None:
        web = Web(server)
        seen.append((web.get("/readyz").status, web.get("/readyz").text, web.get("/healthz").status))

    server.start(progress=look)
    try:
        assert Web(server).get("/readyz").status == 200
    finally:
        server.stop()
    assert seen
    assert set(seen) == {(503, "loading\n", 200)}


def test_not_ready_while_it_stops(serve: Serve) -> None:
    web = serve(debug_command="yes")
    with redis.Redis(port=web.server.port) as client:
        client.ping()
        reached, go_on = threading.Event(), threading.Event()
        finish = web.server._threads.wait

        def wait(seconds: float | None = None) -> bool:
            reached.set()
            go_on.wait(30)
            return finish(seconds)

        web.server._threads.wait = wait  # type: ignore[method-assign]
        stopping = threading.Thread(target=web.server.stop)
        stopping.start()
        assert reached.wait(30)
        answer = web.get("/readyz")
        assert (answer.status, answer.text) == (503, "stopping\n")
        assert web.get("/healthz").status == 200
        go_on.set()
        stopping.join(30)


def test_off_by_default() -> None:
    with kvserver.Server(port=0) as server:
        assert (server.metrics_port, server.metrics_url) == (0, "")
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("kvserver-web")]


def test_what_it_needs_is_imported_only_with_the_flag() -> None:
    code = (
        "import sys, kvserver\nwith kvserver.Server(port=0): pass\n"
        "print({'h11', 'prometheus_client', 'kvserver.web.server'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize("package", ["h11", "prometheus_client"])
def test_without_the_extra_it_says_what_to_install(package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nfrom kvserver import cli\nsys.exit(cli.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "--port", "0", "--metrics-port", "0"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        f"kvserver: --metrics-port: the package {package} is not installed; "
        "pip install 'kvserver[metrics]' does that.\n"
    )


def test_a_port_that_is_taken(web: Web) -> None:
    with pytest.raises(ConfigError, match=r"--metrics-port 0"), kvserver.Server(port=0, metrics_port=web.port):
        pass


def test_an_address_that_is_none() -> None:
    with (
        pytest.raises(ConfigError, match=r"--metrics-host no\.such\.host\.invalid"),
        kvserver.Server(port=0, metrics_port=0, metrics_host="no.such.host.invalid"),
    ):
        pass


def test_nobody_opens_it_to_the_world_without_a_password() -> None:
    with (
        pytest.raises(ConfigError, match=r"--metrics-host 0\.0\.0\.0: anybody"),
        kvserver.Server(port=0, metrics_port=0, metrics_host="0.0.0.0"),
    ):
        pass
    with kvserver.Server(port=0, metrics_port=0, metrics_host="0.0.0.0", requirepass="secret") as server:
        assert Web(server).get("/healthz").status == 200
