"""What users may do while they are connected: changes at once, transactions, subscriptions, scripts, and the log."""

from __future__ import annotations

import pytest
from access.conftest import Connect

import kvserver
from kvserver.commands.known_scripts import TOUCHES_ANY_KEY
from kvserver.observe.redaction import redacted

NOPERM_KEY = b"-NOPERM No permissions to access a key\r\n"


def test_a_change_holds_from_the_next_command_on(connect: Connect) -> None:
    admin = connect("ACL", "SETUSER", "worker", "on", "nopass", "~*", "+get")
    worker = connect("AUTH", "worker", "x")
    assert worker.ask("SET", "k", "v").startswith(b"-NOPERM User worker has no permissions to run the 'set'")
    admin.ask("ACL", "SETUSER", "worker", "+set")
    assert worker.ask("SET", "k", "v") == b"+OK\r\n"
    admin.ask("ACL", "SETUSER", "worker", "-@all")
    assert worker.ask("SET", "k", "v").startswith(b"-NOPERM")
    admin.ask("ACL", "SETUSER", "worker", "off")
    admin.ask("ACL", "SETUSER", "worker", "+get")
    assert worker.ask("GET", "k") == b"$1\r\nv\r\n"  # who is in stays in


def test_the_default_user_can_be_limited(connect: Connect) -> None:
    admin = connect("ACL", "SETUSER", "admin", "on", "nopass", "~*", "&*", "+@all")
    admin.ask("AUTH", "admin", "x")
    anybody = connect()
    admin.ask("ACL", "SETUSER", "default", "-@dangerous")
    assert anybody.ask("KEYS", "*").startswith(b"-NOPERM")
    assert anybody.ask("GET", "k") == b"$-1\r\n"


def test_nobody_pays_for_rules_there_are_not(server: kvserver.Server, connect: Connect) -> None:
    admin = connect("CONFIG", "SET", "requirepass", "x")
    assert not server._state.special
    admin.ask("ACL", "SETUSER", "worker", "on")
    assert server._state.special
    admin.ask("ACL", "DELUSER", "worker")
    assert not server._state.special


def test_subscribers_to_what_is_no_longer_allowed_are_disconnected(connect: Connect) -> None:
    admin = connect("ACL", "SETUSER", "worker", "on", "nopass", "+@all", "&a", "&b*")
    listeners = [connect("AUTH", "worker", "x") for _ in range(3)]
    for listener, words in zip(listeners, (("SUBSCRIBE", "a"), ("PSUBSCRIBE", "b*"), ("SUBSCRIBE", "b1")), strict=True):
        assert listener.ask(*words).startswith(b"*3")
    assert connect("AUTH", "worker", "x").ask("SUBSCRIBE", "c") == b"-NOPERM No permissions to access a channel\r\n"
    admin.ask("ACL", "SETUSER", "worker", "resetchannels", "&a", "&b?")
    assert listeners[1].ends(b"") == b""  # the pattern is not one of those given
    for listener in (listeners[0], listeners[2]):
        assert listener.ask("PING").startswith(b"*2")


def test_a_deleted_user_is_disconnected_also_by_themselves(connect: Connect) -> None:
    admin = connect("ACL", "SETUSER", "worker", "on", "nopass", "~*", "+@all")
    worker, own = connect("AUTH", "worker", "x"), connect("AUTH", "worker", "x")
    admin.ask("ACL", "SETUSER", "second", "on")
    assert own.ask("ACL", "DELUSER", "worker", "nobody", "second") == b":2\r\n"
    assert own.ends(b"") == b""
    assert worker.ends(b"") == b""
    assert admin.ask("ACL", "USERS") == b"*1\r\n$7\r\ndefault\r\n"


def test_scripts_run_only_what_their_user_may(server: kvserver.Server, connect: Connect) -> None:
    release = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"
    (clear,) = TOUCHES_ANY_KEY
    server._state.scripts[b"c" * 40] = clear  # as if SCRIPT LOAD had brought it
    admin = connect("ACL", "SETUSER", "worker", "on", "nopass", "~lock*", "+eval", "+get")
    admin.ask("SET", "lock", "token")
    admin.ask("SET", "other", "token")
    worker = connect("AUTH", "worker", "x")
    denied = b"-NOPERM User worker has no permissions to run the 'del' command\r\n"
    assert worker.ask("EVAL", release, "1", "lock", "token") == denied
    admin.ask("ACL", "SETUSER", "worker", "+del", "+keys")
    assert worker.ask("EVAL", release, "1", "other", "token") == NOPERM_KEY
    assert worker.ask("EVAL", release, "1", "lock", "token") == b":1\r\n"
    admin.ask("SET", "lock*", "x")
    assert worker.ask("EVALSHA", "c" * 40, "1", "lock*").startswith(b"-NOPERM User worker")
    admin.ask("ACL", "SETUSER", "worker", "+evalsha")
    assert worker.ask("EVALSHA", "c" * 40, "1", "lock*") == NOPERM_KEY  # it may reach any key
    admin.ask("ACL", "SETUSER", "worker", "allkeys")
    assert worker.ask("EVALSHA", "c" * 40, "1", "lock*") == b":1\r\n"


def test_keys_of_options_are_looked_at(connect: Connect) -> None:
    connect("ACL", "SETUSER", "worker", "on", "nopass", "~*", "+@all", "db=0")
    worker = connect("AUTH", "worker", "x")
    refused = b"-NOPERM No permissions to access database\r\n"
    for line in (
        "COPY a b REPLACE DB 1",
        "COPY a b DB 0 DB 1",
        "COPY a b db 1 REPLACE",
        "MOVE a 1",
        "SWAPDB 0 1",
        "SELECT 1",
    ):
        assert worker.ask(*line.split()) == refused, line
    assert worker.ask("COPY", "a", "b", "DB", "0") == b":0\r\n"


def test_denials_are_logged_and_counted(connect: Connect) -> None:
    admin = connect("ACL", "SETUSER", "worker", "on", ">right", "~k", "+get", "+multi", "+exec")
    worker = connect("AUTH", "worker", "right")
    for _ in range(3):
        worker.ask("GET", "other")
    worker.ask("SET", "k", "v")
    worker.ask("MULTI")
    worker.ask("GET", "other")
    worker.ask("EXEC")
    connect().ask("AUTH", "worker", "wrong")
    reply = admin.ask("ACL", "LOG").decode()
    objects = [(part.split("\r\n")[1:10:4], part) for part in reply.split("$5\r\ncount\r\n")[1:]]
    assert len(objects) == 4
    assert "wrong" not in reply
    newest = objects[0][1]
    for part in ("auth", "toplevel", "AUTH", "worker", "user=default"):
        assert part in newest
    assert objects[3][1].startswith(":3\r\n")
    assert "multi" in objects[1][1]
    info = admin.ask("INFO", "stats").decode()
    for line in ("acl_access_denied_auth:1", "acl_access_denied_cmd:1", "acl_access_denied_key:4"):
        assert line in info
    admin.ask("CONFIG", "SET", "acllog-max-len", "1")
    worker.ask("GET", "other2")
    assert admin.ask("ACL", "LOG").startswith(b"*1\r\n")
    assert admin.ask("ACL", "LOG", "RESET") == b"+OK\r\n"
    assert admin.ask("ACL", "LOG") == b"*0\r\n"


def test_passwords_are_not_shown_to_those_who_watch() -> None:
    words = [b"ACL", b"SETUSER", b"worker", b">secret", b"<old", b"#1234", b"+get"]
    assert redacted(words) == [b"ACL", b"SETUSER", b"worker", *[b"(redacted)"] * 3, b"+get"]


def test_a_user_of_redis_py(server: kvserver.Server) -> None:
    redis = pytest.importorskip("redis")
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert client.acl_setuser("worker", enabled=True, passwords=["+secret"], categories=["+@read"], keys=["a*"])
        told = client.acl_getuser("worker")
        assert told["flags"] == ["on"]
        assert "worker" in client.acl_users()
        assert client.acl_whoami() == "default"
        assert client.acl_dryrun("worker", "get", "a1") in ("OK", True)
        assert len(client.acl_genpass()) == 64
        assert "read" in client.acl_cat()
        assert client.acl_deluser("worker") == 1
