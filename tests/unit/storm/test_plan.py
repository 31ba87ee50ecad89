"""A storm is fixed by its seed."""

from __future__ import annotations

from itertools import pairwise

from stormlib.plan import Fault, make_plan
from stormlib.storm import MAKERS, tracks

TRACKS = tracks(whatsapp=True, asynchronous=True)


def plan(seed: int) -> dict[str, list[Fault]]:
    return {track: list(faults) for track, faults in make_plan(seed, 600, 6, 3, TRACKS).items()}


def test_the_same_seed_makes_the_same_faults_and_another_one_others() -> None:
    assert plan(7) == plan(7)
    assert plan(7) != plan(8)


def test_the_faults_of_a_track_follow_each_other_and_all_are_repaired_in_time() -> None:
    for faults in plan(7).values():
        assert all(before.at + before.length < after.at for before, after in pairwise(faults))
        assert faults[-1].at + faults[-1].length <= 600


def test_every_kind_is_made_in_a_long_storm() -> None:
    assert {fault.kind for faults in plan(7).values() for fault in faults} == MAKERS.keys()


def test_a_longer_storm_begins_like_a_shorter_one() -> None:
    shorter = make_plan(7, 60, 6, 3, TRACKS)["nodes"]
    assert plan(7)["nodes"][: len(shorter)] == shorter
