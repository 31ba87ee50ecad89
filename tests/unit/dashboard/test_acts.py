"""What the audit log keeps of long texts."""

from __future__ import annotations

from shardd.queue.acts import MOST, shortened


def test_of_a_list_of_ids_whole_ones_are_kept_and_the_others_counted() -> None:
    ids = [*range(1_234_500, 1_234_600)]
    kept = shortened(f"retried 100 jobs; jobs {', '.join(map(str, ids))}")
    assert len(kept) <= MOST
    shown, _, more = kept.removeprefix("retried 100 jobs; jobs ").partition(" and ")
    listed = [int(one) for one in shown.split(", ")]
    assert listed == ids[: len(listed)]
    assert more == f"{100 - len(listed)} more"
    assert len(listed) > 40


def test_what_is_no_list_of_ids_ends_with_an_ellipsis() -> None:
    assert shortened("x" * MOST) == "x" * MOST
    for text in ("x" * 600, "one, two, " * 100, "7" * 600, f"1, 2: {'x' * 600}"):
        assert shortened(text) == text[: MOST - 1] + "…"
