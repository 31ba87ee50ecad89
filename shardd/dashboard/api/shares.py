"""How much of something the requests of one token may take at a time: nobody keeps the others out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from shardd.dashboard.api.problems import TOO_MANY, ProblemError

SCARCE: Final = 0.75
"""The part that is given to whoever asks first; of the rest, a token gets only its first."""


@dataclass
class Shares:
    """Of one kind of work."""

    what: str
    """Such as `wait for events`, after a number of requests."""
    instead: str
    """What to do about a refusal."""
    most: int
    """Requests at a time."""
    most_of_one: int
    """Those of one token."""
    _taken: Counter[str] = field(default_factory=Counter)
    """By the name of the token."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._taken)

    @contextmanager
    def one_more(self, name: str) -> Iterator[None]:
        """A request with the token of this name. Raises ProblemError when no more may."""
        own, taken = self._taken[name], self._taken.total()
        if own >= self.most_of_one:
            raise ProblemError(TOO_MANY, f"{own} requests with token {name} {self.what} already: {self.instead}")
        if taken >= self.most or (own and taken >= SCARCE * self.most):
            raise ProblemError(TOO_MANY, f"{taken} requests {self.what} already: {self.instead}")
        self._taken[name] += 1
        try:
            yield
        finally:
            self._taken[name] -= 1
            self._taken += Counter()  # without those that have none
