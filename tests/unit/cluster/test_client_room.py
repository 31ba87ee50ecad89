"""How many clients a worker may have open, by what its host has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardd.supervisor.cluster.client_room import LEAST, ClientRoom, Host, room_for_clients

GIB = 2**30
MIB = 2**20
SMALL = Host(memory=4 * GIB, fds=524_288, threads=65_536)
"""2 cores and 4 GB, as the unit of systemd limits it."""


def room(host: Host, workers: int, *, rss: int = GIB, fds: int = 0, go_memory: int = 512 * MIB) -> ClientRoom:
    return room_for_clients(host, workers=workers, rss=rss, fds=fds, go_memory=go_memory)


@pytest.mark.parametrize("workers", [4, 8])
def test_a_small_host_holds_the_clients_of_three_thousand_devices(workers: int) -> None:
    assert room(SMALL, workers).clients * workers >= 3000


@pytest.mark.parametrize("workers", [16, 64, 256])
def test_a_host_with_many_workers_has_room_for_as_many_clients(workers: int) -> None:
    assert room(replace(SMALL, memory=workers * GIB), workers).clients >= 128


@pytest.mark.parametrize(
    ("host", "workers", "rss", "fds", "limit"),
    [
        (SMALL, 8, GIB, 0, "the memory of this host"),
        (replace(SMALL, memory=64 * GIB), 2, GIB // 2, 0, "worker.recycle.rss"),
        (replace(SMALL, memory=64 * GIB), 2, GIB, 0, "worker.go_memory_limit"),
        (replace(SMALL, fds=1024), 2, GIB, 0, "the limit of file descriptors (LimitNOFILE)"),
        (SMALL, 2, GIB, 900, "worker.recycle.fds"),
        (replace(SMALL, threads=500), 2, GIB, 0, "the limit of threads (TasksMax)"),
    ],
)
def test_the_smallest_budget_is_named(host: Host, workers: int, rss: int, fds: int, limit: str) -> None:
    assert room(host, workers, rss=rss, fds=fds).limit == limit


def test_what_is_not_limited_takes_nothing() -> None:
    host = replace(SMALL, memory=1024 * GIB, fds=2**20, threads=None)
    assert room(host, 1, rss=0, go_memory=100 * GIB).clients > 100_000


def test_there_is_always_room_for_some() -> None:
    assert room(replace(SMALL, memory=GIB // 8), 8) == ClientRoom(LEAST, "the memory of this host")


@pytest.mark.parametrize("share", ["memory", "threads"])
def test_workers_share_what_the_host_has(share: str) -> None:
    host = replace(
        SMALL, memory=4 * GIB if share == "memory" else 1024 * GIB, threads=1200 if share == "threads" else None
    )
    few, many = (room(host, workers, rss=0, go_memory=GIB).clients for workers in (2, 4))
    assert many < few <= 2.5 * many + 100
