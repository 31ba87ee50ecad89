"""The table of Meta's codes: each code of the list has a meaning, and each meaning an effect."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.errors import DeviceUnavailableError, SendError
from shardd.transports.platforms.callback_data import callback_data, claim_of
from shardd.transports.platforms.cloud_codes import CODES, Meaning, error_of, meaning_of

LISTED = [
    # developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes, updated on 18 June 2026: the codes of
    # its sections on authorization, throttling, integrity, messages, templates, flows, registration and others, as they are
    # transcribed by two published clients of that page.
    *(0, 1, 2, 3, 4, 10, 33, 100, 190, 200, 250, 299, 368, 80007),
    *(130403, 130429, 130472, 130497),
    *(
        131000,
        131005,
        131008,
        131009,
        131016,
        131021,
        131026,
        131030,
        131031,
        131037,
        131042,
        131045,
        131047,
        131048,
        131049,
    ),
    *(131050, 131051, 131052, 131053, 131055, 131056, 131057, 131062, 131063, 131064),
    *(132000, 132001, 132005, 132007, 132012, 132015, 132016, 132018, 132068, 132069),
    *(133000, 133004, 133005, 133006, 133008, 133009, 133010, 133015, 133016),
    *(
        134011,
        134100,
        134101,
        134102,
        135000,
        136024,
        1752041,
        2388019,
        2388039,
        2388040,
        2388047,
        2388072,
        2388073,
        2388293,
    ),
    *(
        2388299,
        2494100,
        2494164,
        2494165,
        2494166,
        2494167,
        2494168,
        2494176,
        2494177,
        2494179,
        2593107,
        2593108,
        2593109,
    ),
    # The Graph API's page on error handling.
    *(17, 102, 104, 341, 613),
]


@pytest.mark.parametrize("code", LISTED)
def test_every_code_of_the_list_has_a_meaning(code: int) -> None:
    assert meaning_of(code) is CODES[code]


@pytest.mark.parametrize("meaning", Meaning)
@pytest.mark.parametrize("retry_after", [None, 7.0])
def test_every_meaning_has_an_effect(meaning: Meaning, retry_after: float | None) -> None:
    error = error_of(meaning, "so it is", retry_after)
    assert isinstance(error, SendError)
    assert "so it is" in str(error)
    if isinstance(error, DeviceUnavailableError):
        assert (error.state is None) == (error.retry_after is not None)


@pytest.mark.parametrize("code", [None, "190", True, 190.0, 7, 999_999, -1])
def test_anything_else_is_unknown(code: object) -> None:
    assert meaning_of(code) is None


BIG = st.integers(0, 2**63 - 1)


@given(BIG, BIG, st.integers(0, 2**31 - 1), st.integers(-(2**63), 2**63 - 1))
def test_a_claim_is_read_back_from_what_meta_repeats(job: int, epoch: int, attempt: int, token: int) -> None:
    text = callback_data((job, epoch, attempt % 10**9, token))
    assert len(text) <= 80
    assert claim_of(text) == (job, epoch, attempt % 10**9, token)


@pytest.mark.parametrize(
    "text", [None, 7, "", "order-17", "shardd:1:2:3", "shardd:1:2:3:x", "shardd:1:2:3:4 ", f"shardd:1:2:3:{2**63}"]
)
def test_the_data_of_another_program_names_no_claim(text: object) -> None:
    assert claim_of(text) is None
