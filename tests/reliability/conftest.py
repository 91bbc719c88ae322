"""What the process that all others are forked from has loaded: for the long tests also what a transformer needs."""

import pytest

from tests.reliability.strike import CONTEXT, PRELOADED


@pytest.fixture(autouse=True, scope="session")
def preloaded(request: pytest.FixtureRequest) -> None:
    """Takes effect with the first process."""
    long = any(item.get_closest_marker("slow") for item in request.session.items)
    more = ["nova.training.transformer", "tests.training.samples"] if long else []
    CONTEXT.set_forkserver_preload([*PRELOADED, *more])
