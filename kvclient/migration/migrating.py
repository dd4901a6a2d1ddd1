"""A migration from beginning to end: listens, walks, copies what changes, and follows, as plan.py says.

Everything happens in one thread, in turns: what the source tells waits in the kernel's and the server's buffers while a
value is on its way. Not here: arguments, signals and what is shown (cli/migrate.py).
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Self, TypeVar

from kvclient.errors import KVError
from kvclient.migration import state as states
from kvclient.migration.clusters import side_of
from kvclient.migration.copying import Copier
from kvclient.migration.ears import PULSE, Ears
from kvclient.migration.ledger import Ledger
from kvclient.migration.patterns import literal_prefix, matcher
from kvclient.migration.plan import BATCH, Check, Copy, Done, Place, Plan, Rate, Settle, Wait, Walk
from kvclient.migration.settings import MigrationError, Outcome, StoppedError
from kvclient.migration.sides import PASSING, UNSURE
from kvclient.migration.verifying import Comparison, Verifier
from kvclient.retry import pause_of
from kvclient.waiting import Waker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kvclient.migration.settings import Settings, Viewer
    from kvclient.migration.sides import Side
    from kvclient.migration.state import State

T = TypeVar("T")
_monotonic = time.monotonic


class Migration:
    """One migration; for a with block, in which run() is called.

    Raises:
        MigrationError, StateError, LedgerError, KVError: it must not begin, or cannot.
    """

    def __init__(self, settings: Settings, viewer: Viewer) -> None:
        self.settings = settings
        self._viewer = viewer
        self._waker = Waker()
        self._is_stopped = self._is_following = self._is_comparing = False
        self._rate = Rate(settings.rate)
        self._matches = matcher(settings.match)
        self.plan = Plan(follow=settings.follow and not settings.is_dry)
        name = f"kv-migrate-{secrets.token_hex(6)}"
        # A call takes half of the time, so that one that hangs leaves time for another.
        self.source = side_of(settings.source, settings.timeout / 2, name)
        self.target = side_of(settings.target, settings.timeout / 2, name)
        self._ears: Ears | None = None
        self._ledger: Ledger | None = None
        self._walked = self._total = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for part in (self._ears, self._ledger, self.source, self.target, self._waker):
            if part is not None:
                part.close()

    def stop(self) -> None:
        """End it; if it follows, after a last catching up. May be called from a signal's handler."""
        self._is_stopped = True
        self._waker.wake()

    # ---- beginning -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Look at both servers, and begin to listen and to walk."""
        settings = self.settings
        for side, db in ((self.source, self._first()), (self.target, self._there(self._first()))):
            side.client(db).check()
        target_run = self.target.run()
        self._refuse_itself(target_run)
        state = _state_of(settings, target_run)
        known = None if settings.state is None or not self._changes_anything else states.load(settings.state)
        if known is not None:
            state.check(known)
        elif not (settings.into_existing or settings.is_dry or settings.only_verify):
            self._refuse_a_full_target()
        self._ledger = self._open_ledger(is_known=known is not None)
        self._state = state if known is None else known
        self._copier = Copier(self.source, self.target, self._there, self._ledger, self, is_dry=settings.is_dry)
        self.outcome = Outcome(self._copier.counts)
        if not settings.is_dry:
            self._listen()
        self._walk()
        if known is not None:
            self._viewer.say(
                f"goes on with {settings.state}: what was copied is compared, and copied again where it changed"
            )
            self.plan.check()
            self._look_at_the_target()
        self._save()

    def _refuse_itself(self, target_run: str | None) -> None:
        """Raise MigrationError if both are the same server and database."""
        is_same = target_run is not None and target_run == self.source.run()
        if (is_same or self.source.address == self.target.address) and any(
            self._there(db) == db for db in self.settings.databases or {0: 0}
        ):
            raise MigrationError("--from and --to are the same database of the same server")

    def _refuse_a_full_target(self) -> None:
        keys = self.target.keyspace()
        wanted = set(self.settings.databases.values()) or set(keys)
        if count := sum(number for db, number in keys.items() if db in wanted):
            raise MigrationError(
                f"{self.target.address} is not empty ({count} keys): empty it, or add --into-existing to copy into it"
            )

    def _open_ledger(self, *, is_known: bool) -> Ledger:
        path = self.settings.state
        if path is None or not self._changes_anything:
            return Ledger(None)
        beside = path.with_name(f"{path.name}.keys")
        if is_known and not beside.exists():
            raise MigrationError(
                f"{beside}, which belongs to {path}, is missing: begin anew with another file and --into-existing"
            )
        if not is_known:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(f"{beside.name}{suffix}").unlink(missing_ok=True)
        return Ledger(beside)

    def _listen(self) -> None:
        prefix = literal_prefix(self.settings.match)
        prefixes = [prefix] if prefix else []
        self._ears = Ears(self.source.listener, prefixes, self.plan, self._waker, self.settings.timeout / 2)
        for node in self.source.nodes:
            self._ears.listen(node)

    def _walk(self) -> None:
        """Have all there is walked, from the beginning."""
        keyspace = self.keep_trying(self.source, self.source.keyspace)
        databases = [db for db in self._databases(keyspace) if self._has(db, keyspace.get(db, 0))]
        self._walked, self._total = 0, sum(keyspace.get(db, 0) for db in databases)
        self.plan.walk(Place(node, db) for db in databases for node in self.source.nodes)

    def _databases(self, keyspace: Iterable[int]) -> list[int]:
        """Those of the source in which something is or was."""
        if self.settings.databases:
            return list(self.settings.databases)
        ledger = set() if self._ledger is None else self._ledger.databases
        return sorted({*keyspace, *ledger})

    def _has(self, db: int, count: int) -> bool:
        """Whether the target has a database to copy this one to; that it has not is noted."""
        there = self._there(db)
        if db not in self.outcome.missing_databases and self.keep_trying(self.target, lambda: self.target.has(there)):
            return True
        self.outcome.missing_databases[db] = count
        return False

    @property
    def _changes_anything(self) -> bool:
        return not (self.settings.is_dry or self.settings.only_verify)

    def _there(self, db: int) -> int:
        return self.settings.databases.get(db, db)

    def _first(self) -> int:
        return next(iter(self.settings.databases), 0)

    # ---- going on ------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Do all of it.

        Raises:
            MigrationError: it cannot go on.
            StoppedError: it was stopped before all was copied.
            KVError: a server refuses.
        """
        self._begin()
        if not self.settings.only_verify:
            self.outcome.still_changing = self._copy_all()
            self._enter("done")
        if (self.settings.verify or self.settings.only_verify) and not self.settings.is_dry:
            self._compare_all()
        return self.outcome

    def _copy_all(self) -> int:
        """Do what the plan says to its end; how many keys had changed in the last round."""
        while True:
            self._attend()
            step = self.plan.next()
            if self.plan.is_complete and self.plan.follows and not self._is_following:
                self._follow()
            if isinstance(step, Done):
                if self._look_at_the_target():
                    continue
                return step.still
            self._do(step)
            self._viewer.progress(self._walked, self._total, self.plan.waiting)

    def _do(self, step: Walk | Check | Copy | Settle | Wait) -> None:
        match step:
            case Walk(place, cursor):
                self._walk_on(place, cursor)
            case Check(after):
                self._check_on(after)
            case Copy(keys):
                self._copy([key for key in keys if self._matches(key)])
            case Settle():
                self._settle()
            case Wait():
                self._wait()

    def _walk_on(self, place: Place, cursor: int) -> None:
        cursor, keys = self.keep_trying(self.source, lambda: self._scan(place, cursor))
        self._copy_paced(place.db, keys)
        self._walked += len(keys)
        self.plan.walked(place, cursor)

    def _scan(self, place: Place, cursor: int) -> tuple[int, list[bytes]]:
        """A page of keys; none of a node that has been replaced, whose place is taken by another."""
        if place.node not in self.source.nodes:
            return 0, []
        try:
            return self.source.node(*place).scan(cursor, match=self.settings.match, count=BATCH)
        except UNSURE:
            self.source.look_again()
            raise

    def _check_on(self, after: tuple[int, bytes] | None) -> None:
        """Copy those again that are no longer there, which deletes them at the target."""
        assert self._ledger is not None
        page = self._ledger.page(after, BATCH)
        for db in {db for db, _ in page}:
            keys = [key for each, key in page if each == db]
            self._copy_paced(db, self.keep_trying(self.source, lambda db=db, keys=keys: self._gone(db, keys)))  # type: ignore[misc]
        self.plan.checked(page[-1] if page else None)

    def _gone(self, db: int, keys: list[bytes]) -> list[bytes]:
        with self.source.client(db).pipeline(raise_errors=False) as pipeline:
            found = [(key, pipeline.exists(key)) for key in keys]
        return [key for key, exists in found if not exists.result()]

    def _copy(self, keys: list[bytes]) -> None:
        keyspace = self.keep_trying(self.source, self.source.keyspace)
        for db in self._databases(keyspace):
            if self._has(db, keyspace.get(db, 0)):
                self._copy_paced(db, keys)

    def _settle(self) -> None:
        if self._ears is None:
            self.plan.settled()
        elif self._ears.settle():
            # A node that has got slots before now may have been told of changes, unheard if it is a new one.
            self.keep_trying(self.source, self.source.look_again)
            if not self.source.gained:
                self.plan.settled()

    def _follow(self) -> None:
        self._is_following = True
        self._enter("following")
        self._viewer.say("all is copied; changes are copied as they come, until Ctrl-C")

    def _wait(self) -> None:
        assert self._ears is not None
        if not self._ears.hear(PULSE) and not self._is_stopped:
            self.plan.again()
            self._look_at_the_target()

    def _attend(self) -> None:
        """Take in what was told, listen again where that is lost, and see whether it was stopped."""
        self._heed_stop()
        if self._ears is None:
            return
        self._ears.hear(0)
        if self._ears.lost:
            self._viewer.say(
                f"the connection by which {', '.join(sorted(self._ears.lost))} tells of changes was lost, and changes "
                "may have been missed: all keys are walked again"
            )
        elif self.source.gained:
            nodes = ", ".join(sorted(self.source.gained))
            self._viewer.say(f"{nodes} has got slots of the cluster: all keys are walked again")
        if self._ears.lost or self.source.gained:
            self.keep_trying(self.source, self._listen_again)
            self.source.gained.clear()
            self._walk()
            self.plan.check()

    def _listen_again(self) -> None:
        """Listen to those nodes that have keys now."""
        assert self._ears is not None
        self.source.look_again()
        for node in self._ears.nodes - self.source.nodes.keys():
            self._ears.leave(node)
        for node in sorted(self._ears.lost | (self.source.nodes.keys() - self._ears.nodes)):
            self._ears.listen(node)

    def _heed_stop(self) -> None:
        """If it was stopped: end, or catch up and end if all was copied once."""
        if not self._is_stopped:
            return
        if not self.plan.is_complete:
            raise StoppedError
        self._is_stopped = False
        self._viewer.say("stopped: what has changed by now is copied, then it ends")
        self.plan.stop()

    def _look_at_the_target(self) -> bool:
        """See whether the target was started anew, and may have forgotten; whether all is copied again for that."""
        run = self.keep_trying(self.target, self.target.run)
        if run == self._state.target_run:
            return False
        self._state.target_run = run
        text = f"{self.target.address} was started anew, and may have forgotten what was stored last"
        is_again = self._state.phase == "copying"
        if is_again:
            self._viewer.say(f"{text}: all keys are copied again")
            assert self._ledger is not None
            self._ledger.distrust()
            self._walk()
        else:
            self._viewer.say(f"{text}: compare with --verify-only")
            self.outcome.doubts.append(text)
        self._save()
        return is_again

    # ---- comparing -----------------------------------------------------------------------------------------------

    def _compare_all(self) -> None:
        self._is_comparing = True
        comparison = self.outcome.comparison = Comparison()
        verifier = Verifier(self.source, self.target, self._there, self, self.settings.match)
        keyspace = self.keep_trying(self.source, self.source.keyspace)
        theirs = self.keep_trying(self.target, self.target.keyspace)
        databases = [db for db in self._databases({**keyspace, **theirs}) if self._has(db, keyspace.get(db, 0))]
        self._viewer.say("both sides are compared")
        verifier.again(verifier.walk(databases, comparison), comparison, self)

    def catch_up(self) -> None:
        """Copy what has changed, unless only to compare is wanted, and hear of all changes until now."""
        if not self.settings.only_verify:
            self.plan.again()
            self._copy_all()
        else:
            self._attend()
            self.hear_all()
            self.plan.forget()

    def hear_all(self) -> bool:
        """Hear of all changes until now; whether none can have been missed since catch_up()."""
        assert self._ears is not None
        return self._ears.settle() and not self.plan.has_missed

    def has_changed(self, name: bytes) -> bool:
        """Whether a key has changed since catch_up()."""
        return self.plan.has_changed(name)

    # ---- state ---------------------------------------------------------------------------------------------------

    def _enter(self, phase: str) -> None:
        self._state.phase = phase
        self._save()

    def _save(self) -> None:
        if self.settings.state is not None and self._changes_anything:
            states.save(self.settings.state, self._state)

    # ---- patience ------------------------------------------------------------------------------------------------

    def keep_trying(self, side: Side, action: Callable[[], T]) -> T:
        """What the action returns, tried again for as long as the timeout if the server is away or full.

        Raises:
            MigrationError: for so long it was.
            StoppedError: meanwhile it was stopped, and not all is copied yet.
        """
        until = None
        attempt = 0
        while True:
            if self._is_stopped and (self._is_comparing or not self.plan.is_complete):
                raise StoppedError
            try:
                return action()
            except KVError as error:
                if not isinstance(error, PASSING):
                    raise
                attempt += 1
                until = self._until(until, side, error)
            self.pause(pause_of(attempt))

    def _until(self, until: float | None, side: Side, error: KVError) -> float:
        """When to give up."""
        word = "source" if side is self.source else "target"
        if until is None:
            self._viewer.say(f"the {word}, {side.address}: {error}; trying again for {self.settings.timeout:g} seconds")
            return _monotonic() + self.settings.timeout
        if _monotonic() > until:
            again = "" if self.settings.state is None else f"; go on later with --state {self.settings.state}"
            raise MigrationError(
                f"gave up after {self.settings.timeout:g} seconds: the {word}, {side.address}: {error}{again}"
            )
        return until

    def pause(self, seconds: float) -> None:
        """Do nothing for so long but to take in what is told."""
        until = _monotonic() + seconds
        while (left := until - _monotonic()) > 0 and not self._is_stopped:
            if self._ears is None:
                self._waker.wait([], left)
            else:
                self._ears.hear(left)

    def _copy_paced(self, db: int, keys: Sequence[bytes]) -> None:
        """Copy keys, no more in a tenth of a second than the rate allows."""
        at_once = len(keys) if self.settings.rate is None else max(1, int(self.settings.rate / 10))
        for start in range(0, len(keys), max(1, at_once)):
            some = keys[start : start + at_once]
            self.pause(self._rate.pause(len(some), _monotonic()))
            if self._is_stopped and not self.plan.is_complete:
                raise StoppedError
            self._copier.copy(db, some)


def _state_of(settings: Settings, target_run: str | None) -> State:
    return states.State(
        settings.source.address,
        settings.target.address,
        {str(db): there for db, there in settings.databases.items()},
        None if settings.match is None else settings.match.decode("utf-8", "backslashreplace"),
        target_run,
    )
