"""Three processes and two hundred people on one database, while Redis, the network and the processes fail.

After each run everybody shows exactly what is stored; no frame came twice or went backwards (each person looks at every
one); nothing that was acknowledged is missing or there twice.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from django_store.servers import postgresql
from fleet import Crowd, Fleet, crowd_of
from redis_servers import Proxy, RedisServer, redis_servers

Trouble = Callable[[Crowd, RedisServer, list[Proxy]], Awaitable[None]]
NODES = 3


async def redis_dies(crowd: Crowd, redis: RedisServer, __: list[Proxy]) -> None:
    for _ in range(2):
        redis.kill()
        # Without it the chat goes on.
        await crowd.more_acks(400)
        await asyncio.to_thread(redis.start)
        await crowd.more_acks(200)


async def redis_freezes(crowd: Crowd, redis: RedisServer, _: list[Proxy]) -> None:
    redis.freeze()
    await crowd.more_acks(1_200)
    redis.thaw()
    await crowd.more_acks(300)


async def redis_throws_clients_out(crowd: Crowd, redis: RedisServer, _: list[Proxy]) -> None:
    for kind in ("pubsub", "normal") * 6:
        with redis.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", kind)
        await crowd.more_acks(60)


async def processes_die(crowd: Crowd, _: RedisServer, __: list[Proxy]) -> None:
    for node in crowd.fleet.nodes:
        await asyncio.to_thread(node.kill)
        await crowd.more_acks(100)
        await asyncio.to_thread(crowd.fleet.start, node)
        await crowd.more_acks(100)


async def the_network_delays_and_cuts(crowd: Crowd, _: RedisServer, proxies: list[Proxy]) -> None:
    dice = random.Random(5)
    for number in range(12):
        # Different ones each, so that what was committed first arrives last.
        for proxy in proxies:
            proxy.delay = dice.choice([0, 0.02, 0.1])
        if number % 3 == 2:
            dice.choice(proxies).cut()
        await crowd.more_acks(80)
    for proxy in proxies:
        proxy.delay = 0


async def everything_at_once(crowd: Crowd, redis: RedisServer, proxies: list[Proxy]) -> None:
    dice = random.Random(6)
    proxies[0].delay = 0.05
    redis.freeze()
    await crowd.more_acks(100)
    await asyncio.to_thread(crowd.fleet.nodes[2].kill)
    redis.thaw()
    await crowd.more_acks(100)
    redis.kill()
    await asyncio.to_thread(crowd.fleet.start, crowd.fleet.nodes[2])
    await asyncio.to_thread(redis.start)
    for _ in range(4):
        dice.choice(proxies).cut()
        await crowd.more_acks(60)


@contextmanager
def a_fleet(tmp_path: Path, database: str) -> Iterator[tuple[Fleet, RedisServer, list[Proxy]]]:
    with ExitStack() as stack:
        (redis,) = stack.enter_context(redis_servers(tmp_path, 1))
        dice = random.Random(3)
        proxies = [stack.enter_context(Proxy(redis.port, dice)) for _ in range(NODES)]
        port = stack.enter_context(postgresql()) if database == "postgresql" else None
        fleet = Fleet(tmp_path / "data", [f"redis://127.0.0.1:{proxy.port}" for proxy in proxies], port)
        stack.callback(fleet.show)
        stack.callback(fleet.close)
        for node in fleet.nodes:
            fleet.start(node)
        yield fleet, redis, proxies


TROUBLES = [
    redis_dies,
    redis_freezes,
    redis_throws_clients_out,
    processes_die,
    the_network_delays_and_cuts,
    everything_at_once,
]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_nothing_is_lost_doubled_or_out_of_order(trouble: Trouble, database: str, tmp_path: Path) -> None:
    async def main() -> None:
        with a_fleet(tmp_path, database) as (fleet, redis, proxies):
            async with crowd_of(fleet) as crowd:
                await crowd.more_acks(200)
                await trouble(crowd, redis, proxies)
                await crowd.come_to_rest()
                assert crowd.served == set(fleet.nodes), "every process has served somebody"
                print(f"{crowd.acks} acknowledged")

    asyncio.run(main())
