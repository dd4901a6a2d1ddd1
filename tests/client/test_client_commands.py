"""Every typed command against real servers, in both protocol versions."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Callable

import pytest

import kvclient
from kvclient import BitGet, BitIncrement, BitSet
from kvclient.commands import COMMAND_NAMES, CONNECTION_COMMANDS
from kvclient.commands.to import LcsMatch, LcsMatches
from kvclient.errors import CommandRefusedError, ServerError, UnknownCommandError, WrongTypeError

Client = kvclient.Client


def test_set_and_its_options(kv: Client) -> None:
    assert kv.set("k", "v") is True
    assert kv.set("k", 1, if_absent=True) is False
    assert kv.set("none", 1, if_present=True) is False
    assert kv.set("k", 2, if_equal="v") is True
    assert kv.set("k", 3, if_equal="v") is False
    assert kv.get("k") == b"2"
    assert kv.set_get("k", 4.5) == b"2"
    assert kv.set_get("k", 5, if_absent=True) == b"4.5"
    assert kv.set_get("new", 5, if_absent=True) is None
    assert kv.getset("k", memoryview(b"m")) == b"4.5"
    assert kv.get(b"k") == b"m"
    assert kv.get("missing") is None


@pytest.mark.parametrize("ttl", [100, 100.0, dt.timedelta(seconds=100)])
def test_ttls(kv: Client, ttl: float | dt.timedelta) -> None:
    kv.set("k", 1, ttl=ttl)
    assert 99_000 < kv.pttl("k") <= 100_000
    kv.set("k", 2, keep_ttl=True)
    assert kv.ttl("k") in {99, 100}
    kv.set("k", 3)
    assert kv.ttl("k") == -1
    assert kv.getex("k", ttl=ttl) == b"3"
    assert kv.ttl("k") > 0
    assert kv.getex("k", persist=True) == b"3"
    assert kv.ttl("k") == -1
    assert kv.expire("k", ttl) is True
    assert kv.ttl("k") in {99, 100}
    assert kv.persist("k") is True
    assert kv.persist("k") is False


@pytest.mark.parametrize("make", [int, float, lambda unix: dt.datetime.fromtimestamp(unix, dt.UTC)])
def test_moments(kv: Client, make: Callable[[int], int | float | dt.datetime]) -> None:
    unix = int(time.time()) + 1000
    kv.set("k", 1, expire_at=make(unix))
    assert kv.expiretime("k") == unix
    assert kv.pexpiretime("k") == unix * 1000
    assert kv.expireat("k", make(unix + 5)) is True
    assert kv.expiretime("k") == unix + 5
    assert kv.getex("k", expire_at=make(unix)) == b"1"
    assert kv.expiretime("k") == unix
    assert kv.pexpireat("k", unix * 1000 + 1, if_later=True) is True
    assert kv.pexpireat("k", unix * 1000 + 1, if_later=True) is False


def test_expiry_conditions(kv: Client) -> None:
    kv.set("k", 1)
    assert kv.expire("k", 10, if_expiring=True) is False
    assert kv.expire("k", 10, if_persistent=True) is True
    assert kv.pexpire("k", 5000, if_later=True) is False
    assert kv.pexpire("k", 5000, if_sooner=True) is True
    assert kv.expire("missing", 1) is False
    assert (kv.ttl("missing"), kv.pttl("missing"), kv.expiretime("missing")) == (-2, -2, -2)
    assert kv.expire("k", -1) is True
    assert kv.exists("k") == 0


def test_impossible_options_are_refused_before_anything_is_sent(kv: Client) -> None:
    with pytest.raises(ValueError, match="at most one"):
        kv.set("k", 1, ttl=1, keep_ttl=True)
    with pytest.raises(ValueError, match="time zone"):
        kv.set("k", 1, expire_at=dt.datetime(2030, 1, 1))  # noqa: DTZ001 - the point
    with pytest.raises(TypeError, match="ttl is"):
        kv.set("k", 1, ttl=True)
    with pytest.raises(TypeError, match="bool"):
        kv.set("k", True)
    with pytest.raises(ValueError, match="for ever"):
        kv.wait(1, 0)
    assert kv.get("k") is None


def test_strings(kv: Client) -> None:
    assert kv.append("s", "hello") == 5
    assert kv.strlen("s") == 5
    assert kv.getrange("s", 1, -2) == b"ell"
    assert kv.substr("s", 0, 0) == b"h"
    assert kv.setrange("s", 7, "x") == 8
    assert kv.getdel("s") == b"hello\0\0x"
    assert kv.getdel("s") is None
    assert kv.mset({"a": 1, "b": "é"}) is None
    assert kv.mget("a", b"b", "c") == [b"1", "é".encode(), None]
    assert kv.msetnx({b"a": 1, b"z": 2}) is False
    assert kv.msetnx({"y": 1, "z": 2}) is True
    assert (kv.setnx("y", 1), kv.setnx("x", 1)) == (False, True)
    assert kv.setex("e", 10, "v") is None
    assert kv.psetex("e", 10_000, "v") is None
    assert kv.ttl("e") in {9, 10}


def test_numbers(kv: Client) -> None:
    assert (kv.incr("n"), kv.incrby("n", 10), kv.decr("n"), kv.decrby("n", 5)) == (1, 11, 10, 5)
    assert kv.incrbyfloat("n", 0.5) == 5.5
    with pytest.raises(ServerError, match="not an integer") as raised:
        kv.incr("n")
    assert (raised.value.code, raised.value.applied) == ("ERR", "no")


def test_lcs(kv: Client) -> None:
    kv.mset({"a": "ohmytext", "b": "mynewtext"})
    assert kv.lcs("a", "b") == b"mytext"
    assert kv.lcs_len("a", "b") == 6
    assert kv.lcs_idx("a", "b", min_match_len=4, with_match_len=True) == LcsMatches([LcsMatch((4, 7), (5, 8), 4)], 6)
    assert kv.lcs_idx("a", "b").matches[1] == LcsMatch((2, 3), (0, 1))


def test_keys(kv: Client) -> None:
    kv.mset({"a": 1, "b": 2})
    assert kv.exists("a", "a", "no") == 2
    assert kv.touch("a", "no") == 1
    assert (kv.type("a"), kv.type("no")) == (b"string", b"none")
    assert kv.rename("a", "c") is None
    assert kv.renamenx("c", "b") is False
    assert kv.renamenx("c", "a") is True
    assert kv.copy("a", "b") is False
    assert kv.copy("a", "b", replace=True) is True
    assert kv.copy("a", "a", db=1) is True
    assert kv.move("a", 1) is False
    assert kv.move("b", 1) is True
    assert kv.randomkey() == b"a"
    assert kv.keys() == [b"a"]
    assert kv.keys("x*") == []
    assert kv.dbsize() == 1
    assert kv.swapdb(0, 1) is None
    assert sorted(kv.keys()) == [b"a", b"b"]
    assert kv.unlink("a") == 1
    assert kv.delete("a", "b") == 1
    assert kv.flushdb(asynchronous=True) is None
    assert kv.flushall(asynchronous=False) is None
    assert kv.randomkey() is None
    with pytest.raises(ServerError, match="no such key"):
        kv.rename("a", "b")


def test_object(kv: Client) -> None:
    kv.set("n", 5)
    assert kv.object_encoding("n") == b"int"
    assert kv.object_encoding("missing") is None
    assert kv.object_idletime("missing") is None
    assert kv.object_idletime("n") is not None  # kvserver records use from the first time anyone asks
    kv.get("n")
    assert kv.object_idletime("n") in {0, 1}
    assert (kv.object_refcount("n") or 0) >= 1
    assert "ENCODING" in kv.object_help()
    with pytest.raises(ServerError):
        kv.object_freq("n")


def test_scan(kv: Client) -> None:
    kv.mset({f"k{i}": i for i in range(300)})
    page = kv.scan(count=10)
    assert page.cursor != 0
    assert page.keys
    assert {*kv.scan_iter(count=50)} == {f"k{i}".encode() for i in range(300)}
    assert {*kv.scan_iter(match="k29?")} == {f"k29{i}".encode() for i in range(10)}
    assert list(kv.scan_iter(type="list")) == []


def test_server_commands(kv: Client) -> None:
    assert kv.ping() == b"PONG"
    assert kv.ping("hi") == b"hi"
    assert kv.echo(b"\0\r\n") == b"\0\r\n"
    seconds, micros = kv.time()
    assert abs(seconds - time.time()) < 5
    assert 0 <= micros < 1_000_000
    assert kv.info()["redis_version"]
    assert "used_memory" in kv.info("memory")
    assert kv.lastsave() > 0
    assert kv.role()[0] == b"master"
    assert kv.wait(0, 0.01) == 0
    assert kv.lolwut()
    assert kv.function_flush() is None


def test_client_commands(kv: Client) -> None:
    assert kv.client_id() > 0
    assert kv.client_getname() in {None, b""}
    info = kv.client_info()
    assert int(info["id"]) == kv.client_id()
    assert info["lib-name"] == "kvclient"
    assert info["id"] in {client["id"] for client in kv.client_list()}
    assert [c["id"] for c in kv.client_list(ids=(kv.client_id(),))] == [info["id"]]
    assert kv.client_kill(id=999_999_999) == 0
    assert kv.client_kill(id=kv.client_id(), skip_me=False) == 1
    assert kv.client_id() != int(info["id"])
    assert "KILL" in kv.client_help()


def test_config_commands(kv: Client) -> None:
    assert "maxmemory" in kv.config_get("maxmem*")
    assert kv.config_set({"timeout": 0}) is None
    assert kv.config_resetstat() is None
    assert "RESETSTAT" in kv.config_help()
    with pytest.raises(ServerError):
        kv.config_set({"no-such-setting": 1})


def test_command_commands(kv: Client) -> None:
    assert kv.command_count() == len(kv.command()) <= len(kv.command_list())
    assert b"getrange" in kv.command_list(pattern="getr*")
    get, missing = kv.command_info("get", "nope")
    assert isinstance(get, list)
    assert get[0] == b"get"
    assert missing is None
    assert b"summary" in kv.command_docs("get")[b"get"]  # type: ignore[operator]
    assert kv.command_getkeys("MSET", "a", 1, "b", 2) == [b"a", b"b"]
    ((key, access),) = kv.command_getkeysandflags("GET", "a")  # type: ignore[misc]
    assert (key, set(access)) == (b"a", {b"RO", b"access"})  # type: ignore[arg-type]
    assert "GETKEYS" in kv.command_help()
    assert "FLUSH" in kv.function_help()


def test_users(kv: Client) -> None:
    assert kv.acl_setuser("worker", "on", ">secret", "~jobs:*", "+@read") is None
    assert kv.acl_whoami() == "default"
    assert kv.acl_users() == [b"default", b"worker"]
    assert kv.acl_list()[1].startswith(b"user worker on #")
    user = kv.acl_getuser("worker")
    assert user is not None
    assert user[b"keys"] == b"~jobs:*"
    assert kv.acl_getuser("nobody") is None
    assert kv.acl_dryrun("worker", "GET", "jobs:1") == "OK"
    assert "key" in kv.acl_dryrun("worker", "GET", "other")
    assert b"read" in kv.acl_cat()
    assert b"get" in kv.acl_cat("read")
    assert len(kv.acl_genpass(64)) == 16
    assert isinstance(kv.acl_log(), list)
    assert "SETUSER" in kv.acl_help()
    for call in (kv.acl_save, kv.acl_load):
        with pytest.raises(ServerError, match="ACL file"):
            call()
    assert kv.acl_deluser("worker", "nobody") == 1


def test_what_only_our_server_answers(own_url: str) -> None:
    with kvclient.connect(own_url, timeout=0.5) as kv:
        assert "GET" in kv.help("get").upper()
        assert kv.help()
        assert kv.debug_sleep(0.6) is None  # longer than the timeout, by design
        assert kv.debug_set_active_expire(on=True) is None


def test_execute(kv: Client) -> None:
    assert kv.execute("SET", "k", 1) == b"OK"
    assert kv.execute(b"get", "k") == b"1"
    with pytest.raises(UnknownCommandError):
        kv.execute("NO-SUCH-COMMAND")
    with pytest.raises(ValueError, match="needs a command"):
        kv.execute()


@pytest.mark.parametrize(
    "line",
    [
        "select 1", "HELLO 3", "Reset", "QUIT", "AUTH x", "CLIENT reply off", "CLIENT SETNAME x", "MULTI", "WATCH k",
        "SUBSCRIBE c", "MONITOR", "BLPOP k 0", "XREAD BLOCK 0 STREAMS s 0", "CLIENT TRACKING ON",
    ],
)  # fmt: skip
def test_execute_refuses_what_would_change_a_shared_connection(own_url: str, line: str) -> None:
    with kvclient.connect(own_url) as kv, kv.pipeline() as p:
        for refuse in (kv.execute, p.execute):
            with pytest.raises(CommandRefusedError, match=r"is not for execute\(\): \w"):
                refuse(*line.split())
            with pytest.raises(CommandRefusedError):
                refuse(*map(str.encode, line.split()))


def test_errors_are_of_their_class(valkey_port: int) -> None:
    with kvclient.connect(f"redis://127.0.0.1:{valkey_port}") as kv:
        kv.delete("list")
        kv.execute("RPUSH", "list", "a")
        with pytest.raises(WrongTypeError, match=r"WRONGTYPE .* first"):
            kv.get("list")
        kv.delete("list")


def test_the_names_are_those_of_the_server(valkey_port: int) -> None:
    ours = {"HELP", "DEBUG|SLEEP", "DEBUG|SET-ACTIVE-EXPIRE", "DELEX", "DIGEST", "INCREX"}
    ours |= {name for name in COMMAND_NAMES if name.startswith("KV.")}
    ours |= {f"HOTKEYS|{name}" for name in ("START", "STOP", "GET", "RESET")}
    with kvclient.connect(f"redis://127.0.0.1:{valkey_port}") as kv:
        known = {name.decode().upper() for name in kv.command_list()}
    for name in (COMMAND_NAMES | set(CONNECTION_COMMANDS)) - ours:
        assert name in known
    assert not COMMAND_NAMES & set(CONNECTION_COMMANDS)


@pytest.mark.parametrize("cls", [kvclient.Client, kvclient.Pipeline])
def test_every_method_says_what_it_does_and_which_command_it_is(cls: type) -> None:
    for name in vars(cls):
        doc = getattr(cls, name).__doc__ or ""
        if name[0] != "_" and "Server command" in doc:
            first, _, rest = doc.partition("\n")
            assert first.endswith(".")
            assert re.search("Server commands?: [A-Z]", rest)


def test_bits(kv: Client) -> None:
    assert kv.setbit("k", 7, True) == 0
    assert kv.setbit("k", 7, 1) == 1
    assert (kv.getbit("k", 7), kv.getbit("k", 1000)) == (1, 0)
    kv.set("k", b"\x0f\xff")
    assert (kv.bitcount("k"), kv.bitcount("k", 1, 1), kv.bitcount("k", 0, 5, unit="bit")) == (12, 8, 2)
    assert (kv.bitpos("k", 1), kv.bitpos("k", 0, 1, -1), kv.bitpos("k", 1, 5, -1, unit="bit")) == (4, -1, 5)
    kv.set("other", b"\xf0")
    assert kv.bitop("or", "both", "k", "other") == 2
    assert kv.get("both") == b"\xff\xff"
    assert kv.bitop("not", "none", "both") == 2
    with pytest.raises(ValueError, match="needs an end"):
        kv.bitcount("k", 1, unit="bit")


def test_integers_within_a_value(kv: Client) -> None:
    assert kv.bitfield("k", BitSet("u8", 0, 255), BitGet("u4", 0), BitIncrement("u8", "#0", 1)) == [0, 15, 0]
    assert kv.bitfield("k", BitIncrement("i8", 0, 1000, "sat"), BitSet("u2", 0, 9, "fail")) == [127, None]
    assert kv.bitfield_ro("k", BitGet("i8", 0)) == [127]


def test_conditions_about_the_value(own_kv: Client) -> None:
    kv = own_kv
    assert kv.digest("k") is None
    assert kv.set("k", "a", if_not_equal="a") is True
    assert kv.set("k", "b", if_not_equal="a") is False
    digest = kv.digest("k")
    assert digest is not None
    assert kv.set("k", "b", if_digest=digest) is True
    assert kv.set("k", "c", if_digest=digest) is False
    assert kv.set("k", "c", if_not_digest=digest.decode()) is True
    assert kv.delex("k", if_equal="x") is False
    assert kv.delex("k", if_not_equal="x") is True
    assert kv.delex("k") is False
    with pytest.raises(ValueError, match="at most one"):
        kv.delex("k", if_equal="x", if_digest="y")


def test_deleting_and_setting_at_once(kv: Client) -> None:
    kv.set("k", "a")
    assert (kv.delifeq("k", "b"), kv.delifeq("k", "a")) == (False, True)
    assert kv.msetex({"k": 1, "j": 2}, ttl=100, if_absent=True) is True
    assert kv.msetex({"k": 1, "i": 2}, if_absent=True) is False
    assert kv.msetex({"k": 3}, keep_ttl=True, if_present=True) is True
    assert 0 < kv.ttl("k") <= 100


def test_counting_within_bounds(own_kv: Client) -> None:
    kv = own_kv
    assert kv.increx("k") == (1, 1)
    assert kv.increx("k", 5, at_most=4) == (1, 0)
    assert kv.increx("k", 5, at_most=4, saturate=True, ttl=100, if_persistent=True) == (4, 3)
    assert kv.increx("k", -9, at_least=0) == (4, 0)
    assert 0 < kv.ttl("k") <= 100
    assert kv.increx("k", -1, persist=True) == (3, -1)
    assert kv.ttl("k") == -1


def test_publishing(kv: Client) -> None:
    assert (kv.publish("c", "m"), kv.spublish("c", b"m")) == (0, 0)
    assert (kv.pubsub_channels(), kv.pubsub_channels("c*"), kv.pubsub_numpat()) == ([], [], 0)
    assert kv.pubsub_numsub("c", "d") == {b"c": 0, b"d": 0}
    assert (kv.pubsub_shardchannels(), kv.pubsub_shardchannels("c*"), kv.pubsub_shardnumsub("c")) == ([], [], {b"c": 0})
    assert "CHANNELS" in kv.pubsub_help()
