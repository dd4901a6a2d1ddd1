"""The key browser's requests: what they show and change, as commands of their user."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from conformance.oracle import Wire
from web.asking import Web, decode, encode
from web.conftest import Serve


def walk(web: Web, **query: str) -> list[bytes]:
    cursor, found = "0", []
    while True:
        fields = "&".join(f"{name}={value}" for name, value in {**query, "cursor": cursor}.items())
        page = web.get(f"/api/keys?{fields}").json()
        found += [decode(key["key"]) for key in page["keys"]]
        cursor = page["cursor"]
        if cursor == "0":
            return found


def test_every_key_once(web: Web) -> None:
    names = {b"key:%d" % number for number in range(3000)} | {bytes(range(256)), b"", b"<b>", "\u00fc".encode()}
    with redis.Redis(port=web.server.port) as client:
        client.mset(dict.fromkeys(names, "x"))
        found = walk(web)
        assert len(found) == len(names)
        assert set(found) == names
        assert set(walk(web, match="key:12*")) == {name for name in names if name.startswith(b"key:12")}
        client.select(3)
        client.set("elsewhere", 1)
    assert walk(web, db="3") == [b"elsewhere"]


def test_a_rare_key_among_many_takes_few_requests(web: Web) -> None:
    with redis.Redis(port=web.server.port) as client:
        client.mset({f"key:{number}": "x" for number in range(20_000)})
        client.set("rare", 1)
    first = web.get("/api/keys?match=rare").json()
    assert first["cursor"] != "0" or [decode(key["key"]) for key in first["keys"]] == [b"rare"]
    assert walk(web, match="rare") == [b"rare"]


def test_long_names_are_cut(web: Web) -> None:
    """A name may be as long as a value; a page of them is sent at once."""
    names = [b"%d" % number + b"n" * 1_000_000 for number in range(8)]
    for name in names:
        web.server.direct("SET", name, "v")
    web.server.direct("SET", "x" * 1024, "v")
    found = web.get("/api/keys")
    assert len(found.body) < 20_000
    keys = found.json()["keys"]
    assert sorted(decode(key["key"]) for key in keys) == sorted([name[:1024] for name in names] + [b"x" * 1024])
    assert sorted(key["length"] for key in keys) == [1024] + [1_000_001] * 8


def test_what_has_changed_meanwhile_is_left_as_it_is(serve: Serve) -> None:
    web = serve(web_writes="yes")
    with redis.Redis(port=web.server.port) as client:
        client.set("k", "v", ex=100)
        assert web.change("set", b"k", b"new", was=b"v").status == 200
        assert 0 < client.ttl("k") <= 100
        for was in (b"v", b""):
            answer = web.change("set", b"k", b"newer", was=was)
            assert (answer.status, answer.text) == (409, "It has changed meanwhile: look again.\n")
        assert client.get("k") == b"new"
        client.delete("k")
        assert web.change("set", b"k", b"back", was=b"new").status == 409
        assert client.get("k") is None
        assert web.change("new", b"k", b"1").status == 200
        assert client.ttl("k") == -1
        assert web.change("new", b"k", b"2", ttl=5000).status == 409
        assert web.change("new", b"other", b"2", ttl=5000).status == 200
        assert 0 < client.pttl("other") <= 5000
        assert web.change("set", b"k", b"2", ttl=-5).status == 400
        assert client.get("k") == b"1"


def test_looking_fills_no_log_of_what_was_denied(serve: Serve) -> None:
    web = serve()
    with redis.Redis(port=web.server.port) as client:
        client.mset({f"b:{number}": "x" for number in range(50)})
        client.execute_command(
            "ACL", "SETUSER", "ann", "on", ">p", "~a:*", "+scan", "+getrange", "+exists", "+pttl", "+strlen"
        )
        listed = web.get("/api/keys", user="ann:p").json()["keys"]
        assert len(listed) == 50
        assert {(key["ttl"], key["size"]) for key in listed} == {(None, None)}
        assert client.execute_command("ACL", "LOG") == []


@pytest.mark.parametrize("value", [b"", b"text", bytes(range(256)), b"<script>alert(1)</script>", b"x" * 200_000])
def test_a_value_as_it_is(web: Web, value: bytes) -> None:
    with redis.Redis(port=web.server.port) as client:
        client.set("k", value, px=50_000)
    shown = web.key(b"k").json()
    assert shown["exists"] is True
    assert decode(shown["value"]) == value[: 64 * 1024]
    assert shown["size"] == len(value)
    assert 0 < shown["ttl"] <= 50_000
    assert shown["memory"] > len(value)


def test_no_such_key(web: Web) -> None:
    assert web.key(b"none").json() == {"exists": False, "value": "", "size": 0, "ttl": -2, "memory": None}


def test_changes(serve: Serve) -> None:
    web = serve(web_writes="yes")
    with redis.Redis(port=web.server.port) as client:
        name, value = b"\x00\xffkey", bytes(range(256))
        assert web.change("set", name, value).json() == {"done": "set"}
        assert client.get(name) == value
        assert web.change("expire", name, ttl=60_000).status == 200
        assert web.change("set", name, b"other").status == 200  # the deadline stays
        assert 0 < client.pttl(name) <= 60_000
        assert web.change("persist", name).status == 200
        assert client.ttl(name) == -1
        assert web.change("set", name, b"third", ttl=5000).status == 200
        assert 0 < client.pttl(name) <= 5000
        assert web.change("delete", name).status == 200
        assert client.dbsize() == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b"1", b'{"action": "flushall", "db": 0, "key": "YQ=="}', b"[" * 100_000,
     b'{"action": "set", "db": 0, "key": "not base64!"}', b'{"action": "set", "db": "x", "key": "YQ=="}',
     b'{"action": "set", "db": 99, "key": "YQ=="}', b'{"action": "delete", "db": "\\ud800", "key": "YQ=="}',
     b'{"action": "expire", "db": 0, "key": "YQ==", "ttl": "x"}',
     b'{"action": "expire", "db": 0, "key": "YQ==", "ttl": 1e999}'],
)  # fmt: skip
def test_changes_that_make_no_sense(serve: Serve, body: bytes) -> None:
    web = serve(web_writes="yes")
    answer = web.ask("POST", "/api/key", body, Content_Type="application/json")
    assert answer.status == 400
    with redis.Redis(port=web.server.port) as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize("query", ["cursor=x", "db=99", "db=x", "cursor=-1", "match", "a=%zz", "&" * 100])
def test_questions_that_make_no_sense(web: Web, query: str) -> None:
    assert web.get(f"/api/keys?{query}").status in (200, 400)


def test_a_change_is_on_disk_before_it_is_told(serve: Serve, tmp_path: Path) -> None:
    web = serve(web_writes="yes", data_dir=str(tmp_path), fsync="always")
    assert web.change("set", b"k", b"kept-on-disk").status == 200
    assert any(b"kept-on-disk" in file.read_bytes() for file in tmp_path.rglob("*.aof"))


def test_a_disk_that_takes_nothing(serve: Serve, tmp_path: Path) -> None:
    web = serve(web_writes="yes", data_dir=str(tmp_path), fsync="everysec")
    web.state.refuses_writes = "a test"
    web.state.mind()
    answer = web.change("set", b"k", b"v")
    assert answer.status == 503
    assert answer.text.startswith("MISCONF")
    assert web.get("/api/keys").status == 200  # reads go on
    web.state.refuses_writes = None
    web.state.mind()


def test_it_is_seen_by_those_who_monitor_and_counted(serve: Serve) -> None:
    web = serve(web_writes="yes")
    with Wire(web.server.port) as monitor, Wire(web.server.port) as other:
        assert monitor.ask("MONITOR") == b"+OK\r\n"
        assert web.change("set", b"k", b"v").status == 200
        other.ask("PING")
        shown = monitor.read()
        assert b'"SET" "k" "v"' in shown
        while b"cmdstat_set:calls=1," not in other.ask("INFO", "commandstats"):
            pass  # it is counted when its connection ends, which is after the answer


def test_looking_at_a_key_is_not_using_it(serve: Serve) -> None:
    web = serve(maxmemory=100_000_000, maxmemory_policy="allkeys-lfu")
    with redis.Redis(port=web.server.port) as client:
        client.set("k", "v")
        before = client.object("freq", "k")
        for _ in range(50):
            web.key(b"k")
        assert client.object("freq", "k") == before


def test_hot_keys_for_a_minute(serve: Serve) -> None:
    web = serve(web_writes="yes")
    assert web.post("/api/hotkeys", {}).status == 200
    assert web.post("/api/hotkeys", {}).status == 400  # somebody counts already
    with redis.Redis(port=web.server.port) as client:
        client.set("hot", "v")
    with web.events() as events:
        extra = next(content for name, content in events if name == "extra")
    assert extra["hot"]["running"] is True
    assert [key["key"] for key in extra["hot"]["time"]] == ["hot"]


def test_encoding_is_what_the_page_uses() -> None:
    assert encode(b"\xfb\xff") == "-_8="
