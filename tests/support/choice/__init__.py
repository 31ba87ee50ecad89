"""Random histories of the queue, and a simple model that says which job may go next."""

import pytest

# These modules assert for the tests that use them; pytest explains asserts only where it is told to.
pytest.register_assert_rewrite(
    *(f"tests.support.choice.{name}" for name in ("judge", "referee", "world", "real_queue"))
)
