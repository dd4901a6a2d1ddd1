"""Limits on what users may do, kept in Redis: a fixed window, a bucket of tokens, and how many at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass

import redis


@dataclass(frozen=True)
class Decision:
    allowed: bool
    left: int


class FixedWindow:
    """So many in each window, which begins with the first."""

    def __init__(self, client: redis.Redis, name: str, limit: int, seconds: float) -> None:
        self._client, self._name, self._limit, self._milliseconds = client, name, limit, round(seconds * 1000)

    def use(self, who: str, amount: int = 1) -> Decision:
        key = f"window:{self._name}:{who}"
        with self._client.pipeline() as pipe:
            pipe.set(key, 0, px=self._milliseconds, nx=True)
            pipe.incrby(key, amount)
            _, count = pipe.execute()
        return Decision(count <= self._limit, max(0, self._limit - count))

    def forget(self, who: str) -> None:
        self._client.delete(f"window:{self._name}:{who}")


class TokenBucket:
    """A bucket that fills evenly; a request takes tokens out, if there are as many."""

    def __init__(self, client: redis.Redis, name: str, capacity: int, per_second: float, clock=time.time) -> None:
        self._client, self._name, self._capacity, self._rate = client, name, capacity, per_second
        self._clock = clock

    def take(self, who: str, amount: int = 1) -> Decision:
        key = f"bucket:{self._name}:{who}"

        def attempt(pipe: redis.client.Pipeline) -> Decision:
            now = self._clock()
            tokens, then = map(float, (pipe.get(key) or f"{self._capacity} {now}".encode()).split())
            tokens = min(self._capacity, tokens + (now - then) * self._rate)
            allowed = tokens >= amount
            tokens -= amount if allowed else 0
            pipe.multi()
            pipe.set(key, f"{tokens} {now}", ex=int(self._capacity / self._rate) + 1)
            return Decision(allowed, int(tokens))

        return self._client.transaction(attempt, key, value_from_callable=True)


class Concurrency:
    """So many at a time, each for a limited time, in case it never gives its place back."""

    def __init__(self, client: redis.Redis, name: str, limit: int, seconds: float) -> None:
        self._client, self._name, self._limit, self._milliseconds = client, name, limit, round(seconds * 1000)

    def enter(self) -> int | None:
        for place in range(self._limit):
            if self._client.set(f"place:{self._name}:{place}", 1, px=self._milliseconds, nx=True):
                return place
        return None

    def leave(self, place: int) -> None:
        self._client.delete(f"place:{self._name}:{place}")
