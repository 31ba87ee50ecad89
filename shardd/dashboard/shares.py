"""How much of something the requests of one user, or of one token, may take at a time: nobody keeps the others out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from shardd.errors import SharddError

SCARCE: Final = 0.75
"""The part that is given to whoever asks first; of the rest, each gets only its first."""


class TooManyError(SharddError):
    """There is no more at this moment."""


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
    """Those of one user or token."""
    _taken: Counter[str] = field(default_factory=Counter)
    """By who has them."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._taken)

    @contextmanager
    def one_more(self, who: str) -> Iterator[None]:
        """A request of somebody, such as `token shop`. Raises TooManyError when no more may."""
        own, taken = self._taken[who], self._taken.total()
        if own >= self.most_of_one:
            raise TooManyError(f"{own} requests of {who} {self.what} already: {self.instead}")
        if taken >= self.most or (own and taken >= SCARCE * self.most):
            raise TooManyError(f"{taken} requests {self.what} already: {self.instead}")
        self._taken[who] += 1
        try:
            yield
        finally:
            self._taken[who] -= 1
            self._taken += Counter()  # without those that have none
