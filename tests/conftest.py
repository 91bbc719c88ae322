"""Shared by all tests: one thread, checked shapes, examples without a clock, the parity records when at hand."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

from tests import shapes

PARITY = Path(__file__).parents[2] / "shared" / "parity"
RECORDS = ("t2v_absolute_ddpm", "t2v_rope_flow", "t2i_absolute_flow")

torch.set_num_threads(1)
# How long an example takes says how loaded the machine is. What else is set, as where CI is set, stays.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
_CHECKED = ("layers", "models", "diffusion", "generation", "masking", "randomness", "training.objective")
install_import_hook([f"nova.{name}" for name in _CHECKED], f"{shapes.__name__}.checked")


@pytest.fixture(params=RECORDS)
def record(request: pytest.FixtureRequest) -> Path:
    """The folder of one published-format checkpoint with recorded outputs."""
    folder = PARITY / request.param
    if not folder.is_dir():
        pytest.skip(f"no parity records at {PARITY}")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _traced_without_checks() -> Iterator[None]:
    """What `straight` traces with has no shapes to be checked."""
    from nova.generation import packed

    def trace(*arguments: Any, straight: Callable[..., Any] = packed.straight, **more: Any) -> Callable[..., Any]:
        with mock.patch.object(jaxtyping.config, "jaxtyping_disable", True):
            return straight(*arguments, **more)

    with mock.patch.object(packed, "straight", trace):
        yield


@pytest.fixture
def compiling() -> Iterator[None]:
    """No checks of shapes, which cannot be traced; too many kinds of inputs raise, or plain code would run unseen."""
    torch._dynamo.reset()
    jaxtyping.config.update("jaxtyping_disable", True)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield
    jaxtyping.config.update("jaxtyping_disable", False)
    torch._dynamo.reset()
