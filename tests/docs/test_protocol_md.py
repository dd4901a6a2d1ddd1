"""protocol.md: what it shows and says is what a server does."""

from __future__ import annotations

import codecs
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from conformance.differences import DIFFERENCES

import kvserver
from kvserver import errors
from kvserver.config import OPTIONS, Config
from kvserver.protocol.decoder import Limits

_PAGE = (Path(__file__).parents[2] / "protocol.md").read_text(encoding="utf-8")
_WORDS = " ".join(_PAGE.split())
_SESSIONS = re.findall(r"```session\n(.*?)```", _PAGE, re.DOTALL)
_ENTRIES = dict(re.findall(r"^### (\S[A-Z0-9_ -]+)\n\n(.*?)(?=^##|\Z)", _PAGE, re.DOTALL | re.MULTILINE))

# A call of each command that succeeds, and whose reply is not one that the entry says comes in special cases only.
_CALLS = {
    "GET": "GET k", "SET": "SET k v", "SETNX": "SETNX n 1", "SETEX": "SETEX k 9 v", "PSETEX": "PSETEX k 9999 v",
    "GETSET": "GETSET k v", "GETDEL": "GETDEL k", "GETEX": "GETEX k", "MGET": "MGET k n", "MSET": "MSET a 1 b 2",
    "MSETNX": "MSETNX k 1", "STRLEN": "STRLEN k", "APPEND": "APPEND k v", "SETRANGE": "SETRANGE k 1 v",
    "GETRANGE": "GETRANGE k 0 -1", "SUBSTR": "SUBSTR k 0 -1", "INCR": "INCR i", "DECR": "DECR i",
    "INCRBY": "INCRBY i 2", "DECRBY": "DECRBY i 2", "INCRBYFLOAT": "INCRBYFLOAT i 0.5", "LCS": "LCS k k",
    "DEL": "DEL a", "UNLINK": "UNLINK a", "EXISTS": "EXISTS k", "TOUCH": "TOUCH k", "TYPE": "TYPE k",
    "RENAME": "RENAME k k", "RENAMENX": "RENAMENX k i", "COPY": "COPY k c", "MOVE": "MOVE k 1",
    "RANDOMKEY": "RANDOMKEY", "KEYS": "KEYS *", "SCAN": "SCAN 0", "DBSIZE": "DBSIZE", "FLUSHDB": "FLUSHDB",
    "FLUSHALL": "FLUSHALL ASYNC", "SWAPDB": "SWAPDB 1 2", "EXPIRE": "EXPIRE k 9", "PEXPIRE": "PEXPIRE k 9999",
    "EXPIREAT": "EXPIREAT k 99999999999", "PEXPIREAT": "PEXPIREAT k 99999999999999", "TTL": "TTL k", "PTTL": "PTTL k",
    "EXPIRETIME": "EXPIRETIME k", "PEXPIRETIME": "PEXPIRETIME k", "PERSIST": "PERSIST k",
    "OBJECT ENCODING": "OBJECT ENCODING k", "OBJECT FREQ": "OBJECT FREQ k", "OBJECT IDLETIME": "OBJECT IDLETIME k",
    "OBJECT REFCOUNT": "OBJECT REFCOUNT k", "OBJECT HELP": "OBJECT HELP",
    "HELLO": "HELLO", "AUTH": "AUTH default x", "PING": "PING", "ECHO": "ECHO k", "SELECT": "SELECT 1", "QUIT": "QUIT",
    "RESET": "RESET", "HELP": "HELP get", "CLIENT ID": "CLIENT ID", "CLIENT GETNAME": "CLIENT GETNAME",
    "CLIENT SETNAME": "CLIENT SETNAME me", "CLIENT SETINFO": "CLIENT SETINFO LIB-NAME x", "CLIENT INFO": "CLIENT INFO",
    "CLIENT LIST": "CLIENT LIST", "CLIENT KILL": "CLIENT KILL ID 9", "CLIENT REPLY": "CLIENT REPLY ON",
    "CLIENT NO-EVICT": "CLIENT NO-EVICT ON", "CLIENT NO-TOUCH": "CLIENT NO-TOUCH ON", "CLIENT HELP": "CLIENT HELP",
    "INFO": "INFO", "TIME": "TIME", "LASTSAVE": "LASTSAVE", "ROLE": "ROLE", "WAIT": "WAIT 0 0",
    "CONFIG GET": "CONFIG GET port", "CONFIG SET": "CONFIG SET save ''", "CONFIG RESETSTAT": "CONFIG RESETSTAT",
    "CONFIG HELP": "CONFIG HELP", "COMMAND": "COMMAND", "COMMAND COUNT": "COMMAND COUNT",
    "COMMAND LIST": "COMMAND LIST", "COMMAND INFO": "COMMAND INFO get", "COMMAND DOCS": "COMMAND DOCS get",
    "COMMAND GETKEYS": "COMMAND GETKEYS get k", "COMMAND GETKEYSANDFLAGS": "COMMAND GETKEYSANDFLAGS get k",
    "COMMAND HELP": "COMMAND HELP", "LOLWUT": "LOLWUT", "FUNCTION FLUSH": "FUNCTION FLUSH",
    "FUNCTION HELP": "FUNCTION HELP", "DEBUG": "DEBUG SLEEP 0",
    "MSETEX": "MSETEX 1 k v EX 100", "DIGEST": "DIGEST k", "DELEX": "DELEX k", "DELIFEQ": "DELIFEQ k v",
    "INCREX": "INCREX i", "HOTKEYS START": "HOTKEYS START METRICS 1 NET", "HOTKEYS STOP": "HOTKEYS STOP",
    "HOTKEYS RESET": "HOTKEYS RESET", "HOTKEYS GET": "HOTKEYS GET", "WAITAOF": "WAITAOF 0 0 1",
    "MONITOR": "MONITOR", "SLOWLOG GET": "SLOWLOG GET", "SLOWLOG LEN": "SLOWLOG LEN", "SLOWLOG RESET": "SLOWLOG RESET",
    "SLOWLOG HELP": "SLOWLOG HELP", "COMMANDLOG GET": "COMMANDLOG GET 1 slow", "COMMANDLOG LEN": "COMMANDLOG LEN slow",
    "COMMANDLOG RESET": "COMMANDLOG RESET slow", "COMMANDLOG HELP": "COMMANDLOG HELP",
    "LATENCY LATEST": "LATENCY LATEST", "LATENCY HISTORY": "LATENCY HISTORY command", "LATENCY RESET": "LATENCY RESET",
    "LATENCY DOCTOR": "LATENCY DOCTOR", "LATENCY HISTOGRAM": "LATENCY HISTOGRAM", "LATENCY HELP": "LATENCY HELP",
    "MEMORY USAGE": "MEMORY USAGE k", "MEMORY STATS": "MEMORY STATS", "MEMORY DOCTOR": "MEMORY DOCTOR",
    "MEMORY PURGE": "MEMORY PURGE", "MEMORY MALLOC-STATS": "MEMORY MALLOC-STATS", "MEMORY HELP": "MEMORY HELP",
    "SCRIPT EXISTS": "SCRIPT EXISTS x", "SCRIPT FLUSH": "SCRIPT FLUSH", "SCRIPT HELP": "SCRIPT HELP",
    "SCRIPT LOAD": "SCRIPT LOAD \"return redis.call('INCRBY', KEYS[1], ARGV[1])\"",
    "CLIENT PAUSE": "CLIENT PAUSE 0", "CLIENT UNPAUSE": "CLIENT UNPAUSE",
    "CLIENT TRACKING": "CLIENT TRACKING OFF", "CLIENT TRACKINGINFO": "CLIENT TRACKINGINFO",
    "CLIENT CACHING": "CLIENT CACHING YES", "CLIENT GETREDIR": "CLIENT GETREDIR",
    "GETBIT": "GETBIT k 1", "SETBIT": "SETBIT k 1 1", "BITCOUNT": "BITCOUNT k", "BITPOS": "BITPOS k 1",
    "BITOP": "BITOP NOT d k", "BITFIELD": "BITFIELD k GET u8 0", "BITFIELD_RO": "BITFIELD_RO k GET u8 0",
    "MULTI": "MULTI", "EXEC": "EXEC", "DISCARD": "DISCARD", "WATCH": "WATCH k", "UNWATCH": "UNWATCH",
    "SUBSCRIBE": "SUBSCRIBE c", "UNSUBSCRIBE": "UNSUBSCRIBE c", "PSUBSCRIBE": "PSUBSCRIBE c*",
    "PUNSUBSCRIBE": "PUNSUBSCRIBE", "SSUBSCRIBE": "SSUBSCRIBE c", "SUNSUBSCRIBE": "SUNSUBSCRIBE",
    "PUBLISH": "PUBLISH c m",
    "SPUBLISH": "SPUBLISH c m", "PUBSUB CHANNELS": "PUBSUB CHANNELS", "PUBSUB NUMSUB": "PUBSUB NUMSUB c",
    "PUBSUB NUMPAT": "PUBSUB NUMPAT", "PUBSUB SHARDCHANNELS": "PUBSUB SHARDCHANNELS",
    "PUBSUB SHARDNUMSUB": "PUBSUB SHARDNUMSUB c", "PUBSUB HELP": "PUBSUB HELP",
    "ACL CAT": "ACL CAT", "ACL WHOAMI": "ACL WHOAMI", "ACL USERS": "ACL USERS", "ACL LIST": "ACL LIST",
    "ACL GETUSER": "ACL GETUSER default", "ACL SETUSER": "ACL SETUSER u on", "ACL DELUSER": "ACL DELUSER u",
    "ACL DRYRUN": "ACL DRYRUN default GET k", "ACL GENPASS": "ACL GENPASS", "ACL LOG": "ACL LOG",
    "ACL HELP": "ACL HELP",
    "CLUSTER KEYSLOT": "CLUSTER KEYSLOT k", "READONLY": "READONLY", "READWRITE": "READWRITE",
}  # fmt: skip
_BEFORE = {
    "OBJECT FREQ": ["CONFIG SET maxmemory-policy allkeys-lfu"],
    "EXEC": ["MULTI"],
    "DISCARD": ["MULTI"],
    "HOTKEYS STOP": ["HOTKEYS START METRICS 1 NET"],
    "HOTKEYS GET": ["HOTKEYS START METRICS 1 NET"],
    "CLIENT CACHING": ["CLIENT TRACKING ON OPTIN"],
}
# Containers have no reply of their own; CLIENT KILL's first-named reply is that of its old form. What needs a cluster
# is in tests/cluster/test_emulated.py.
_SPECIAL = {
    "ACL",
    "ACL LOAD",
    "ACL SAVE",
    "OBJECT",
    "CLIENT",
    "CONFIG",
    "FUNCTION",
    "PUBSUB",
    "SLOWLOG",
    "COMMANDLOG",
    "LATENCY",
    "MEMORY",
    "SCRIPT",
    "EVAL",
    "EVALSHA",
    "HOTKEYS",
    "ASKING",
    "CLUSTER",
    "CLUSTER COUNTKEYSINSLOT",
    "CLUSTER GETKEYSINSLOT",
    "CLUSTER HELP",
    "CLUSTER INFO",
    "CLUSTER LINKS",
    "CLUSTER MYID",
    "CLUSTER MYSHARDID",
    "CLUSTER NODES",
    "CLUSTER SHARDS",
    "CLUSTER SLOTS",
    "SAVE",
    "BGSAVE",
    "BGREWRITEAOF",
    "SHUTDOWN",
}
_FIRST_BYTE = {
    "simple string": "++", "bulk string": "$$", "integer": "::", "null": "$_", "array": "**", "map": "*%",
    "verbatim string": "$=", "push": "*>",
}  # fmt: skip


@contextmanager
def _connect(server: kvserver.Server) -> Iterator[tuple[socket.socket, BinaryIO]]:
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock, sock.makefile("rb") as replies:
        yield sock, replies


def _bytes(text: str) -> bytes:
    return codecs.decode(text, "unicode_escape").encode("latin-1")


def test_the_sessions_are_true_byte_for_byte(server: kvserver.Server) -> None:
    with _connect(server) as (sock, replies):
        for line in "".join(_SESSIONS).splitlines():
            side, text = line[:3], line[3:]
            if side == "C: ":
                sock.sendall(_bytes(text))
            elif text == "(closed)":
                assert replies.read() == b""
            else:
                assert side == "S: "
                assert replies.read(len(_bytes(text))) == _bytes(text)
    assert len(_SESSIONS) == 6
    assert "(closed)" in _SESSIONS[-1]


@pytest.mark.parametrize("name", _CALLS)
@pytest.mark.parametrize("version", [2, 3])
def test_replies_have_the_type_their_entry_names(server: kvserver.Server, name: str, version: int) -> None:
    (told,) = re.findall(r"^- Reply: (.*)", _ENTRIES[name], re.MULTILINE)
    (kind,) = [kind for kind in _FIRST_BYTE if told.startswith(kind)]
    if name == "CLIENT KILL":
        kind = "integer"  # the old form, with an address, is named first
    if name == "CLIENT GETNAME":
        kind = "null"
    if name == "RESET":
        version = 2
    with _connect(server) as (sock, replies):
        before = ["SET k v", *_BEFORE.get(name, [])]
        sock.sendall(b"HELLO %d\r\n%b\r\n" % (version, "\r\n".join(before).encode()))
        for _ in before:
            while replies.readline() != b"+OK\r\n":
                pass
        sock.sendall(_CALLS[name].encode() + b"\r\n")
        assert replies.read(1).decode() == _FIRST_BYTE[kind][version - 2]


def test_every_entry_says_what_comes_back_and_what_can_go_wrong() -> None:
    assert set(_CALLS) | _SPECIAL == set(_ENTRIES)
    for entry in _ENTRIES.values():
        assert entry.startswith("`")
        assert [line.partition(":")[0] for line in entry.splitlines() if re.match(r"- [A-Z]\w+:", line)] == [
            "- Reply",
            "- Errors",
            "- Complexity",
        ]


def test_every_error_text_is_there() -> None:
    texts = [text for name, text in vars(errors).items() if name.isupper() and isinstance(text, str)]
    assert len(texts) > 20
    assert [text for text in texts if text.removeprefix("ERR ") not in _WORDS] == []


def test_every_fault_of_the_framing_is_there() -> None:
    source = (Path(kvserver.__file__).parent / "protocol" / "decoder.py").read_text(encoding="utf-8")
    faults = re.findall(r'Error\(f?"(.*?)"\)', source)
    assert len(faults) >= 6
    for fault in faults:
        beginning = re.split(r"[{]", fault)[0]
        assert f"-ERR Protocol error: {beginning}" in _WORDS
    for kind in re.findall(r'_(?:line|header)\((?:b".*?", )?"(.*?)"\)', source):
        assert f"-ERR Protocol error: too big {kind}" in _WORDS


def test_the_limits_are_those_of_the_code() -> None:
    limits, config = Limits(), Config()
    assert (limits.line, limits.arguments) == (65_536, 1_048_576)
    assert (limits.bulk, limits.command) == (512 * 1024**2, 1024**3)
    assert (config.max_bulk_length, config.max_command_length) == (limits.bulk, limits.command)
    assert (config.request_timeout, config.write_timeout, config.maxclients) == (60, 60, 10_000)
    assert (config.port, config.databases, config.host) == (6379, 16, ("127.0.0.1", "::1"))
    names = {option.config_name for option in OPTIONS}
    table = _PAGE.partition("\n## Limits\n")[2].partition("\n## ")[0]
    settings = re.findall(r"\| `([a-z-]+)` \|", table)
    assert len(settings) >= 6
    assert set(settings) <= names


def test_every_deliberate_difference_is_there() -> None:
    table = _PAGE.partition("## Deliberate differences")[2].partition("In commands:\n\n| what | why |\n|---|---|\n")[2]
    assert table == "".join(f"| {row.subject} | {row.reason} |\n" for row in DIFFERENCES)


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)", _PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#(.*?)\)", _PAGE)) <= anchors
    for file in re.findall(r"\]\(([^#)]+)\)", _PAGE):
        assert (Path(__file__).parents[2] / file).exists()
