"""How many connections the clients of sessions need, and what follows."""

from __future__ import annotations

import pytest

from shardd.supervisor.cluster.store_plan import COMMANDS, DAEMON, LEAST_POOLED, MOST_POOLED, Demand, Supply

FIRST = DAEMON + COMMANDS


@pytest.mark.parametrize(
    ("devices", "shards", "most", "needed"), [(10, 2, 200, 20), (60, 2, 10, 40), (1, 16, 1, 2), (3000, 4, 200, 1600)]
)
def test_two_connections_for_each_client_that_may_be_open(devices: int, shards: int, most: int, needed: int) -> None:
    assert Demand(devices, shards, most).connections == needed


def test_the_daemon_and_commands_come_first() -> None:
    demand = Demand(10, 2, 200)
    assert Supply(FIRST + 20).suffices(demand)
    assert not Supply(FIRST + 19).suffices(demand)


@pytest.mark.parametrize(
    ("free", "pooled"), [(FIRST + 1000, MOST_POOLED), (FIRST + 30, 15), (FIRST + 3, LEAST_POOLED), (0, LEAST_POOLED)]
)
def test_a_pool_takes_half_of_what_is_left_and_never_nothing(free: int, pooled: int) -> None:
    assert Supply(free).pooled() == pooled


@pytest.mark.parametrize(("free", "workers", "clients"), [(FIRST + 40, 2, 10), (FIRST + 40, 0, 20), (0, 4, 1)])
def test_without_a_pool_each_worker_may_open_some(free: int, workers: int, clients: int) -> None:
    assert Supply(free).clients(workers) == clients


def test_both_halves_of_the_sentence() -> None:
    assert f"{Demand(60, 2, 200).words}, {Supply(FIRST + 10).words}" == (
        "60 WhatsApp devices may need 120 connections to PostgreSQL, which has 10 for them"
    )
    assert Supply(3).words == "which has 0 for them"
