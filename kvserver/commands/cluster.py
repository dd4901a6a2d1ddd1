"""CLUSTER and its like, for a server that stands for a cluster of one node; and KV.CLUSTER, the report.

Each handler works on the session. What is refused, and noted for the report, is decided in ``slots.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvserver import errors
from kvserver.cluster import SLOTS, Cluster, Trouble, slot_of
from kvserver.commands.arguments import integer
from kvserver.commands.containers import add_help
from kvserver.commands.registry import Flags, Group, Runs, command
from kvserver.protocol.replies import OK, Deferred, Error, Reply, SimpleString, Verbatim
from kvserver.session import Session

_command = partial(command, group=Group.CLUSTER, runs=Runs.ON_SESSION, since="3.0.0")
_about = partial(_command, flags=Flags.LOADING | Flags.STALE)
_MODE = Flags.LOADING | Flags.STALE | Flags.FAST
_BUS = 10_000
"""The port that nodes use among themselves is so much higher. Nobody listens there."""
_EPOCH = 1
_VARYING = ("nondeterministic_output",)


def _cluster(session: Session) -> Cluster:
    """What the server stands for.

    Raises:
        Error: it stands for no cluster.
    """
    cluster = session.state.cluster
    if cluster is None or not cluster.emulated:
        raise Error(errors.NO_CLUSTER)
    return cluster


def _check_enabled(session: Session) -> None:
    _cluster(session)


def _address(session: Session) -> tuple[bytes, int]:
    """Where the client has found this server: host and port. On a Unix socket no host, which means the same again."""
    if session.local_address.startswith("/"):
        return b"", session.state.port
    host, _, port = session.local_address.rpartition(":")
    return (host.strip("[]").encode("ascii"), int(port)) if port.isdigit() else (b"", session.state.port)


@_command("CLUSTER", "subcommand [argument ...]", arity=-2)
def cluster_(_session: Session) -> Reply:
    """Tells about the cluster, by its subcommands."""
    raise AssertionError("a container is never run")


add_help("CLUSTER", group=Group.CLUSTER, since="5.0.0", check=_check_enabled)


@_about("CLUSTER|SLOTS", "", arity=2, tips=_VARYING)
def cluster_slots(session: Session) -> Reply:
    """Returns which node has which slots."""
    cluster = _cluster(session)
    host, port = _address(session)
    return [[0, SLOTS - 1, [host, port, cluster.node_id.encode("ascii"), {}]]]


@_about("CLUSTER|SHARDS", "", arity=2, since="7.0.0", tips=_VARYING)
def cluster_shards(session: Session) -> Reply:
    """Returns which shard has which slots, and its nodes."""
    cluster = _cluster(session)
    host, port = _address(session)
    node: dict[bytes, Reply] = {
        b"id": cluster.node_id.encode("ascii"),
        b"tls-port" if port == session.state.tls_port else b"port": port,
        b"ip": host,
        b"endpoint": host,
        b"role": b"master",
        b"replication-offset": 0,
        b"health": b"online",
    }
    return [{b"slots": [0, SLOTS - 1], b"nodes": [node], b"id": cluster.shard_id.encode("ascii")}]


@_about("CLUSTER|NODES", "", arity=2, tips=_VARYING)
def cluster_nodes(session: Session) -> Verbatim:
    """Returns the cluster's nodes, a line each."""
    cluster = _cluster(session)
    host, port = _address(session)
    return Verbatim(
        b"%b %b:%d@%d myself,master - 0 0 %d connected 0-%d\n"
        % (cluster.node_id.encode("ascii"), host, port, port + _BUS, _EPOCH, SLOTS - 1)
    )


_INFO = {
    "cluster_state": "ok", "cluster_slots_assigned": SLOTS, "cluster_slots_ok": SLOTS, "cluster_slots_pfail": 0,
    "cluster_slots_fail": 0, "cluster_nodes_pfail": 0, "cluster_nodes_fail": 0, "cluster_voting_nodes_pfail": 0,
    "cluster_voting_nodes_fail": 0, "cluster_known_nodes": 1, "cluster_size": 1, "cluster_current_epoch": _EPOCH,
    "cluster_my_epoch": _EPOCH, "cluster_stats_messages_sent": 0, "cluster_stats_messages_received": 0,
    "cluster_stats_bytes_sent": 0, "cluster_stats_bytes_received": 0, "cluster_stats_pubsub_bytes_sent": 0,
    "cluster_stats_pubsub_bytes_received": 0, "cluster_stats_module_bytes_sent": 0,
    "cluster_stats_module_bytes_received": 0, "total_cluster_links_buffer_limit_exceeded": 0,
}  # fmt: skip


@_about("CLUSTER|INFO", "", arity=2, tips=_VARYING)
def cluster_info(session: Session) -> Verbatim:
    """Returns how the cluster is, a line a fact."""
    _check_enabled(session)
    return Verbatim("".join(f"{name}:{value}\r\n" for name, value in _INFO.items()).encode("ascii"))


@_command("CLUSTER|KEYSLOT", "name", arity=3, flags=Flags.STALE, complexity="O(N), N the length of the key")
def cluster_keyslot(_session: Session, key: bytes) -> int:
    """Returns the slot of a key, also where there is no cluster."""
    return slot_of(key)


@_about("CLUSTER|MYID", "", arity=2)
def cluster_myid(session: Session) -> bytes:
    """Returns the node's ID, which it has until it ends."""
    return _cluster(session).node_id.encode("ascii")


@_about("CLUSTER|MYSHARDID", "", arity=2, since="7.2.0", tips=_VARYING)
def cluster_myshardid(session: Session) -> bytes:
    """Returns the shard's ID, which it has until the node ends."""
    return _cluster(session).shard_id.encode("ascii")


@_command("CLUSTER|LINKS", "", arity=2, flags=Flags.STALE, since="7.0.0", tips=_VARYING)
def cluster_links(session: Session) -> Reply:
    """Returns the connections to other nodes, of which there are none."""
    _check_enabled(session)
    return []


@_command("CLUSTER|COUNTKEYSINSLOT", "slot", arity=3, flags=Flags.STALE, complexity="O(N), N keys in the database")
def cluster_countkeysinslot(session: Session, slot: bytes) -> Deferred:
    """Returns how many keys a slot has; other clients are served meanwhile."""
    _check_enabled(session)
    number = integer(slot)
    if not 0 <= number < SLOTS:
        raise Error(errors.BAD_SLOT)
    return _in_slot(session, number, lambda keys: len(keys))


@_command(
    "CLUSTER|GETKEYSINSLOT", "slot count", arity=4, flags=Flags.STALE, complexity="O(N), N keys in the database",
    tips=_VARYING,
)  # fmt: skip
def cluster_getkeysinslot(session: Session, slot: bytes, count: bytes) -> Deferred:
    """Returns some keys of a slot, at most so many; other clients are served meanwhile."""
    _check_enabled(session)
    number, most = integer(slot), integer(count)
    if not 0 <= number < SLOTS or most < 0:
        raise Error(errors.BAD_SLOT_OR_COUNT)
    return _in_slot(session, number, lambda keys: [*keys[:most]])


def _in_slot(session: Session, slot: int, told: Callable[[list[bytes]], Reply]) -> Deferred:
    """What to tell of a slot's keys, which are found out after the lock is released.

    As with KEYS, the lock is held while the table of keys is copied, some 10 ms for a million keys. An index by slot
    would make every write dearer, for two commands that are seldom sent to one node alone.
    """
    keyspace = session.keyspace
    with keyspace.lock:
        if not session.executing:
            keyspace.moment = None
        live = session.database.live_keys()
    return lambda: told([key for key in live() if slot_of(key) == slot])


@_command("READONLY", "", arity=1, flags=_MODE, categories=("connection",))
def readonly(session: Session) -> SimpleString:
    """Allows replicas to serve this connection's reads; there are none, so nothing changes."""
    session.read_only = True
    return OK


@_command("READWRITE", "", arity=1, flags=_MODE, categories=("connection",))
def readwrite(session: Session) -> SimpleString:
    """Ends what READONLY has allowed."""
    session.read_only = False
    return OK


@_command("ASKING", "", arity=1, flags=Flags.FAST, categories=("connection",))
def asking(session: Session) -> SimpleString:
    """Says that the next command was sent here by a node that is giving its slot away; no slot here ever is."""
    _check_enabled(session)
    return OK


# KV.CLUSTER

_report = partial(
    command,
    group=Group.CLUSTER,
    runs=Runs.ON_SESSION,
    arity=2,
    flags=Flags.ADMIN | Flags.NOSCRIPT | Flags.LOADING | Flags.STALE,
)


def _watched_for(session: Session) -> Cluster:
    """What the report is about.

    Raises:
        Error: nothing is noted.
    """
    if session.state.cluster is None:
        raise Error(errors.NO_CLUSTER_REPORT)
    return session.state.cluster


@command("KV.CLUSTER", "subcommand [argument ...]", group=Group.CLUSTER, runs=Runs.ON_SESSION, arity=-2)
def kv_cluster(_session: Session) -> Reply:
    """Tells what of this server's clients would break in a cluster, by its subcommands."""
    raise AssertionError("a container is never run")


add_help("KV.CLUSTER", group=Group.CLUSTER, since="1.0.0")


@_report("KV.CLUSTER|REPORT", "", complexity="O(N), N kinds of trouble, at most 100")
def kv_cluster_report(session: Session) -> Reply:
    """Returns the calls that would break in a cluster: what is wrong with them, how many there were, and an example."""
    troubles, left_out = _watched_for(session).report.troubles()
    return {
        b"mode": session.state.config.cluster_mode.encode("ascii"),
        b"calls": left_out + sum(trouble.calls for trouble in troubles),
        b"left-out": left_out,
        b"troubles": [_told(trouble) for trouble in troubles],
    }


def _told(trouble: Trouble) -> Reply:
    return {
        b"reason": trouble.reason.value.encode("ascii"),
        b"command": trouble.command.encode("ascii"),
        b"calls": trouble.calls,
        b"example": [*trouble.example],
    }


@_report("KV.CLUSTER|RESET", "")
def kv_cluster_reset(session: Session) -> SimpleString:
    """Forgets what was noted."""
    _watched_for(session).report.reset()
    return OK
