"""What a migration does next, decided without sockets: walks, changes, settling; what becomes of a key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvclient.migration import plan as plans
from kvclient.migration.ledger import Ledger, LedgerError
from kvclient.migration.patterns import literal_prefix, matcher
from kvclient.migration.plan import (
    BATCH,
    FEW,
    MOST_CHANGED,
    Check,
    Copy,
    Done,
    Place,
    Plan,
    Rate,
    Row,
    Settle,
    Verdict,
    Wait,
    Walk,
    judge,
)
from kvclient.migration.reading import GROUP_BYTES, grouped
from kvclient.migration.state import State, StateError, load, save

HERE, THERE = Place("a:1", 0), Place("a:1", 1)


def settle(plan: Plan) -> None:
    assert plan.next() == Settle()
    plan.settled()


def test_walks_then_settles_then_ends() -> None:
    plan = Plan()
    plan.walk([HERE, THERE])
    assert plan.next() == Walk(HERE, 0)
    plan.walked(HERE, 7)
    assert plan.next() == Walk(HERE, 7)
    plan.walked(HERE, 0)
    assert plan.next() == Walk(THERE, 0)
    plan.walked(THERE, 0)
    settle(plan)
    assert plan.next() == Done(0)
    assert plan.is_complete


def test_what_changes_during_the_walk_is_copied_after_it() -> None:
    plan = Plan()
    plan.walk([HERE])
    plan.tell([b"a"])
    assert plan.next() == Walk(HERE, 0)
    plan.walked(HERE, 0)
    settle(plan)
    assert plan.next() == Copy((b"a",))
    plan.tell([b"b"])
    settle(plan)
    assert plan.next() == Copy((b"b",))
    settle(plan)
    assert plan.next() == Done(0)


def test_a_flood_of_changes_stops_neither_the_walk_nor_memory() -> None:
    plan = Plan()
    plan.walk([HERE])
    for _ in range(3):
        plan.tell(b"%d" % number for number in range(MOST_CHANGED))
        assert plan.next() == Walk(HERE, 0) or plan.waiting
        plan.walked(HERE, 9)
        copied = 0
        while isinstance(step := plan.next(), Copy):
            copied += len(step.keys)
        assert copied == MOST_CHANGED
        assert step == Walk(HERE, 9)


def test_a_key_about_to_be_read_is_not_read_again_for_older_news() -> None:
    plan = Plan()
    plan.tell([b"a"])
    settle(plan)
    plan.tell([b"a"])
    assert plan.next() == Copy((b"a",))
    assert plan.waiting == 0


def test_it_ends_while_programs_write_if_little_changes_and_says_so() -> None:
    plan = Plan()
    for _ in range(2):
        plan.tell([b"a"])
        settle(plan)
        assert plan.next() == Copy((b"a",))
    plan.tell([b"a"])
    settle(plan)
    assert plan.next() == Copy((b"a",))
    assert plan.next() == Done(1)


def test_much_changes_for_ever() -> None:
    plan = Plan()
    keys = [b"%d" % number for number in range(FEW + 1)]
    for rounds in range(30):
        plan.tell(keys)
        settle(plan)
        while isinstance(step := plan.next(), Copy):
            pass
        if isinstance(step, Done):
            assert step.still == FEW + 1
            assert rounds > 3
            return
        assert step == Settle()
    pytest.fail("it never ends")


def test_following_goes_on_until_stopped_and_then_catches_up() -> None:
    plan = Plan(follow=True)
    settle(plan)
    assert plan.next() == Wait()
    plan.tell([b"a"])
    settle(plan)
    assert plan.next() == Copy((b"a",))
    settle(plan)
    assert plan.next() == Wait()
    plan.stop()
    plan.tell([b"b"])
    settle(plan)
    assert plan.next() == Copy((b"b",))
    settle(plan)
    assert plan.next() == Done(0)


def test_missed_changes_have_all_walked_and_the_ledger_checked() -> None:
    plan = Plan(follow=True)
    settle(plan)
    plan.missed([HERE])
    assert plan.next() == Walk(HERE, 0)
    plan.walked(HERE, 0)
    assert plan.next() == Check(None)
    plan.checked((0, b"k"))
    assert plan.next() == Check((0, b"k"))
    plan.checked(None)
    settle(plan)
    assert plan.next() == Wait()


@given(st.lists(st.tuples(st.sampled_from(["tell", "miss", "flush", "step"]), st.integers(0, 5)), max_size=40))
def test_whatever_is_told_is_copied_after_it_was_told(events: list[tuple[str, int]]) -> None:
    """A source of six keys that only this test changes: at the end the copy has the last version of each."""
    plan, source, copy = Plan(), dict.fromkeys(range(6), 0), {}
    plan.walk([HERE])

    def do() -> bool:
        match plan.next():
            case Walk(place, cursor):
                copy[cursor] = source[cursor]
                plan.walked(place, (cursor + 1) % 6)
            case Copy(keys):
                copy.update({int(key): source[int(key)] for key in keys})
            case Check(_):
                plan.checked(None)
            case Settle():
                plan.settled()
            case Done(_):
                return False
        return True

    for kind, key in events:
        if kind == "step":
            do()
        elif kind == "flush":
            plan.check()
        else:
            source[key] += 1
            if kind == "tell":
                plan.tell([b"%d" % key])
            else:
                plan.missed([HERE])
    while do():
        pass
    assert copy == source


@pytest.mark.parametrize(
    ("digest", "deadline", "row", "verdict"),
    [
        (None, None, None, Verdict.LEAVE),
        (None, None, Row(b"d", None), Verdict.DELETE),
        (None, None, Row(None, None), Verdict.DELETE),
        (None, None, Row(b"d", 2000), Verdict.DELETE),
        (None, None, Row(b"d", 1000), Verdict.FORGET),
        (b"d", None, None, Verdict.STORE),
        (b"d", None, Row(None, None), Verdict.STORE),
        (b"d", None, Row(b"e", None), Verdict.STORE),
        (b"d", None, Row(b"d", None), Verdict.LEAVE),
        (b"d", 2000, Row(b"d", None), Verdict.STORE),
        (b"d", None, Row(b"d", 2000), Verdict.STORE),
        (b"d", 2005, Row(b"d", 2000), Verdict.LEAVE),
        (b"d", 2011, Row(b"d", 2000), Verdict.STORE),
    ],
)
def test_what_becomes_of_a_key(digest: bytes | None, deadline: int | None, row: Row | None, verdict: Verdict) -> None:
    assert judge(digest, deadline, row, now=1000, tolerance=10) is verdict


def test_rate() -> None:
    rate = Rate(100)
    assert rate.pause(50, now=10.0) == 0
    assert rate.pause(50, now=10.1) == pytest.approx(0.4)
    assert rate.pause(50, now=12.0) == 0
    assert Rate(None).pause(10**9, now=0.0) == 0


@given(st.lists(st.integers(0, 2 * GROUP_BYTES), max_size=50))
def test_groups_are_bounded_by_bytes(sizes: list[int]) -> None:
    groups = grouped([(b"%d" % place, size) for place, size in enumerate(sizes)])
    assert [int(key) for group in groups for key in group] == list(range(len(sizes)))
    for group in groups:
        assert group
        assert len(group) == 1 or sum(sizes[int(key)] for key in group) <= GROUP_BYTES


def test_a_batch_is_bounded() -> None:
    plan = Plan()
    plan.tell(b"%d" % number for number in range(BATCH * 2 + 1))
    settle(plan)
    assert [len(step.keys) for step in iter(plan.next, Settle()) if isinstance(step, plans.Copy)] == [BATCH, BATCH, 1]


# ---- patterns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (b"user:*", [b"user:", b"user:\n\xff"], [b"use", b"xuser:1"]),
        (b"h?llo", [b"hello", b"h\nllo"], [b"hllo"]),
        (b"h[ae]llo", [b"hallo"], [b"hillo"]),
        (b"h[^a]llo", [b"hello", b"h\xffllo"], [b"hallo"]),
        (b"h[a-c]llo", [b"hbllo"], [b"hdllo"]),
        (b"h[c-a]llo", [b"hbllo"], [b"hdllo"]),
        (rb"h\*llo", [b"h*llo"], [b"hello"]),
        (rb"[\]]", [b"]"], [b"\\"]),
        (b"[ab", [b"a", b"b"], [b"c"]),
        (b"[]", [], [b"", b"]", b"a"]),
        (b"**a**", [b"a", b"xay"], [b"b"]),
        (b"\\", [b"\\"], [b""]),
        (b".+$", [b".+$"], [b"a"]),
    ],
)
def test_patterns(pattern: bytes, matching: list[bytes], others: list[bytes]) -> None:
    matches = matcher(pattern)
    assert [key for key in matching if not matches(key)] == []
    assert [key for key in others if matches(key)] == []
    assert all(key.startswith(literal_prefix(pattern)) for key in matching)


# ---- the ledger and the state file -----------------------------------------------------------------------------------


def test_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    ledger = Ledger(path)
    ledger.begin(0, [b"a", b"b", b"\xff\x00"])
    ledger.finish(0, [(b"a", Row(b"d", None)), (b"\xff\x00", Row(b"e", 5))])
    ledger.begin(1, [b""])
    with pytest.raises(LedgerError, match="another process uses it"):
        Ledger(path)
    ledger.close()
    ledger = Ledger(path)
    assert ledger.rows(0, [b"a", b"b", b"c", b"\xff\x00"]) == {
        b"a": Row(b"d", None),
        b"b": Row(None, None),
        b"\xff\x00": Row(b"e", 5),
    }
    assert ledger.page(None, 2) == [(0, b"a"), (0, b"b")]
    assert ledger.page((0, b"b"), 9) == [(0, b"\xff\x00"), (1, b"")]
    assert ledger.databases == {0, 1}
    ledger.forget(0, [b"b", b"c"])
    ledger.distrust()
    assert len(ledger) == 3
    assert ledger.rows(0, [b"a"]) == {b"a": Row(None, None)}
    ledger._sql.execute("PRAGMA max_page_count = 1")
    with pytest.raises(LedgerError, match=r"cannot remember what was copied: .*full"):
        ledger.begin(0, [b"%d" % number for number in range(10_000)])
    assert len(ledger) == 3
    ledger.close()
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(LedgerError, match="cannot use"):
        Ledger(path)
    with pytest.raises(LedgerError, match="cannot open"):
        Ledger(tmp_path / "missing" / "keys")


def test_the_state_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert load(path) is None
    state = State("a:1", "b:2", {"3": 4}, None, "run", "following")
    save(path, state)
    assert load(path) == state
    assert [each.name for each in tmp_path.iterdir()] == ["state"]
    with pytest.raises(StateError, match=r"another migration \(to: b:2, and not c:3\)"):
        State("a:1", "c:3", {"3": 4}, None).check(state)
    with pytest.raises(StateError, match=r"another migration \(database: \{'3': 4\}, and not all\)"):
        State("a:1", "b:2", {}, None).check(state)
    for nonsense in ("", "[1]", "{}", '{"version": 1}', "[" * 100_000, '{"version": 9}'):
        path.write_text(nonsense)
        with pytest.raises(StateError, match="no state file"):
            load(path)
    with pytest.raises(StateError, match="cannot read"):
        load(tmp_path)
    with pytest.raises(StateError, match="cannot write"):
        save(tmp_path / "missing" / "state", state)
