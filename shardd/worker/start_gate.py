"""Which jobs of a worker may begin: any number at once, but a suspect only when no other is in flight.

A suspect is a job that was being prepared when two workers died. It begins when all others have ended, those handed over
included, because their outcomes would be lost with the worker; until its own outcome is known, the others wait. After a suspect,
those that waited go first, so that many suspects do not block all others.

A careful worker, whose two predecessors died, sends one job at a time, and last those that were being prepared when one of them
died: what kills it is known then, and until then it sends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from shardd.ipc import ClaimKey, JobSpec


class StartGate:
    """`begin` is called for each job when it may begin, with whether no other may until it ends.

    `later` calls a function when all jobs that arrived together are offered, so that those that are not suspects go first and
    prove that the worker is healthy.
    """

    def __init__(
        self,
        begin: Callable[[JobSpec, bool], None],
        *,
        later: Callable[[Callable[[], None]], object],
        careful: bool = False,
    ) -> None:
        self._begin = begin
        self._later = later
        self._careful = careful
        self._under_way: set[ClaimKey] = set()
        self._exclusive: ClaimKey | None = None
        self._suspects: deque[JobSpec] = deque()
        self._others: deque[JobSpec] = deque()
        self._others_first = True

    @property
    def waiting(self) -> list[ClaimKey]:
        """Jobs that have not begun."""
        return [job.key for job in (*self._others, *self._suspects)]

    def offer(self, job: JobSpec) -> None:
        """Begin a job, now or when it may."""
        if not (self._careful or job.alone or self._suspects or self._exclusive):
            self._let_in(job)
            return
        last = job.worker_deaths > 0 if self._careful else job.alone
        (self._suspects if last else self._others).append(job)
        self._later(self._let_next_in)

    def ended(self, claim: ClaimKey) -> None:
        """A job has ended."""
        self._under_way.discard(claim)
        if claim == self._exclusive:
            self._exclusive, self._others_first = None, True
        self._let_next_in()

    def relax(self) -> None:
        """The worker has proven itself: from now on only suspects are sent alone."""
        self._careful = False
        waiting = self.close()
        for job in waiting:
            self.offer(job)
        self._let_next_in()

    def close(self) -> list[JobSpec]:
        """Begin none of the jobs that wait; returns them."""
        left = [*self._others, *self._suspects]
        self._suspects.clear()
        self._others.clear()
        return left

    def _let_next_in(self) -> None:
        if self._exclusive is not None:
            return
        if self._careful:
            if queue := self._others or self._suspects:
                self._let_in(queue.popleft(), exclusive=True)
            return
        if self._others_first or not self._suspects:
            self._others_first = False
            while self._others:
                self._let_in(self._others.popleft())
        if self._suspects and not self._under_way:
            self._let_in(self._suspects.popleft(), exclusive=True)

    def _let_in(self, job: JobSpec, *, exclusive: bool = False) -> None:
        self._under_way.add(job.key)
        if exclusive:
            self._exclusive = job.key
        self._begin(job, exclusive)
