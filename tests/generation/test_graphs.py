"""The graphs of sets, with a recorder that runs what it was given again; on a GPU, with the real one."""

from collections.abc import Callable

import pytest
import torch

from nova.diffusion.flow import FlowProcess
from nova.diffusion.gaussian import GaussianProcess
from nova.diffusion.process import Process
from nova.generation.graphs import CudaRecorder, SetGraphs
from nova.generation.guidance import Guidance
from nova.generation.options import GenerationOptions
from nova.generation.video import generate_video
from nova.models.nova import NovaTransformer
from tests import tiny

SETS, FRAMES = 4, 3
OPTIONS = GenerationOptions(steps=SETS, diffusion_steps=3, guidance=Guidance(3.0, min_scale=1.5))


class Repeats:
    """A recorder for any device. Like a graph, it sees new inputs only where they are copied to its own tensors."""

    def __init__(self) -> None:
        self.recorded = self.settled = 0

    def memory(self) -> None:
        return None

    def record(self, function: Callable[[], torch.Tensor], memory: None) -> tuple[Callable[[], object], torch.Tensor]:
        self.recorded += 1
        result = torch.full_like(function(), torch.nan)
        return lambda: result.copy_(function()), result

    def settle(self) -> None:
        self.settled += 1


@torch.no_grad()
def video(
    model: NovaTransformer,
    graphs: SetGraphs | None,
    seed: int = 0,
    options: GenerationOptions = OPTIONS,
    process: Process | None = None,
    size: tuple[int, int] = (8, 12),
) -> torch.Tensor:
    device = next(model.parameters()).device
    text = tiny.prompt(model).to(device)
    prompt = options.guidance.expand(text, text.flip(0))
    generator = torch.Generator().manual_seed(seed)
    steps = generate_video(model, process or FlowProcess(), prompt, size, FRAMES, options, generator, None, graphs)
    return torch.stack([step.latents for step in steps if step.finished], dim=2)


@pytest.mark.parametrize("process", [FlowProcess(), GaussianProcess()], ids=["flow", "ddpm"])
def test_a_replayed_set_gives_what_a_plain_one_gives(process: Process) -> None:
    model, recorder = tiny.model(torch.float32), Repeats()
    graphs = SetGraphs(recorder)
    for seed in (0, 1):
        assert torch.allclose(video(model, graphs, seed, process=process), video(model, None, seed, process=process))
    assert recorder.recorded == SETS


def test_a_set_that_comes_up_once_is_not_recorded() -> None:
    model, recorder = tiny.model(torch.float32), Repeats()
    graphs = SetGraphs(recorder)
    steps = generate_video(
        model, FlowProcess(), tiny.prompt(model).detach()[None], (8, 12), 1,
        GenerationOptions(steps=SETS, diffusion_steps=3, guidance=Guidance(1.0)), None, None, graphs,
    )  # fmt: skip
    assert len(list(steps)) == SETS
    assert recorder.recorded == 0


@torch.no_grad()
def test_runs_that_take_turns_do_not_disturb_each_other() -> None:
    model = tiny.model(torch.float32)
    graphs = SetGraphs(Repeats())
    video(model, graphs)
    alone = [video(model, None, seed) for seed in (1, 2)]
    text = tiny.prompt(model)
    prompt = OPTIONS.guidance.expand(text, text.flip(0))
    runs = [
        generate_video(
            model, FlowProcess(), prompt, (8, 12), FRAMES, OPTIONS, torch.Generator().manual_seed(seed), None, graphs
        )
        for seed in (1, 2)
    ]
    turns = list(zip(*runs, strict=True))
    for run, whole in zip(zip(*turns, strict=True), alone, strict=True):
        assert torch.allclose(torch.stack([step.latents for step in run if step.finished], dim=2), whole)


@pytest.mark.parametrize(
    "change",
    [
        {"guidance": Guidance(3.0, renorm=0.5)},
        {"guidance": Guidance(3.0, truncation=500.0)},
        {"diffusion_steps": 4},
        {"guidance": Guidance(3.0, image_scale=2.0)},
    ],
)
def test_other_options_are_another_kind_of_frame(change: dict) -> None:
    model, recorder = tiny.model(torch.float32), Repeats()
    graphs = SetGraphs(recorder)
    video(model, graphs)
    other = GenerationOptions(**{"steps": SETS, "diffusion_steps": 3, "guidance": Guidance(3.0)} | change)
    assert torch.allclose(video(model, graphs, options=other), video(model, None, options=other))
    assert recorder.recorded == 2 * SETS


def test_a_scale_is_an_input_and_changed_weights_are_read_anew() -> None:
    model, recorder = tiny.model(torch.float32), Repeats()
    graphs = SetGraphs(recorder)
    video(model, graphs)
    other = GenerationOptions(steps=SETS, diffusion_steps=3, guidance=Guidance(6.0))
    with torch.no_grad():
        model.denoiser.head.bias.add_(0.1)
    assert torch.allclose(video(model, graphs, options=other), video(model, None, options=other))
    assert recorder.recorded == SETS


def test_other_numbers_of_sets_share_a_kind_of_frame_but_no_graph() -> None:
    model, recorder = tiny.model(torch.float32), Repeats()
    graphs = SetGraphs(recorder, kinds=1)
    for steps in (4, 6, 2, 4):
        options = GenerationOptions(steps=steps, diffusion_steps=3, guidance=Guidance(3.0))
        assert torch.allclose(video(model, graphs, options=options), video(model, None, options=options))
    assert recorder.settled == 0


def test_weights_elsewhere_are_another_kind_of_frame_and_old_kinds_are_forgotten() -> None:
    recorder = Repeats()
    graphs = SetGraphs(recorder, kinds=1)
    model, other = tiny.model(torch.float32), tiny.model(torch.float32)
    video(model, graphs)
    assert recorder.settled == 0
    assert torch.allclose(video(other, graphs), video(other, None))
    assert (recorder.recorded, recorder.settled) == (2 * SETS, 1)
    video(model, graphs)
    assert recorder.recorded == 3 * SETS


def test_where_nothing_can_be_recorded_sets_are_plain_with_one_warning() -> None:
    class Refuses(Repeats):
        def record(self, function: object, memory: None) -> tuple[Callable[[], object], torch.Tensor]:
            raise RuntimeError("operation not permitted")

    model = tiny.model(torch.float32)
    with pytest.warns(UserWarning, match="not permitted") as warned:
        assert torch.equal(video(model, SetGraphs(Refuses())), video(model, None))
    assert len([one for one in warned if "CUDA graphs" in str(one.message)]) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("process", [FlowProcess(), GaussianProcess()], ids=["flow", "ddpm"])
def test_cuda_graphs_give_what_plain_sets_give(process: Process, dtype: torch.dtype) -> None:
    model = tiny.model(dtype).cuda()
    graphs = SetGraphs(CudaRecorder())
    for seed in (0, 1, 2):
        replayed, plain = (video(model, one, seed, process=process) for one in (graphs, None))
        assert torch.allclose(replayed, plain, atol=1e-4 if dtype == torch.float32 else 5e-2)
