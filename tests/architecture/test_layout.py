"""The layout is a promise: which part may use which, how long things get, and where threads and sockets are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for package in ("kvserver", "kvclient") for path in (ROOT / package).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]

# From a room of kvserver to those it may use. A room is a folder, or a file at the top.
DOORS: dict[str, set[str]] = {
    "__init__": {"build", "config", "extensions", "protocol", "server", "version"},
    "__main__": {"cli"},
    "pytest_plugin": {"config", "server", "testing"},
    "build": set(),
    "cli": {"build", "config", "journal", "observe", "server", "stubs", "systemd", "threads", "version"},
    "extensions": {"commands", "errors", "observe", "protocol", "store"},
    "stubs": {"extensions"},
    "server": {
        "access",
        "clients",
        "commands",
        "config",
        "clock",
        "connection",
        "dispatch",
        "embedded",
        "errors",
        "expirer",
        "extensions",
        "journal",
        "listeners",
        "observe",
        "protocol",
        "session",
        "sockets",
        "state",
        "store",
        "threads",
        "tls",
        "web",
    },
    "web": {
        "access",
        "config",
        "dispatch",
        "listeners",
        "observe",
        "protocol",
        "session",
        "state",
        "threads",
        "version",
    },
    "testing": {"clock", "commands", "dispatch", "errors", "observe", "protocol", "session", "store"},
    "embedded": {"access", "dispatch", "errors", "protocol", "session"},
    "clock": set(),
    "cluster": set(),
    "gateway": {"commands", "config", "edge", "errors", "extensions", "listeners", "observe", "protocol"},
    "edge": {"commands", "protocol", "store"},
    "systemd": {"config"},
    "threads": set(),
    "tls": {"config", "sockets"},
    "listeners": {"config"},
    "connection": {
        "buffers",
        "dispatch",
        "errors",
        "journal",
        "observe",
        "protocol",
        "pushes",
        "runs",
        "session",
        "sockets",
    },
    "runs": {"commands", "dispatch", "observe", "protocol", "session"},
    "dispatch": {"access", "commands", "errors", "observe", "protocol", "session", "store"},
    "commands": {
        "access",
        "clock",
        "cluster",
        "config",
        "errors",
        "observe",
        "protocol",
        "session",
        "store",
        "tracking",
        "version",
    },
    "expirer": {"clock", "observe", "state", "store"},
    "sockets": set(),
    "session": {"protocol"},
    "state": {
        "access",
        "buffers",
        "changes",
        "clients",
        "clock",
        "cluster",
        "config",
        "errors",
        "gateway",
        "journal",
        "monitors",
        "observe",
        "pause",
        "protocol",
        "pubsub",
        "pushes",
        "session",
        "store",
        "tracking",
    },
    "access": {"store"},
    "changes": {"pubsub", "session", "store", "tracking"},
    "tracking": {"clients", "protocol", "pushes", "session"},
    "monitors": {"observe", "protocol", "pushes", "session"},
    "journal": {"observe", "protocol", "store"},
    "pause": set(),
    "pubsub": {"protocol", "pushes", "session", "store"},
    "pushes": {"buffers", "config", "protocol"},
    "buffers": set(),
    "clients": set(),
    "config": set(),
    "errors": {"protocol"},
    "observe": {"access", "session", "version"},
    "protocol": set(),
    "store": set(),
    "version": set(),
}
SOCKET_FILES = {
    "kvserver/cli.py",
    "kvserver/connection.py",
    "kvserver/listeners.py",
    "kvserver/pushes.py",
    "kvserver/sockets.py",
    "kvserver/server.py",
    "kvserver/tls.py",
    "kvserver/systemd.py",
    "kvserver/web/server.py",
    "kvclient/connection.py",
    "kvclient/waiting.py",
}
THREADING_FILES = {
    "kvserver/access/log.py",  # the lock of what was denied
    "kvserver/access/users.py",  # the lock that orders changes of users
    "kvserver/buffers.py",  # the lock of what all connections hold together
    "kvserver/observe/stats.py",  # the lock of counters
    "kvserver/cluster.py",  # the lock of the report
    "kvserver/gateway.py",  # the thread that hears what is published at the backend
    "kvserver/clients.py",  # the lock of the list of connections
    "kvserver/embedded.py",  # a session for each thread of the embedding program
    "kvserver/expirer.py",  # the thread that removes expired keys
    "kvserver/extensions.py",  # whether Ctrl-C was meant for whoever embeds the server
    "kvserver/monitors.py",  # the lock of the list of those who watch
    "kvserver/observe/commandlog.py",  # the lock of a log's entries
    "kvserver/observe/hotkeys.py",  # the lock of what a collection counts
    "kvserver/observe/latency.py",  # the lock of the spikes
    "kvserver/observe/usage.py",  # the lock of what ended connections counted
    "kvserver/pause.py",  # the condition that paused commands wait for
    "kvserver/observe/log.py",  # the lock of what has been logged
    "kvserver/pubsub.py",  # the lock of the subscriptions
    "kvserver/testing/faults.py",  # the lock of the rules, and the event that ends a slow sync
    "kvserver/tracking.py",  # knows whose thread makes a change
    "kvserver/pushes.py",  # the lock of a connection's queue of messages
    "kvserver/server.py",  # the accept thread, and that a server is stopped once
    "kvserver/threads.py",  # the connections' threads
    "kvserver/state.py",  # the locks of settings and counters
    "kvserver/connection.py",  # whose turn it is to send: its own thread's or the journal's
    "kvserver/journal/service.py",  # the thread of a rewrite
    "kvserver/journal/writer.py",  # the journal's thread, and what it shares
    "kvserver/store/expiry.py",  # the event that wakes the thread of expiry
    "kvserver/store/lock.py",  # the keyspace lock with a journal
    "kvserver/store/memory.py",  # the keyspace lock
    "kvclient/cluster/nodes.py",  # the lock of the pools, and the event that ends a pause
    "kvclient/cli/top.py",  # the pause between two looks
    "kvclient/listening.py",  # the event that ends the pause before another connection
    "kvserver/web/sampler.py",  # the thread that takes samples, and who waits for the next
    "kvserver/web/server.py",  # the accept thread of HTTP, and how many pages are watched
    "kvserver/web/site.py",  # the lock of what was refused
    "kvclient/locking.py",  # the thread that keeps a lock
    "kvclient/nearcache.py",  # the thread that hears of changes, and the lock of what is kept
    "kvclient/pool.py",  # the lock of the pool
}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(node: ast.AST) -> Iterator[str]:
    """Modules imported at run time, anywhere in a file; what only a type checker sees is no edge."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (name.name for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            module = child.module or ""
            yield from ([f"{module}.{name.name}" for name in child.names] if module == "kvserver" else [module])
        yield from imports(child)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_edges(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    used = set(imports(tree(path)))
    if parts[0] == "kvclient":
        assert not any(module.split(".")[0] == "kvserver" for module in used)
        return
    if parts[1] not in ("pytest_plugin", "gateway"):  # for tests, it hands out clients; and it is a client itself
        assert not any(module.split(".")[0] == "kvclient" for module in used)
    ours = {room(module) for module in used if module.split(".")[0] == "kvserver"}
    assert ours - {parts[1]} <= DOORS[parts[1]]


def test_the_doors_make_no_circle() -> None:
    left = dict(DOORS)
    while left:
        free = [name for name, doors in left.items() if not doors & left.keys()]
        assert free, f"these depend on each other: {sorted(left)}"
        for name in free:
            del left[name]


def test_every_room_has_its_doors() -> None:
    rooms = {Path(name).parts[1].removesuffix(".py") for name in NAMES if name.startswith("kvserver/")}
    assert rooms == set(DOORS)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_sockets_and_threads_are_where_they_belong(path: Path) -> None:
    name, used = str(path.relative_to(ROOT)), set(imports(tree(path)))
    assert "socket" not in used or name in SOCKET_FILES
    assert "threading" not in used or name in THREADING_FILES
    assert "asyncio" not in used or name.startswith("kvclient/aio/")
    assert not used & {"shlex", "fnmatch"}
    assert "pickle" not in used or name == "kvclient/serializers.py"  # who asks for it is warned
    assert "time.sleep" not in path.read_text(encoding="utf-8")


def daemons(path: Path) -> Iterator[str]:
    """How a file marks threads as daemons, which the interpreter kills at exit, wherever they are."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.keyword) and node.arg == "daemon":
            yield ast.unparse(node.value)
        if isinstance(node, ast.Attribute) and node.attr in {"daemon", "setDaemon", "start_new_thread"}:
            yield ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_thread_is_killed_at_exit(path: Path) -> None:
    """One file knows a reason, and another way to keep the promise: tests/threads/test_connection_threads.py."""
    excused = ["not _LISTED_QUICKLY"] if str(path.relative_to(ROOT)) == "kvserver/threads.py" else []
    assert list(daemons(path)) == excused


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_sizes_and_contracts(path: Path) -> None:
    module = tree(path)
    assert ast.get_docstring(module), "a file says what lives in it"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
