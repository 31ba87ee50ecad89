"""Arrays written as text arrive with the same values."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardd.queue.values import array
from tests.fixtures.postgres import Cluster

# PostgreSQL's text holds every character but NUL and lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
AWKWARD = st.sampled_from(["", "NULL", "null", "{}", "a,b", '"', "\\", '\\"', " leading", "{\\}", "\n"])

with_cluster = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60
)


@with_cluster
@given(values=st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_arrive(postgres: Cluster, values: list[int]) -> None:
    with postgres.superuser() as connection:
        assert connection.execute("SELECT %s::bigint[]", (array(list(values)),)).fetchone() == (values,)


@with_cluster
@given(values=st.lists(st.none() | AWKWARD | TEXT))
def test_texts_arrive(postgres: Cluster, values: list[str | None]) -> None:
    with postgres.superuser() as connection:
        assert connection.execute("SELECT %s::text[]", (array(list(values)),)).fetchone() == (values,)
