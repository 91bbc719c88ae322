"""Would the tests notice? Plants bugs, one at a time, into a copy of the code, and runs the tests that must fail.

python -m tests.reliability.planted [PART OF A BUG'S NAME ...]

A bug is a replacement of text that stands in the code once; one that no longer does is an error of this list.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAILED = 1
"""pytest's exit code where tests ran and failed."""

CHECKPOINT, STATE, TRAIN = (f"nova/training/{name}.py" for name in ("checkpoint", "state", "train"))
KILLED = "tests/training/test_train.py::test_a_killed_run_goes_on_as_if_it_had_not_been"
KILLED_ANYWHERE = "tests/reliability/test_kills.py::test_a_run_killed_in_each_phase_ends_as_if_it_had_not_been"
ORDER = "tests/reliability/test_saves.py::test_data_are_durable_before_their_name_and_deletions_come_after_it"
KILLED_SAVE = "tests/reliability/test_saves.py::test_a_save_killed_at_its_decisive_calls"
NOT_FINITE = "tests/training/test_train.py::test_a_step_without_a_finite_loss_changes_nothing_and_is_counted"


@dataclass(frozen=True)
class Bug:
    """`old` becomes `new` in `file`; `tests` must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


BUGS = (
    Bug(
        "a checkpoint is written in place",
        CHECKPOINT,
        'aside = folder / f".incomplete-step-{state.step}"',
        "aside = target",
        (KILLED_ANYWHERE,),
    ),
    Bug(
        "a checkpoint has its name before its manifest is durable",
        CHECKPOINT,
        "write_durably(aside / MANIFEST, _manifest(state.step, files))",
        "(aside / MANIFEST).write_bytes(_manifest(state.step, files))",
        (ORDER,),
    ),
    Bug(
        "a checkpoint has its name before its tensors are durable",
        CHECKPOINT,
        "        sync_file(file)",
        "        pass",
        (ORDER,),
    ),
    Bug(
        "old checkpoints are deleted before the new one is published",
        CHECKPOINT,
        "        write_durably(aside / MANIFEST,",
        "        for _, old in checkpoints(folder)[: 1 - keep]:\n"
        "            shutil.rmtree(old)\n"
        "        write_durably(aside / MANIFEST,",
        (KILLED_SAVE,),
    ),
    Bug(
        "the manifest is not compared with the files",
        CHECKPOINT,
        "            _verify(path / name, files[name])",
        "            pass",
        ("tests/training/test_checkpoint.py::test_cut_missing_empty_and_strange_files_are_refused",),
    ),
    Bug(
        "a run whose checkpoints are all damaged starts anew",
        CHECKPOINT,
        "    if faults:\n",
        "    if False:\n",
        ("tests/reliability/test_resume.py::test_without_a_valid_checkpoint_a_run_says_what_is_wrong_with_each",),
    ),
    Bug(
        "the average is not saved",
        STATE,
        '        found |= {f"ema.{name}": tensor for name, tensor in self.ema.shadows.items()}\n',
        "",
        (KILLED_ANYWHERE,),
    ),
    Bug(
        "the average forgets how many updates it has seen",
        STATE,
        '        self.ema.updates = counters["ema_updates"]\n',
        "",
        (KILLED,),
    ),
    Bug(
        "the optimizer's moments are not saved",
        STATE,
        'found[f"optimizer.{name}.{moment}"] = self.optimizer.state[parameter][moment]',
        "pass",
        (KILLED,),
    ),
    Bug(
        "the optimizer forgets how many updates it has made",
        STATE,
        'state["step"].fill_(self.updates)',
        'state["step"].fill_(0)',
        (KILLED,),
    ),
    Bug(
        "random numbers come from a generator whose state nobody keeps",
        "nova/training/transformer.py",
        'generators = [generator_for(config.seed, "sample", step, place) for place in places]',
        "generators = [torch.default_generator for _ in places]",
        ("tests/training/test_transformer.py::test_batch_and_loss_follow_from_the_step",),
    ),
    Bug(
        "the order of samples is off by one after a resume",
        TRAIN,
        "for step in range(state.step, config.steps) for part in parts",
        "for step in range(state.step + (state.step > 0), config.steps) for part in parts",
        (KILLED,),
    ),
    Bug(
        "the learning rate counts from the last checkpoint",
        TRAIN,
        "learning_rate(config.optimizer, state.step, config.steps)",
        "learning_rate(config.optimizer, state.step - saved, config.steps)",
        ("tests/reliability/test_resume.py::test_the_learning_rate_does_not_see_that_a_run_was_killed",),
    ),
    Bug(
        "lines that a killed run wrote ahead stay",
        "nova/training/lines.py",
        "        drop_after(path, start)\n",
        "",
        (KILLED,),
    ),
    Bug(
        "a step without a finite loss changes the weights",
        TRAIN,
        "            if step.finite:\n",
        "            if True:\n",
        (NOT_FINITE,),
    ),
    Bug(
        "the average is updated in a skipped step",
        TRAIN,
        "                state.skipped += 1\n",
        "                state.skipped += 1\n                state.ema.update(state.model)\n",
        (NOT_FINITE,),
    ),
    Bug(
        "gradients are divided by the tokens of the last micro-batch",
        "nova/training/step.py",
        "gradient_factor(network) / weight",
        "gradient_factor(network) / found.weight",
        ("tests/training/test_train.py::test_a_split_batch_is_the_same_step",),
    ),
    Bug(
        "who looks at the averaged model gets the one that is trained",
        TRAIN,
        "observer.look(averaged.model(state), state.step, log)",
        "observer.look(state.model, state.step, log)",
        ("tests/training/test_train.py::test_an_observer_sees_the_averaged_model_and_changes_nothing",),
    ),
    Bug(
        "a run that is asked to stop does not save",
        TRAIN,
        "        if state.step > saved:\n",
        "        if False:\n",
        ("tests/training/test_train.py::test_a_signal_finishes_the_step_saves_and_stops",),
    ),
    Bug(
        "the run folder is not locked",
        "nova/lock.py",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        ("tests/test_lock.py::test_a_second_writer_is_refused_until_the_first_is_gone",),
    ),
    Bug(
        "all processes take the same samples",
        "nova/training/cluster.py",
        "return range(self.rank * part, (self.rank + 1) * part)",
        "return range(part)",
        ("tests/training/test_cluster.py::test_shares_are_disjoint_and_complete",),
    ),
)


def main(chosen: list[str]) -> int:
    """Plant the bugs whose names contain a word of `chosen`, or all; 0 if the tests notice each of them."""
    if shutil.which("strace") is None:
        print("planted: strace is not installed, and some of the tests need it")
        return 2
    bugs = [bug for bug in BUGS if not chosen or any(word in bug.name for word in chosen)]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "pretrained", "*.egg-info"))
        for bug in bugs:
            if (found := (source / bug.file).read_text().count(bug.old)) != 1:
                print(f"planted: {bug.name}: the text to replace stands {found} times in {bug.file}")
                return 2
        whole = run(source, dict.fromkeys(test for bug in bugs for test in bug.tests))
        if whole.returncode != 0:
            print(f"{whole.stdout}planted: these tests do not pass where there is no bug")
            return 2
        caught = 0
        for bug in bugs:
            file = source / bug.file
            text, start = file.read_text(), time.monotonic()
            file.write_text(text.replace(bug.old, bug.new))
            noticed = run(source, bug.tests).returncode == FAILED
            file.write_text(text)
            caught += noticed
            print(f"{'caught' if noticed else 'MISSED'}  {bug.name}  ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"{caught}/{len(bugs)} planted bugs caught")
    return 0 if caught == len(bugs) else 1


def run(source: Path, tests: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """What pytest says to `tests` of the code in `source`."""
    options = ("-x", "-q", "--show-capture=no", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *options, *tests]
    environment = os.environ | {"PYTHONPATH": str(source)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
