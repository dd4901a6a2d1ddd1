"""dramatiq's rate limiters on Redis: WATCH, GET, MULTI, SET, EXEC. Its broker and barriers need lists."""

from __future__ import annotations

import threading

from dramatiq.rate_limits import BucketRateLimiter, ConcurrentRateLimiter, WindowRateLimiter
from dramatiq.rate_limits.backends import RedisBackend


def test_buckets_and_windows(url: str) -> None:
    backend = RedisBackend(url=url)
    for limiter in (
        BucketRateLimiter(backend, "bucket", limit=2, bucket=60_000),
        WindowRateLimiter(backend, "window", limit=2, window=60),
    ):
        taken = []
        for _ in range(4):
            with limiter.acquire(raise_on_failure=False) as acquired:
                taken.append(acquired)
        assert taken == [True, True, False, False]


def test_no_more_at_once_than_allowed(url: str) -> None:
    limiter = ConcurrentRateLimiter(RedisBackend(url=url), "jobs", limit=3, ttl=60_000)
    start, all_tried = threading.Barrier(8), threading.Barrier(8)
    acquired = []

    def work() -> None:
        start.wait()
        with limiter.acquire(raise_on_failure=False) as mine:
            acquired.append(mine)
            all_tried.wait()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(acquired) == 3
    with limiter.acquire(raise_on_failure=False) as again:
        assert again
