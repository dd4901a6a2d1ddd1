"""Where kvserver deliberately answers otherwise than Valkey 9.1, and why. Whatever is not in this table is a bug.

``protocol.md`` tells users the same. Each row has an example, which a test runs against both servers, so that a row
whose reason has gone is found out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One deliberate difference."""

    subject: str
    reason: str
    example: bytes
    """A command, as typed into telnet, that shows it."""
    commands: str
    """A regular expression for the commands that it covers, blank-separated and without regard to case."""
    shows_at_once: bool = True
    """Whether the example shows it on a server that has just started."""


DIFFERENCES = (
    Difference(
        "Commands of other types are unknown",
        "kvserver has strings only, and is complete for them.",
        b"LPUSH a b",
        r"(lpush|hset|sadd|zadd|xadd|eval|bgsave|dump|restore)( .*)?",
    ),
    Difference(
        "COMMAND tells about fewer commands, and in other sentences",
        "It tells what is here. What programs go by (arity, flags, keys, categories, arguments) is Valkey's.",
        b"COMMAND COUNT",
        r"command( (count|list|docs|info)( .*)?)?",
    ),
    Difference(
        "HELP of OBJECT, CLIENT, CONFIG, COMMAND, PUBSUB, FUNCTION and CLUSTER says it in other sentences",
        "They are made from the table of commands, as everything about commands is.",
        b"OBJECT HELP",
        r"(object|client|config|command|pubsub|function|cluster) help",
    ),
    Difference(
        "HELLO says `redis`, INFO names this server, neither a Lua module",
        "Libraries keep a client-side cache only with `redis` from 7.4.0 on. redis_version is Valkey's, since clients "
        "switch features on it.",
        b"HELLO",
        r"(hello|info)( .*)?",
    ),
    Difference(
        "MULTI and WATCH inside a transaction are refused in other words, and leave the transaction as it is",
        "So does Redis. Valkey's EXEC then runs nothing.",
        b"MULTI",
        r"multi|watch .*",
        shows_at_once=False,
    ),
    Difference(
        "CONFIG GET shows the n of notify-keyspace-events also beside A",
        "What is shown means what was set. In Redis and Valkey it is lost there.",
        b"CONFIG GET notify-keyspace-events",
        r"config get notify-keyspace-events",
        shows_at_once=False,
    ),
    Difference(
        "CLIENT SETINFO refuses a zero byte",
        "As CLIENT SETNAME does, in Valkey too: such a name would break the line of CLIENT LIST.",
        b'CLIENT SETINFO LIB-NAME "\\x00"',
        r"client setinfo lib-(name|ver) .*\x00.*",
    ),
    Difference(
        "ROLE tells a replication offset of 0",
        "There is no replication, so nothing counts the bytes of it.",
        b"ROLE",
        r"role",
    ),
    Difference(
        "CLIENT LIST and KILL refuse a last ID without a number",
        "Valkey takes it as a filter that no client passes, but only behind another filter.",
        b"CLIENT KILL TYPE pubsub ID",
        r"client (list|kill) .* (not-)?id",
    ),
    Difference(
        "OBJECT ENCODING forgets what a key had before",
        "Around 100 bytes, where embstr ends, Valkey's answer also depends on the name a value had before RENAME, COPY "
        "or MOVE, and on whether the key it was written over had a time to live. Here key and value alone decide.",
        b"OBJECT ENCODING a",
        r"object encoding .*",
        shows_at_once=False,
    ),
    Difference(
        "OBJECT IDLETIME counts from the server's start for a key not used since anyone first asked",
        "Access times are recorded from the first question on; until then reading costs nothing.",
        b"OBJECT IDLETIME a",
        r"object idletime .*",
        shows_at_once=False,
    ),
    Difference(
        "A cursor of SCAN is digits only",
        "Valkey's C library also takes a blank, a sign, or a negative number that wraps round. No server sends such "
        "cursors, so one that comes back is a client's mistake, better told than guessed at.",
        b'SCAN " 0"',
        r"scan ([+\s-].*|\d+\x00.*)",
    ),
    Difference(
        "CONFIG knows fewer settings, and changes fewer while running",
        "A setting that would do nothing here would mislead. Those that tools ask for answer with the one value that "
        "holds here, and can be set to that value.",
        b"CONFIG SET hz 10",
        r"config (get|set) .*",
    ),
    Difference(
        "An error repeats at most 128 bytes of what was sent",
        "Valkey does so for commands and subcommands it does not know. Elsewhere a megabyte sent comes back as an "
        "error.",
        b"EXPIRE a 1 " + b"x" * 129,
        r"p?expire(at)? \S+ \S+ .*\S{129,}.*",
    ),
    Difference(
        "LOLWUT draws something else",
        "The drawing is our own, and so are its parameters.",
        b"LOLWUT VERSION",
        r"lolwut.*",
    ),
    Difference(
        "CLUSTER has no subcommands that change a cluster, or tell about nodes that there are not",
        "`cluster-mode` emulates a cluster of one node.",
        b"CLUSTER MEET 127.0.0.1 1",
        r"cluster (?!slots|shards|nodes|info|keyslot|my|links|countkeysinslot|getkeysinslot|help).*",
    ),
    Difference(
        "MSETEX with keys of several slots is refused in a cluster",
        "As in Redis. Valkey 9.1 does not look at its keys, and sets them at whichever node it reaches, where nobody "
        "finds them.",
        b"MSETEX 2 a 1 b 2",
        r"msetex 2 a 1 b 2",  # tests/cluster/test_emulated.py shows it in a cluster
        shows_at_once=False,
    ),
    Difference(
        "HELP is a command",
        "For people on telnet. In Valkey it is unknown.",
        b"HELP",
        r"help.*",
    ),
)


def covers(words: Sequence[bytes]) -> Difference | None:
    """The difference that a command falls under, if any."""
    text = b" ".join(words).decode("latin-1")
    return next((row for row in DIFFERENCES if re.fullmatch(row.commands, text, re.IGNORECASE | re.DOTALL)), None)
