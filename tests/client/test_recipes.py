"""Locks, rate limits and values computed once: on kvserver, Valkey and Redis, by threads and by tasks."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import kvclient
import kvclient.aio
from kvclient import serializers
from kvclient.cluster.slots import beside
from kvclient.errors import CallTimeoutError, LockLostError, LockTimeoutError, ServerError, UnknownCommandError
from kvclient.protocol import Reply
from kvclient.recipes.caching import Cache
from kvclient.recipes.locks import LockRecipes
from kvclient.recipes.steps import Ask, Call, Pause, Recipe, Step, Together, run

PATIENCE = 30


def wait_until_gone(kv: kvclient.Client, key: str) -> None:
    while kv.exists(key):
        pass


# ---- locks -----------------------------------------------------------------------------------------------------


class Guarded:
    """Something that only one may use at a time, and that notices if two do."""

    def __init__(self) -> None:
        self.users = 0
        self.fences: list[int] = []

    def enter(self, fence: int | None) -> None:
        assert self.users == 0
        self.users += 1
        assert fence is not None
        self.fences.append(fence)

    def leave(self) -> None:
        self.users -= 1

    def check(self, count: int) -> None:
        assert len(self.fences) == count
        assert self.fences == sorted(set(self.fences)), "later holders have larger numbers"


def test_one_at_a_time(client: kvclient.Client) -> None:
    guarded = Guarded()

    def use(_: int) -> None:
        for _ in range(5):
            with client.lock("l", wait=PATIENCE) as lock:
                guarded.enter(lock.fence)
                client.ping()  # time for somebody else
                guarded.leave()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(use, range(6)))
    guarded.check(30)
    assert not client.exists("l")


def test_one_task_at_a_time(any_url: str) -> None:
    guarded = Guarded()

    async def use(kv: kvclient.aio.AsyncClient) -> None:
        for _ in range(5):
            async with kv.lock("l", wait=PATIENCE) as lock:
                guarded.enter(lock.fence)
                await kv.ping()
                guarded.leave()

    async def main() -> None:
        async with kvclient.aio.connect(any_url, timeout=PATIENCE) as kv:
            await kv.flushall()
            await asyncio.gather(*(use(kv) for _ in range(6)))
            assert not await kv.exists("l")

    asyncio.run(main())
    guarded.check(30)


def test_waiting_in_vain(client: kvclient.Client) -> None:
    with client.lock("l"):
        began = threading.Event()
        with pytest.raises(LockTimeoutError, match=r"somebody else held the lock 'l' for all of 0\.05 seconds"):
            client.lock("l", wait=0.05).acquire()
        began.set()
    with client.lock("l", wait=0):
        assert client.exists("l") == 1


def test_it_is_kept_for_as_long_as_it_takes(client: kvclient.Client) -> None:
    lock = client.lock("l", ttl=0.3)
    with lock:
        assert not threading.Event().wait(1)
        assert client.exists("l") == 1
        assert not lock.lost
    assert client.exists("l") == 0


def test_one_that_ended_is_not_taken_from_who_has_it_now(client: kvclient.Client) -> None:
    first = client.lock("l", ttl=0.05, extend=False)
    first.acquire()
    wait_until_gone(client, "l")
    with client.lock("l") as second:
        with pytest.raises(LockLostError, match="give it a longer ttl"):
            first.release()
        assert client.exists("l") == 1
        assert second.fence is not None
    assert first.fence is None


def test_one_that_is_taken_away_is_found_lost(client: kvclient.Client) -> None:
    lock = client.lock("l", ttl=0.1)
    lock.acquire()
    client.set("l", "somebody else")
    keeper = lock._keeper
    assert keeper is not None
    keeper.join(PATIENCE)
    assert lock.lost
    with pytest.raises(LockLostError):
        lock.release()
    assert client.get("l") == b"somebody else"


def test_one_that_was_forgotten_does_not_hold_the_program_up(client: kvclient.Client, any_url: str) -> None:
    program = f"""
import kvclient
kv = kvclient.connect({any_url!r})
kv.lock("l", ttl=0.3).acquire()
print("held")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert (done.stdout, done.stderr) == ("held\n", "")
    wait_until_gone(client, "l")


def fail_in(lock: kvclient.Lock) -> None:
    with lock:
        raise ZeroDivisionError


def test_an_exception_lets_go(client: kvclient.Client) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_in(client.lock("l"))
    assert client.exists("l") == 0


def test_what_makes_no_sense(client: kvclient.Client) -> None:
    with pytest.raises(ValueError, match="ttl must be positive"):
        client.lock("l", ttl=0)
    with pytest.raises(ValueError, match="at least 1"):
        client.rate_limit("r", 0, per=1)
    with pytest.raises(ValueError, match="positive"):
        client.get_or_set("k", lambda: b"", ttl=0)


# ---- rate limits -----------------------------------------------------------------------------------------------


def test_so_many_and_no_more(client: kvclient.Client) -> None:
    used = [client.rate_limit("r", 3, per=100) for _ in range(5)]
    assert [bool(one) for one in used] == [True, True, True, False, False]
    assert [one.remaining for one in used] == [2, 1, 0, 0, 0]
    assert all(99 < one.retry_after <= 100 for one in used)


def test_many_at_once(client: kvclient.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        used = list(pool.map(lambda _: client.rate_limit("r", 17, per=100), range(60)))
    assert sum(map(bool, used)) == 17


def test_it_begins_anew(client: kvclient.Client) -> None:
    assert client.rate_limit("r", 1, per=0.05)
    wait_until_gone(client, "r")
    assert client.rate_limit("r", 1, per=100)
    assert not client.rate_limit("r", 1, per=100)


def test_a_limit_that_is_awaited(any_url: str) -> None:
    async def main() -> None:
        async with kvclient.aio.connect(any_url) as kv:
            await kv.flushall()
            used = await asyncio.gather(*(kv.rate_limit("r", 17, per=100) for _ in range(60)))
            assert sum(map(bool, used)) == 17

    asyncio.run(main())


# ---- values computed once --------------------------------------------------------------------------------------


def test_computed_once(client: kvclient.Client) -> None:
    computed = []
    entered = threading.Barrier(8)

    def compute() -> bytes:
        computed.append(1)
        client.ping()
        return b"value"

    def get(_: int) -> bytes:
        entered.wait(PATIENCE)
        return client.get_or_set("k", compute, ttl=100)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(get, range(8))) == {b"value"}
    assert len(computed) == 1
    assert set(client) == {b"k"}
    assert 90 < (client.ttl("k") or 0) <= 100


def test_the_old_value_does_while_somebody_computes(client: kvclient.Client) -> None:
    """It is no longer fresh: less than `stale` of its life is left."""
    client.set("k", "old", ttl=50)
    began, finish = threading.Event(), threading.Event()

    def slowly() -> bytes:
        began.set()
        finish.wait(PATIENCE)
        return b"new"

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.get_or_set, "k", slowly, ttl=100, stale=60)
        assert began.wait(PATIENCE)
        assert client.get_or_set("k", lambda: b"never", ttl=100, stale=60) == b"old"
        finish.set()
        assert first.result(PATIENCE) == b"new"
    assert client.get_or_set("k", lambda: b"never", ttl=100, stale=60) == b"new"
    assert (client.ttl("k") or 0) > 150


def test_a_value_without_an_end_is_fresh(client: kvclient.Client) -> None:
    client.set("k", "for good")
    assert client.get_or_set("k", lambda: b"never", ttl=1, stale=1) == b"for good"


def test_an_exception_lets_the_next_one_compute(client: kvclient.Client) -> None:
    with pytest.raises(ZeroDivisionError):
        client.get_or_set("k", lambda: b"%d" % (1 // 0), ttl=100)
    assert client.get_or_set("k", lambda: b"value", ttl=100) == b"value"
    with pytest.raises(TypeError, match="cannot send a NoneType"):
        client.get_or_set("other", lambda: None, ttl=100)  # type: ignore[arg-type,return-value]
    assert client.keys() == [b"k"]


def test_within_a_namespace(client: kvclient.Client) -> None:
    numbers = client.ns("n:").typed(serializers.JSON)
    assert numbers.get_or_set("k", lambda: (1, 2), ttl=100) == [1, 2]  # as everybody will see it
    with numbers.lock("l"):
        assert set(client) == {b"n:k", b"n:l", beside(b"n:l", "fence")}
    assert numbers.rate_limit("r", 1, per=60)
    assert client.exists("n:r")


def test_somebody_who_never_finishes(client: kvclient.Client) -> None:
    client.set(beside(b"k", "lease"), "somebody else")
    with contextlib.suppress(UnknownCommandError):
        client.getl("k", 1000)
    with pytest.raises(CallTimeoutError, match="nobody computed the value of 'k' in time"):
        client.get_or_set("k", lambda: b"never", ttl=100, lease=0.05)


def test_computed_once_by_tasks(any_url: str) -> None:
    computed = []

    async def main() -> None:
        async with kvclient.aio.connect(any_url) as kv:
            await kv.flushall()

            async def compute() -> bytes:
                computed.append(1)
                await kv.ping()
                return b"value"

            got = await asyncio.gather(*(kv.get_or_set("k", compute, ttl=100) for _ in range(20)))
            assert set(got) == {b"value"}

    asyncio.run(main())
    assert len(computed) == 1


# ---- without a server ------------------------------------------------------------------------------------------


class Script:
    """Answers the steps of a recipe one after the other, and remembers them."""

    def __init__(self, *answers: Reply | Exception) -> None:
        self._answers = list(answers)
        self.steps: list[Step] = []

    def __call__(self, step: Step) -> Reply:
        self.steps.append(step)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def follow(recipe: Recipe[object], *answers: Reply | Exception) -> list[Step]:
    script = Script(*answers)
    run(recipe, script)
    return script.steps


def test_it_waits_longer_each_time_and_never_too_long() -> None:
    now = iter([0.0, 0.0, 0.0, 9.99])
    lock = LockRecipes("l", 1, lambda: next(now))
    steps = follow(lock.acquire(10), [None, 7], None, [None, 8], None, [None, 9], None, [b"OK", 10])
    pauses = [step.seconds for step in steps if isinstance(step, Pause)]
    assert 0.0025 <= pauses[0] <= 0.005
    assert 0.005 <= pauses[1] <= 0.01
    assert pauses[2] == pytest.approx(0.01)
    assert lock.fence == 10


def test_each_attempt_has_a_token_of_its_own() -> None:
    """So that a reply that was lost cannot make two attempts one."""
    now = iter([0.0, 0.0])
    steps = follow(LockRecipes("l", 1, lambda: next(now)).acquire(10), [None, 1], None, [b"OK", 2])
    tokens = {step.commands[0][2] for step in steps if isinstance(step, Together)}
    assert len(tokens) == 2


@pytest.mark.parametrize("error", [UnknownCommandError("ERR", "unknown command"), ServerError("ERR", "syntax error")])
def test_a_server_without_such_commands_runs_a_script(error: ServerError) -> None:
    lock = LockRecipes("l", 1, lambda: 0.0)
    follow(lock.acquire(1), [b"OK", 1])
    assert [step.args[0] for step in follow(lock.extend(), error, 1) if isinstance(step, Ask)] == [b"SET", b"EVAL"]
    assert [step.args[0] for step in follow(lock.release(), error, 1) if isinstance(step, Ask)] == [b"DELIFEQ", b"EVAL"]


LACKING = UnknownCommandError("ERR", "unknown command 'KV.GETL'")


def cached() -> Recipe[bytes]:
    return Cache(lambda: 0.0).get_or_set("k", ttl=1, stale=0, early=0, lease=1)


def test_a_lease_is_given_back_even_if_the_value_cannot_be_stored() -> None:
    full = ServerError("OOM", "command not allowed")
    script = Script(LACKING, [None, -2], [b"OK", None, -2], b"value", full, 1)
    with pytest.raises(ServerError):
        run(cached(), script)
    assert isinstance(script.steps[3], Call)
    lease = script.steps[2]
    assert isinstance(lease, Together)
    assert script.steps[-1] == Ask((b"DELIFEQ", beside(b"k", "lease"), lease.commands[0][2]))


def test_a_value_that_came_between_the_looks_is_taken() -> None:
    steps = follow(cached(), LACKING, [None, -2], [b"OK", b"value", 900], 1)
    assert not any(isinstance(step, Call) for step in steps)


def test_a_server_without_leases_is_asked_for_one_once() -> None:
    cache = Cache(lambda: 0.0)
    for answers in ((LACKING, [b"value", 5000]), ([b"value", 5000],)):
        steps = follow(cache.get_or_set("k", ttl=10, stale=0, early=0, lease=1), *answers)
    assert [type(step) for step in steps] == [Together]


# ---- values computed early, and values that change while they are computed -------------------------------------------


def test_one_computes_early(client: kvclient.Client) -> None:
    client.set("k", "old", ttl=50)

    def compute() -> bytes:
        assert client.get_or_set("k", lambda: b"never", ttl=100, early=60) == b"old"  # somebody else meanwhile
        return b"new"

    assert client.get_or_set("k", compute, ttl=100, early=60) == b"new"
    assert client.get_or_set("k", lambda: b"never", ttl=100, early=60) == b"new"


def test_what_fails_early_does_no_harm(client: kvclient.Client) -> None:
    client.set("k", "old", ttl=50)
    assert client.get_or_set("k", lambda: b"%d" % (1 // 0), ttl=100, early=60) == b"old"
    assert client.get_or_set("k", lambda: b"new", ttl=100, early=60) == b"new"  # the lease was given back
    client.set("k", "old", ttl=50)
    with pytest.raises(ZeroDivisionError):
        client.get_or_set("k", lambda: b"%d" % (1 // 0), ttl=100, early=10, stale=60)  # this one is old


def test_what_was_deleted_meanwhile_is_not_stored(own_kv: kvclient.Client) -> None:
    """What kvserver's leases are for: the value was computed from what has changed since."""

    def compute() -> bytes:
        own_kv.delete("k")  # by whoever changed the data that the value is computed from
        return b"outdated"

    assert own_kv.get_or_set("k", compute, ttl=100) == b"outdated"  # its caller had asked before the change
    assert own_kv.get_or_set("k", lambda: b"right", ttl=100) == b"right"
