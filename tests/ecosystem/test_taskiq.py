"""taskiq-redis: its result backend and its schedules. Its brokers need lists or streams."""

from __future__ import annotations

import asyncio

from taskiq import InMemoryBroker, ScheduledTask
from taskiq_redis import RedisAsyncResultBackend, RedisScheduleSource


def test_results(url: str) -> None:
    async def main() -> None:
        broker = InMemoryBroker().with_result_backend(RedisAsyncResultBackend(url, result_ex_time=60))

        @broker.task
        async def add(a: int, b: int) -> int:
            return a + b

        @broker.task
        async def fail() -> None:
            raise ValueError("no")

        await broker.startup()
        assert (await (await add.kiq(1, 2)).wait_result(timeout=10)).return_value == 3
        failed = await (await fail.kiq()).wait_result(timeout=10)
        assert failed.is_err
        await broker.shutdown()

    asyncio.run(main())


def test_results_read_once(url: str) -> None:
    async def main() -> None:
        backend: RedisAsyncResultBackend[int] = RedisAsyncResultBackend(url, keep_results=False)
        broker = InMemoryBroker().with_result_backend(backend)

        @broker.task
        async def one() -> int:
            return 1

        await broker.startup()
        task = await one.kiq()
        assert (await task.wait_result(timeout=10)).return_value == 1
        assert not await backend.is_result_ready(task.task_id)
        await broker.shutdown()

    asyncio.run(main())


def test_schedules(url: str) -> None:
    async def main() -> None:
        source = RedisScheduleSource(url)
        for number in range(120):
            await source.add_schedule(
                ScheduledTask(schedule_id=str(number), task_name="t", labels={}, args=[], kwargs={}, cron="* * * * *")
            )
        await source.delete_schedule("7")
        assert {schedule.schedule_id for schedule in await source.get_schedules()} == set(map(str, range(120))) - {"7"}
        await source.shutdown()

    asyncio.run(main())
