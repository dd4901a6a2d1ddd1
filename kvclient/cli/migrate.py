"""`kv migrate`: the keys of one server to another, while programs go on writing.

Here: arguments, signals, and what is shown. Not here: the migration itself (migration/).
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from kvclient.cli.arguments import Form
from kvclient.cli.display import complain, json_line, text_or_base64
from kvclient.cli.progress import Gauge
from kvclient.cli.session import Problem
from kvclient.migration.ledger import LedgerError
from kvclient.migration.migrating import Migration
from kvclient.migration.settings import MigrationError, Settings, StoppedError
from kvclient.migration.state import StateError
from kvclient.text import quoted
from kvclient.url import parse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvclient.cli.arguments import Given
    from kvclient.migration.settings import Outcome
    from kvclient.migration.verifying import Comparison

_INTERRUPT_STATUS: Final = 130
_EPILOG: Final = """\
Exit status: 0 if all was copied (and found equal, if that was asked), 1 if something was not, 2 if it could not be
done, 130 if it was stopped before all was copied. Without --follow, what programs write to the source after the end
is not copied: stop them before, or follow, and switch them over one by one. More: docs/migrating.md.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The tool's options."""
    add = parser.add_argument
    add("--from", dest="source", metavar="URL", required=True, help="the server that has the keys")
    add("--to", dest="target", metavar="URL", required=True, help="the server that is to have them")
    add("--follow", action="store_true", help="go on copying changes until Ctrl-C or SIGTERM")
    add("--state", type=Path, metavar="FILE", help="remember there what was copied, and go on with it")
    add("--db", type=int, metavar="N", help="only this database; default: all, or that of the URLs")
    add("--match", metavar="PATTERN", help="only keys that match this glob pattern")
    add("--rate", type=float, metavar="N", help="at most so many keys a second")
    add("--timeout", type=float, default=60.0, metavar="SECONDS", help="how long a server may be away or full (60)")
    add("--into-existing", action="store_true", help="copy into a server that has keys, and replace those")
    add("--verify", action="store_true", help="compare both servers afterwards")
    add("--verify-only", action="store_true", help="compare both servers, and copy nothing")
    add("--dry-run", action="store_true", help="only count what there is to copy")
    add("--json", action="store_true", help="tell the result as JSON, on standard output")
    parser.epilog = _EPILOG


def run(given: Given) -> int:
    """Migrate; returns the exit status.

    Raises:
        Problem: it cannot be done, or not to the end.
        KVError: a server refuses.
    """
    wanted = given.settings
    settings = _settings(wanted)
    as_json = wanted.json or given.form is Form.JSON
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        viewer = _Viewer(stack.enter_context(Gauge("migrating")))
        try:
            migration = stack.enter_context(Migration(settings, viewer))
            with _signals(migration.stop):
                outcome = migration.run()
        except StoppedError:
            again = f": start it again with --state {settings.state}" if settings.state else ""
            what = "compared" if settings.only_verify else "copied"
            complain(f"stopped before all was {what}{again}")
            return _INTERRUPT_STATUS
        except (MigrationError, StateError, LedgerError) as error:
            raise Problem(str(error)) from None
    _report(outcome, settings, time.monotonic() - began, as_json=as_json)
    return 0 if outcome.is_whole else 1


class _Viewer:
    """Shows how it goes."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._began = time.monotonic()

    def say(self, text: str, /) -> None:
        """A line on standard error."""
        complain(text)

    def progress(self, done: int, total: int, waiting: int, /) -> None:
        """The bar."""
        rate = done / max(time.monotonic() - self._began, 0.001)
        self._gauge.show(done, total, f"{rate:,.0f}/s, {waiting:,} changes waiting")


# ---- arguments -------------------------------------------------------------------------------------------------------


def _settings(wanted: argparse.Namespace) -> Settings:
    """The arguments, understood.

    Raises:
        Problem, BadURLError: they make no sense.
    """
    for name in ("rate", "timeout"):
        value = getattr(wanted, name)
        if value is not None and not 0 < value < 1e8:
            raise Problem(f"--{name} is not a positive number")
    return Settings(
        parse_url(wanted.source),
        parse_url(wanted.target),
        _databases(wanted),
        None if wanted.match is None else wanted.match.encode("utf-8", "surrogateescape"),
        follow=wanted.follow,
        rate=wanted.rate,
        timeout=wanted.timeout,
        state=wanted.state,
        into_existing=wanted.into_existing,
        is_dry=wanted.dry_run,
        verify=wanted.verify,
        only_verify=wanted.verify_only,
    )


def _databases(wanted: argparse.Namespace) -> dict[int, int]:
    """From databases at the source to those at the target; empty for all."""
    ours, theirs = _database(wanted.source), _database(wanted.target)
    if wanted.db is not None:
        if wanted.db < 0 or ours not in {None, wanted.db}:
            raise Problem("--db and the database in --from are not the same, or it is negative")
        ours = wanted.db
    if ours is None:
        if theirs is not None:
            raise Problem("--to names a database and --from does not: name one in both, or --db N, or none for all")
        return {}
    return {ours: ours if theirs is None else theirs}


def _database(url: str) -> int | None:
    """The database that a URL names, if it does."""
    options, parts = parse_url(url), urlsplit(url)
    has_one = "db=" in parts.query or (parts.path.strip("/") != "" and options.path is None)
    return options.db if has_one else None


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """For a with block: SIGINT and SIGTERM stop it, and end the program the second time."""
    before: dict[int, Any] = {}

    def heed(number: int, _frame: object) -> None:
        for each, handler in before.items():
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else handler)
        del number
        stop()

    for wanted in (signal.SIGINT, signal.SIGTERM):
        before[wanted] = signal.signal(wanted, heed)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- the result ------------------------------------------------------------------------------------------------------


def _report(outcome: Outcome, settings: Settings, seconds: float, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json_line(_fields(outcome, settings, seconds)) + "\n")
        return
    counts = outcome.counts
    for kind, number in sorted(counts.by_type().items()):
        why = next(left.why for left in counts.left_out.values() if left.kind == kind)
        names = ", ".join(map(quoted, counts.examples(kind)))
        complain(f"{number} keys of type {kind} were not copied ({why}), such as {names}")
    for db, number in outcome.missing_databases.items():
        complain(f"the target has no database {db}: its {number} keys were not copied")
    if outcome.still_changing:
        complain(
            f"programs still write to the source: {outcome.still_changing} keys had changed in the last round, and "
            "were copied; what is written from now on is not. Stop the programs and run it again, or use --follow"
        )
    if outcome.comparison is not None:
        _report_comparison(outcome.comparison)
    if settings.only_verify:
        return
    verb = "would copy" if settings.is_dry else "copied"
    complain(
        f"{verb} {counts.stored} keys ({counts.bytes:,} bytes) in {seconds:.1f} s; {counts.unchanged} found unchanged, "
        f"{counts.deleted} deleted"
    )


def _report_comparison(found: Comparison) -> None:
    for key, how in found.examples.items():
        complain(f"{how}: {quoted(key.name)} (database {key.db})")
    if found.different > len(found.examples):
        complain(f"and {found.different - len(found.examples)} more that differ")
    if found.unsettled:
        complain(f"{found.unsettled} keys changed whenever they were compared: stop the programs and compare again")
    complain(f"compared {found.compared} keys: {found.different or 'none'} differ")


def _comparison_fields(found: Comparison) -> dict[str, Any]:
    return {
        "compared": found.compared,
        "different": found.different,
        "unsettled": found.unsettled,
        "examples": [
            {"db": key.db, "key": text_or_base64(key.name), "how": how} for key, how in found.examples.items()
        ],
    }


def _fields(outcome: Outcome, settings: Settings, seconds: float) -> dict[str, Any]:
    counts = outcome.counts
    return {
        "complete": outcome.is_whole,
        "dry_run": settings.is_dry,
        "copied": counts.stored,
        "bytes": counts.bytes,
        "unchanged": counts.unchanged,
        "deleted": counts.deleted,
        "seconds": round(seconds, 3),
        "still_changing": outcome.still_changing,
        "not_copied": {
            kind: {"count": number, "examples": [text_or_base64(key) for key in counts.examples(kind)]}
            for kind, number in sorted(counts.by_type().items())
        },
        "missing_databases": {str(db): number for db, number in outcome.missing_databases.items()},
        "doubts": outcome.doubts,
        "verified": None if outcome.comparison is None else _comparison_fields(outcome.comparison),
    }
