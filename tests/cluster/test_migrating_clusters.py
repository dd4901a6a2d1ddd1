"""`kv migrate` with a real cluster at either side: while programs write, while slots move, while a primary dies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from client.migrating import Tool, Writers, assert_equal, content, fill
from cluster.harness import Cluster, real_cluster

import kvclient
import kvserver
from kvclient.cli import main


@pytest.fixture
def single() -> Iterator[kvclient.Client]:
    with kvserver.Server(port=0) as server, kvclient.connect(server.url, timeout=30) as client:
        yield client


def url_of(client: kvclient.Client) -> str:
    return f"redis://{client.options.address}"


def test_there_and_back(cluster: Cluster, single: kvclient.Client, capsys: pytest.CaptureFixture[str]) -> None:
    fill(single, 2000)
    single.set(b"\xff\x00", b"", ttl=1000)
    assert main(["migrate", "--from", url_of(single), "--to", cluster.url, "--verify"]) == 0
    assert "compared 2001 keys: none differ" in capsys.readouterr().err
    with kvclient.connect(cluster.url, timeout=30) as kv:
        before = content(kv)
        assert before == content(single)
        kv.execute("RPUSH", "list", "a")
        assert main(["migrate", "--from", cluster.url, "--to", cluster.url]) == 2
        assert "are the same database of the same server" in capsys.readouterr().err
        single.flushall()
        assert main(["migrate", "--from", cluster.url, "--to", url_of(single), "--verify"]) == 1
        assert "1 keys of type list were not copied (the target has strings only)" in capsys.readouterr().err
        assert content(single) == before


def test_a_database_that_no_cluster_has(
    cluster: Cluster, single: kvclient.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    with kvclient.connect(f"{url_of(single)}/3") as third:
        fill(third, 5)
    assert main(["migrate", "--from", url_of(single), "--to", cluster.url]) == 1
    assert "the target has no database 3: its 5 keys were not copied" in capsys.readouterr().err


@pytest.mark.parametrize("to_cluster", [True, False])
def test_while_programs_write_and_slots_move(cluster: Cluster, single: kvclient.Client, to_cluster: bool) -> None:
    with kvclient.connect(cluster.url, timeout=30) as kv:
        source, target = (single, kv) if to_cluster else (kv, single)
        urls = (url_of(single), cluster.url) if to_cluster else (cluster.url, url_of(single))
        fill(source, 3000)
        with (
            Writers(urls[0], seed=6) as writers,
            Tool("--from", urls[0], "--to", urls[1], "--follow", "--rate", "5000") as tool,
        ):
            for slot in range(0, 16384, 2000):
                cluster.move(slot, cluster.nodes[1])
            tool.see("all is copied")
            for slot in range(1, 16384, 2000):
                cluster.move(slot, cluster.nodes[2])
            writers.write_more(100)
            writers.stop()
            assert tool.stop() == 0, tool.said
        assert_equal(source, target)


def test_a_primary_of_the_source_dies(single: kvclient.Client) -> None:
    with real_cluster() as cluster, kvclient.connect(cluster.url, timeout=30) as source:
        fill(source, 2000)
        with Tool("--from", cluster.url, "--to", url_of(single), "--follow") as tool:
            tool.see("all is copied")
            cluster.nodes[0].kill()
            tool.see("was lost")
            fill(source, 200, 2000)
            source.delete(*(f"still:{number}" for number in range(0, 2000, 50)))
            assert tool.stop() == 0, tool.said
        assert_equal(source, single)


@pytest.mark.slow
def test_a_primary_of_the_target_dies(single: kvclient.Client) -> None:
    with real_cluster() as cluster, kvclient.connect(cluster.url, timeout=30) as target:
        fill(single, 4000)
        with Tool("--from", url_of(single), "--to", cluster.url, "--rate", "2000", "--timeout", "30") as tool:
            while target.dbsize() < 500:
                assert tool.process.poll() is None
            cluster.nodes[0].kill()
            assert tool.wait() == 0, tool.said
        assert "may have forgotten what was stored last: all keys are copied again" in tool.said
        assert_equal(single, target)
