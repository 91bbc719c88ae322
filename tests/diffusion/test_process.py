import diffusers
import pytest
import torch

from nova.diffusion.flow import FlowProcess
from nova.diffusion.gaussian import GaussianProcess
from nova.diffusion.process import SolverStep, solve
from nova.diffusion.scheduler import Scheduler
from nova.errors import CheckpointError, UsageError

FIELDS = {"num_train_timesteps": 1000, "clip_sample": False}
GAUSSIANS = [
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "linear", "prediction_type": "v_prediction"},
    {"beta_schedule": "scaled_linear", "prediction_type": "sample", "timestep_spacing": "trailing"},
    {"beta_schedule": "sigmoid", "timestep_spacing": "linspace"},
    {"beta_schedule": "linear", "variance_type": "fixed_large", "steps_offset": 1},
    {"beta_schedule": "linear", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
]


def prediction(sample: torch.Tensor, row: int) -> torch.Tensor:
    """Stands for a network: any function of the sample and the step."""
    return torch.tanh(sample) * (0.5 + 0.01 * row)


def follow(scheduler: diffusers.SchedulerMixin, steps: int, start: torch.Tensor) -> list[torch.Tensor]:
    """Every sample of a diffusers scheduler's chain, its noise from a generator with seed 1."""
    generator = torch.Generator().manual_seed(1)
    sample, chain = start, []
    for row, time in enumerate(scheduler.timesteps):
        extra = {} if "Flow" in type(scheduler).__name__ else {"generator": generator}
        sample = scheduler.step(prediction(sample, row), time, sample, **extra).prev_sample
        chain.append(sample)
    return chain


def follow_table(table: tuple[SolverStep, ...], start: torch.Tensor) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    chain: list[torch.Tensor] = []

    def predict(sample: torch.Tensor, row: int) -> torch.Tensor:
        chain.append(sample)
        return prediction(sample, row)

    chain.append(solve(table, start, predict, lambda: torch.randn(start.shape, generator=generator)))
    return chain[1:]


@pytest.mark.parametrize("fields", GAUSSIANS, ids=lambda fields: "-".join(map(str, fields.values())))
@pytest.mark.parametrize("steps", [1, 10, 25, 30])
def test_ddpm_tables_follow_diffusers_step_by_step(fields: dict[str, object], steps: int) -> None:
    peer = diffusers.DDPMScheduler(**FIELDS, **fields)
    peer.set_timesteps(steps)
    table = Scheduler.from_config({"_class_name": "DDPMScheduler", **FIELDS, **fields}).sampling.table(steps)
    assert [step.time for step in table] == peer.timesteps.tolist()
    start = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(follow_table(table, start), follow(peer, steps, start), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 10, 25, 30])
def test_flow_tables_follow_diffusers_step_by_step(shift: float, steps: int) -> None:
    peer = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    peer.set_timesteps(steps)
    table = FlowProcess(shift=shift).table(steps)
    assert [step.time for step in table] == pytest.approx(peer.timesteps.tolist(), rel=1e-6)
    start = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(follow_table(table, start), follow(peer, steps, start), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_shift_at_sampling_replaces_the_configs_own() -> None:
    assert FlowProcess().table(10, shift=2.0) != FlowProcess().table(10)
    assert FlowProcess().table(10, shift=1.0) == FlowProcess().table(10)


@pytest.mark.parametrize("process", [GaussianProcess(), FlowProcess(), GaussianProcess(prediction="v_prediction")])
def test_a_perfect_prediction_leads_back_to_the_clean_sample(process: GaussianProcess | FlowProcess) -> None:
    clean = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    table = process.table(50)
    first = int(1000 - table[0].time) if isinstance(process, FlowProcess) else int(table[0].time)

    def exact(sample: torch.Tensor, row: int) -> torch.Tensor:
        time = table[row].time
        if isinstance(process, FlowProcess):
            return (sample - clean) / (time / 1000)
        index = torch.full((3,), int(time))
        zero = process.add_noise(clean, torch.zeros_like(clean), index)
        unit = process.add_noise(torch.zeros_like(clean), torch.ones_like(clean), index)
        return process.target(clean, (sample - zero) / unit, index)

    start = process.add_noise(clean, noise, torch.full((3,), first))
    found = solve(table, start, exact, lambda: torch.zeros_like(start))
    assert torch.allclose(found, clean, atol=1e-5)


@pytest.mark.parametrize("process", [GaussianProcess(), FlowProcess(shift=3.0)])
def test_training_indices_and_times_stay_in_range(process: GaussianProcess | FlowProcess) -> None:
    indices = process.draw_indices((20000,), torch.Generator().manual_seed(0))
    assert indices.min() >= 0
    assert indices.max() <= 999
    times = process.times(indices)
    assert times.min() >= 0
    assert times.max() <= 1000


def test_training_noise_agrees_with_diffusers() -> None:
    clean, noise = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    indices = torch.tensor([0, 10, 500, 999])
    peer = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    ours = GaussianProcess().add_noise(clean, noise, indices)
    assert torch.allclose(ours, peer.add_noise(clean, noise, indices), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"_class_name": "DDIMScheduler"}, "_class_name"),
        ({"_class_name": "DDPMScheduler"}, "clip_sample"),
        ({"_class_name": "DDPMScheduler", "clip_sample": False, "beta_schedule": "exp"}, "beta_schedule"),
        ({"_class_name": "DDPMScheduler", "clip_sample": False, "prediction_type": "noise"}, "prediction"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}, "dynamic"),
    ],
)
def test_configs_that_mean_something_else_are_refused(config: dict[str, object], field: str) -> None:
    with pytest.raises(UsageError, match=field):
        Scheduler.from_config(config)


def test_sampling_and_training_can_be_named_apart(tmp_path: object) -> None:
    names = {"_noise_class_name": "DDPMScheduler", "_sample_class_name": "FlowMatchEulerDiscreteScheduler"}
    scheduler = Scheduler.from_config({"_class_name": "DDPMScheduler", "clip_sample": False, **names})
    assert isinstance(scheduler.sampling, FlowProcess)
    assert isinstance(scheduler.training, GaussianProcess)
    scheduler.save_pretrained(tmp_path)
    assert Scheduler.from_pretrained(tmp_path) == scheduler


def test_a_damaged_config_file_is_named(tmp_path: object) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        Scheduler.from_pretrained(tmp_path)
    (tmp_path / "scheduler_config.json").write_text("[1,")
    with pytest.raises(CheckpointError, match="scheduler_config.json"):
        Scheduler.from_pretrained(tmp_path)


@pytest.mark.parametrize("process", [GaussianProcess(), FlowProcess()])
@pytest.mark.parametrize("steps", [0, -1])
def test_impossible_step_counts_are_refused(process: GaussianProcess | FlowProcess, steps: int) -> None:
    with pytest.raises(UsageError, match="num_diffusion_steps"):
        process.table(steps)
