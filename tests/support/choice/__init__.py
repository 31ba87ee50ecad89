"""Random histories of the queue, and a simple model that says which job may go next."""

import pytest

# These modules contain asserts for the tests; pytest rewrites them only if they are registered.
pytest.register_assert_rewrite(
    *(f"tests.support.choice.{name}" for name in ("judge", "referee", "world", "real_queue"))
)
