"""What a bound producer may insert and sees, through real logins: nothing of anybody else's, by no way round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from psycopg import errors

from tests.bound_producers import Tenants, insert, seen
from tests.fix_postgres import Cluster


@pytest.fixture
def tenants(postgres: Cluster, dbname: str, make_role: Callable[..., str]) -> Tenants:
    return Tenants(postgres, dbname, make_role)


@pytest.fixture
def alpha(tenants: Tenants) -> str:
    """Bound to device a1, group ga and campaign ca."""
    tenants.bind(tenants.role("alpha"), "a1", groups=("ga",), campaigns=("ca",))
    return "alpha"


@pytest.fixture
def beta(tenants: Tenants) -> str:
    """Bound to device b1 and campaign cb."""
    tenants.bind(tenants.role("beta"), "b1", campaigns=("cb",))
    return "beta"


ALLOWED: list[dict[str, Any]] = [
    {"device_id": "a1"},
    {"device_id": "a1", "campaign": "ca"},
    {"device_group": "ga"},
    {"device_group": "ga", "campaign": "ca"},
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"device_id": "b1"}, "device_id 'b1' is not bound to alpha"),
    ({"device_id": "a2"}, "device_id 'a2' is not bound to alpha"),  # of its group, and still not its own
    ({"device_id": "b1", "campaign": "ca"}, "device_id 'b1' is not bound to alpha"),
    ({"device_group": "gb"}, "device_group 'gb' is not bound to alpha"),
    ({"device_id": "a1", "campaign": "cb"}, "campaign 'cb' is not bound to alpha"),
    ({"device_group": "ga", "campaign": "cb"}, "campaign 'cb' is not bound to alpha"),
]


@pytest.mark.parametrize("fields", ALLOWED)
def test_a_bound_role_inserts_for_what_is_bound(tenants: Tenants, alpha: str, fields: dict[str, Any]) -> None:
    with tenants.session(alpha) as session:
        job = insert(session, **fields)
        assert seen(session) == {job}


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_a_bound_role_inserts_for_nothing_else(
    tenants: Tenants, alpha: str, fields: dict[str, Any], message: str
) -> None:
    with tenants.session(alpha) as session, pytest.raises(errors.InsufficientPrivilege) as caught:
        insert(session, **fields)
    assert caught.value.diag.message_primary == message
    assert "shardd producer add" in (caught.value.diag.message_hint or "")
