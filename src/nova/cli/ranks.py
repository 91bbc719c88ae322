"""Which part of a job is this process's, where `torchrun` started several.

Nothing passes between the processes: of N, process r takes outputs r, r + N, r + 2N, … of the same plan. So one that
dies takes nothing of the others with it, and the same command, with any number of processes, goes on.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from nova.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Share:
    """Process `rank` of `size`; `local` counts the processes on one machine, each of which has a device of its own."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def of(cls, variables: Mapping[str, str] = os.environ) -> Share:
        """What RANK, WORLD_SIZE and LOCAL_RANK say; without them the job is one process's."""
        try:
            rank, size, local = (
                int(variables.get(name, default))
                for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
            )
        except ValueError as error:
            raise UsageError(f"RANK, WORLD_SIZE, LOCAL_RANK: {error}; start the processes with torchrun") from None
        if not 0 <= rank < size or local < 0:
            raise UsageError(f"RANK: {rank} of WORLD_SIZE {size}, LOCAL_RANK {local}; start them with torchrun")
        return cls(rank, size, local)

    def numbers(self, count: int) -> range:
        """Which of `count` outputs are this process's."""
        return range(self.rank, count, self.size)

    @property
    def speaks(self) -> bool:
        """Whether this process tells of progress: one does, for itself."""
        return self.rank == 0


ALONE = Share()
"""The only process."""
