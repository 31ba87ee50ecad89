"""How many clients a worker may have open, by what its host has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardd.supervisor.cluster.client_room import ClientRoom, Host, room_for_clients

GIB = 2**30
SMALL = Host(memory=4 * GIB, fds=524_288, threads=8192)
"""2 cores and 4 GB, as the unit of systemd limits it."""


def room(host: Host, workers: int, *, rss: int = GIB, fds: int = 0) -> ClientRoom:
    return room_for_clients(host, workers=workers, rss=rss, fds=fds)


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_a_small_host_holds_the_clients_of_three_thousand_devices(workers: int) -> None:
    assert room(SMALL, workers).clients * workers >= 2900


@pytest.mark.parametrize(
    ("host", "workers", "rss", "fds", "limit"),
    [
        (SMALL, 8, GIB, 0, "the memory of this host"),
        (replace(SMALL, memory=64 * GIB), 2, GIB, 0, "worker.recycle.rss"),
        (replace(SMALL, fds=1024), 2, GIB, 0, "the limit of file descriptors (LimitNOFILE)"),
        (SMALL, 2, GIB, 900, "worker.recycle.fds"),
        (replace(SMALL, threads=500), 2, GIB, 0, "the limit of threads (TasksMax)"),
    ],
)
def test_the_smallest_budget_is_named(host: Host, workers: int, rss: int, fds: int, limit: str) -> None:
    assert room(host, workers, rss=rss, fds=fds).limit == limit


def test_what_is_not_limited_takes_nothing() -> None:
    host = replace(SMALL, memory=1024 * GIB, fds=2**20, threads=None)
    assert room(host, 1, rss=0).clients > 100_000


def test_there_is_room_for_one_at_least() -> None:
    assert room(replace(SMALL, memory=GIB // 8), 8).clients == 1


@pytest.mark.parametrize("share", ["memory", "threads"])
def test_workers_share_what_the_host_has(share: str) -> None:
    host = replace(
        SMALL, memory=4 * GIB if share == "memory" else 1024 * GIB, threads=1200 if share == "threads" else None
    )
    few, many = (room(host, workers, rss=0).clients for workers in (2, 4))
    assert many < few <= 2.5 * many + 100
