"""The rate limiter's tests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from limiter import Concurrency, Decision, FixedWindow, TokenBucket


@pytest.fixture
def client(redis_settings) -> Iterator[redis.Redis]:
    pool = redis.ConnectionPool.from_url(**redis_settings)
    with redis.Redis(connection_pool=pool) as client:
        yield client
    pool.disconnect()


class TestFixedWindow:
    @pytest.fixture
    def window(self, client):
        return FixedWindow(client, "login", 3, 60)

    def test_up_to_the_limit(self, window):
        assert [window.use("ann").allowed for _ in range(5)] == [True, True, True, False, False]

    def test_tells_what_is_left(self, window):
        assert [window.use("ann").left for _ in range(4)] == [2, 1, 0, 0]

    def test_each_user_has_their_own(self, window):
        window.use("ann", 3)
        assert window.use("bob") == Decision(True, 2)

    def test_more_than_one_at_a_time(self, window):
        assert window.use("ann", 2).allowed
        assert not window.use("ann", 2).allowed

    def test_forgotten(self, window):
        window.use("ann", 3)
        window.forget("ann")
        assert window.use("ann").allowed

    def test_it_ends(self, client, pass_time):
        window = FixedWindow(client, "login", 1, 1)
        assert window.use("ann").allowed
        assert not window.use("ann").allowed
        pass_time(1.01)
        assert window.use("ann").allowed

    def test_it_is_not_made_longer_by_using_it(self, client, pass_time):
        window = FixedWindow(client, "login", 1, 1)
        window.use("ann")
        pass_time(0.6)
        assert not window.use("ann").allowed
        pass_time(0.6)
        assert window.use("ann").allowed

    def test_windows_do_not_share_their_counts(self, client):
        FixedWindow(client, "one", 1, 60).use("ann")
        assert FixedWindow(client, "two", 1, 60).use("ann").allowed

    def test_many_at_once(self, client):
        window = FixedWindow(client, "login", 20, 60)
        with ThreadPoolExecutor(4) as pool:
            assert sum(each.allowed for each in pool.map(window.use, ["ann"] * 40)) == 20


class TestTokenBucket:
    @pytest.fixture
    def clock(self):
        return [1000.0]

    @pytest.fixture
    def bucket(self, client, clock):
        return TokenBucket(client, "api", 10, 2, lambda: clock[0])

    def test_full_at_first(self, bucket):
        assert bucket.take("ann", 10) == Decision(True, 0)

    def test_not_more_than_there_are(self, bucket):
        assert bucket.take("ann", 7).allowed
        assert bucket.take("ann", 4) == Decision(False, 3)
        assert bucket.take("ann", 3).allowed

    def test_it_fills(self, bucket, clock):
        bucket.take("ann", 10)
        clock[0] += 1.5
        assert bucket.take("ann", 3) == Decision(True, 0)

    def test_not_beyond_what_it_holds(self, bucket, clock):
        bucket.take("ann", 10)
        clock[0] += 1000
        assert bucket.take("ann", 1).left == 9

    @pytest.mark.parametrize("amount", range(1, 11))
    def test_any_amount(self, bucket, amount):
        assert bucket.take("ann", amount).left == 10 - amount

    def test_each_has_their_own(self, bucket):
        bucket.take("ann", 10)
        assert bucket.take("bob").allowed

    def test_many_at_once(self, bucket):
        with ThreadPoolExecutor(4) as pool:
            assert sum(each.allowed for each in pool.map(bucket.take, ["ann"] * 30)) == 10


class TestConcurrency:
    @pytest.fixture
    def places(self, client):
        return Concurrency(client, "reports", 2, 60)

    def test_so_many(self, places):
        assert [places.enter(), places.enter(), places.enter()] == [0, 1, None]

    def test_given_back(self, places):
        first = places.enter()
        places.enter()
        places.leave(first)
        assert places.enter() == first

    def test_who_never_comes_back_is_forgotten(self, client, pass_time):
        places = Concurrency(client, "reports", 1, 1)
        places.enter()
        assert places.enter() is None
        pass_time(1.01)
        assert places.enter() == 0
