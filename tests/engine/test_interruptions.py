"""What a training survives: damaged files, a full disk, Ctrl-C, a change of its mind; and what it says then."""

import errno
import json
import os
import signal
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.__main__ import INTERRUPTED, main
from engine.adapters.adapters import FILE
from engine.commands import reporter
from engine.commands.interrupts import stops_after_step
from engine.learning import checkpoints, class_pictures, distillation, training
from engine.learning.class_pictures import class_latents
from engine.learning.listener import Listener, Progress, Stopped
from engine.recipe import Recipe
from engine.sentences import WARNINGS, sentence, warning
from engine.tensor_files import read_metadata
from storage.errors import UserError
from tests.engine.learning import learn

LORA = Recipe("lora", 4, 2e-3, 2, 0, 0.0, rank=4, alpha=4)
FULL = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
"""What safetensors raises on a full disk."""


class Said(list[str]):
    """The warnings of a run, in words."""

    def __call__(self, code: str, **facts: object) -> None:
        assert code in WARNINGS
        self.append(warning(code, facts))


def stop_after(step: int) -> Callable[[Progress], None]:
    def on_step(progress: Progress) -> None:
        if progress.step == step:
            raise Stopped

    return on_step


def stopped(base, pictures, checkpoint: Path, recipe: Recipe = LORA, step: int = 2) -> None:
    """A run that leaves a checkpoint after `step` steps."""
    with pytest.raises(Stopped):
        learn(
            base,
            pictures,
            recipe,
            checkpoint.parent / "stopped" / FILE,
            checkpoint=checkpoint,
            checkpoint_seconds=0.0,
            on_step=stop_after(step),
        )


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def noise(file: Path) -> None:
    file.write_bytes(os.urandom(5000))


def not_finite(file: Path) -> None:
    """Keeps the header, and turns the last number into one that is not finite."""
    file.write_bytes(file.read_bytes()[:-4] + struct.pack("<f", float("nan")))


def other_tensors(file: Path) -> None:
    save_file({"parameter.0": torch.zeros(2)}, file, read_metadata(file))


def other_text(file: Path) -> None:
    save_file(load_file(file), file, {"checkpoint": "[]"})


DAMAGES = [cut, emptied, noise, not_finite, other_tensors, other_text]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_put_aside_and_the_training_begins_anew(tiny, pictures, tmp_path, damage) -> None:
    checkpoint, said = tmp_path / "checkpoint.safetensors", Said()
    stopped(tiny, pictures, checkpoint)
    damage(checkpoint)
    trained = learn(tiny, pictures, LORA, tmp_path / FILE, checkpoint=checkpoint, on_warning=said)
    assert trained.resumed_at == 0 and trained.steps == 4
    (line,) = said
    assert "damaged" in line and "begins anew" in line and str(tmp_path / "checkpoint.damaged.safetensors") in line
    assert (tmp_path / "checkpoint.damaged.safetensors").exists()
    # Nothing of the damaged file came into what was learned.
    learn(tiny, pictures, LORA, tmp_path / "whole" / FILE)
    first, second = load_file(tmp_path / FILE), load_file(tmp_path / "whole" / FILE)
    assert all(torch.equal(first[key], second[key]) for key in first)


def other_names(file: Path) -> None:
    save_file({"others": torch.zeros(2)}, file)


def other_shape(file: Path) -> None:
    save_file({"latents": torch.zeros(2, 4, 3, 3)}, file)


def too_many(file: Path) -> None:
    latents = load_file(file)["latents"]
    save_file({"latents": torch.cat([latents] * 3)}, file)


@pytest.mark.parametrize(
    "damage", [cut, emptied, noise, not_finite, other_names, other_shape, too_many], ids=lambda damage: damage.__name__
)
def test_damaged_class_pictures_are_put_aside_and_drawn_anew(tiny, tmp_path: Path, damage) -> None:
    said = Said()
    right, _ = class_latents(tiny, "man", 2, 64, tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    damage(file)
    again, _ = class_latents(tiny, "man", 2, 64, tmp_path, on_warning=said)
    assert torch.equal(right, again) and torch.equal(load_file(file)["latents"], right)
    (line,) = said
    assert "damaged" in line and "drawn anew" in line
    assert file.with_name(f"{file.stem}.damaged.safetensors").exists()
    class_latents(tiny, "man", 2, 64, tmp_path, on_warning=said)
    assert len(said) == 1


def failing(error: Exception, times: int = 1000) -> Callable[..., None]:
    """In place of `save_file`: fails so many times, and then writes."""
    left = [times]

    def save(*arguments: object, **options: object) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        save_file(*arguments, **options)  # type: ignore[arg-type]

    return save


@pytest.mark.parametrize(
    "error", [FULL, OSError(errno.ENOSPC, "No space"), OSError(errno.EDQUOT, "Quota"), PermissionError("not yours")],
    ids=["safetensors", "disk", "quota", "rights"],
)  # fmt: skip
def test_what_cannot_be_written_meanwhile_is_a_warning(tiny, pictures, tmp_path, monkeypatch, error) -> None:
    monkeypatch.setattr(checkpoints, "save_file", failing(error))
    monkeypatch.setattr(class_pictures, "save_file", failing(error))
    monkeypatch.setattr(class_pictures, "BATCH", 1)
    said, kept, recipe = Said(), [], replace(LORA, prior_batch=1, prior_weight=1.0, prior_pictures=2)
    options = {"checkpoint": tmp_path / "checkpoint", "checkpoint_seconds": 0.0, "prior_folder": tmp_path / "priors"}
    learn(tiny, pictures, recipe, tmp_path / FILE, on_warning=said, on_checkpoint=kept.append, **options)
    assert (tmp_path / FILE).exists() and kept == []
    assert len(said) == 4  # once for all class pictures, and after each step but the last
    assert sum("class pictures could not be kept" in line for line in said) == 1
    reason = "not yours" if isinstance(error, PermissionError) else "The disk is full"
    assert all(reason in line for line in said)
    assert not list(tmp_path.rglob("*.draft*"))


def test_a_result_takes_the_checkpoint_s_place_on_a_full_disk(tiny, pictures, tmp_path, monkeypatch) -> None:
    checkpoint = tmp_path / "checkpoint"
    options = {"checkpoint": checkpoint, "checkpoint_seconds": 0.0}
    monkeypatch.setattr("engine.adapters.adapters.save_file", failing(FULL, 1))
    learn(tiny, pictures, LORA, tmp_path / FILE, **options)
    assert (tmp_path / FILE).exists() and not checkpoint.exists()
    monkeypatch.setattr("engine.adapters.adapters.save_file", failing(FULL))
    with pytest.raises(UserError, match="disk_full") as refused:
        learn(tiny, pictures, LORA, tmp_path / "other" / FILE, **options)
    assert str(tmp_path / "other") in sentence(refused.value) and "Free some space" in sentence(refused.value)


def test_a_loss_that_is_not_finite_says_what_to_change(tiny, pictures, tmp_path, monkeypatch) -> None:
    weighted = training.Learner.errors
    monkeypatch.setattr(training.Learner, "errors", lambda *arguments: weighted(*arguments) * float("inf"))
    with pytest.raises(UserError, match="loss_not_finite") as refused:
        learn(tiny, pictures, LORA, tmp_path / FILE)
    assert "step 1: the loss is inf" in sentence(refused.value) and "below 0.002" in sentence(refused.value)
    assert not (tmp_path / FILE).exists()


def test_weights_that_are_not_finite_are_neither_kept_nor_saved(tiny, pictures, tmp_path, monkeypatch) -> None:
    """The loss of a step is of the weights before it: the last step's own damage shows nowhere else."""

    def spoil(state: training.TrainingState, step: int, rate: float) -> None:
        with torch.no_grad():
            state.parameters[0].fill_(float("nan"))

    monkeypatch.setattr(training.TrainingState, "update", spoil)
    for steps, seconds in ((1, None), (3, 0.0)):
        checkpoint = None if seconds is None else tmp_path / "checkpoint"
        with pytest.raises(UserError, match="loss_not_finite"):
            learn(
                tiny,
                pictures,
                replace(LORA, steps=steps),
                tmp_path / FILE,
                checkpoint=checkpoint,
                checkpoint_seconds=seconds or 0.0,
            )
    assert not (tmp_path / FILE).exists() and not (tmp_path / "checkpoint").exists()


def test_a_distillation_that_breaks_down_says_what_to_change(tiny, pictures, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(distillation, "HUBER_C", float("nan"))
    recipe = replace(distillation.DEFAULTS["consistency"], steps=2, batch=1, rank=2)
    small = [picture.resize((64, 64)) for picture in pictures]
    with pytest.raises(UserError, match="loss_not_finite"):
        distillation.distil(tiny, small, ["a man"] * len(small), recipe, tmp_path / FILE)


def test_more_steps_go_on_and_fewer_begin_anew(tiny, pictures, tmp_path) -> None:
    recipe = replace(LORA, prior_batch=1, prior_weight=1.0, prior_pictures=8)
    said, went_on = Said(), list[int]()
    for steps, resumed in ((6, 2), (1, 0)):
        checkpoint = tmp_path / f"{steps}"
        stopped(tiny, pictures, checkpoint, recipe)
        trained = learn(
            tiny,
            pictures,
            replace(recipe, steps=steps),
            tmp_path / FILE,
            checkpoint=checkpoint,
            on_warning=said,
            on_resume=went_on.append,
        )
        assert (trained.resumed_at, trained.steps) == (resumed, steps)
    assert went_on == [2]
    (line,) = said
    assert "another training" in line and "begins anew" in line and (tmp_path / "1.before").exists()


# The command line


def save(pictures: Sequence[Image.Image], album: Path) -> None:
    album.mkdir()
    for number, picture in enumerate(pictures):
        picture.resize((512, 512)).save(album / f"{number}.png")


@pytest.fixture
def command(tiny_folder, pictures, tmp_path: Path) -> Callable[..., list[str]]:
    save(pictures, tmp_path / "album")

    def train(steps: int, *more: str) -> list[str]:
        return ["train", "--photos", str(tmp_path / "album"), "--token", "zk1x", "--class", "thing", "--size", "64",
                "--base", str(tiny_folder), "--out", str(tmp_path / "out"), "--steps", str(steps), "--prior-weight",
                "0", "--json", *more]  # fmt: skip

    return train


def interrupt_after(monkeypatch, step: int, number: int = signal.SIGINT) -> None:
    heard = reporter.Reporter.on_step

    def on_step(self: reporter.Reporter, progress: Progress) -> None:
        heard(self, progress)
        if progress.step == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(reporter.Reporter, "on_step", on_step)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_keeps_a_checkpoint_and_says_how_to_go_on(
    command, tmp_path: Path, monkeypatch, capsys, number
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2, number)
        assert main(command(9)) == INTERRUPTED
    assert signal.getsignal(number) is before
    told = capsys.readouterr()
    assert "Stopped after step 3 of 9" in told.err and "The same command goes on" in told.err
    assert "Traceback" not in told.err and not (tmp_path / "out" / FILE).exists()
    assert main(command(9)) == 0
    out = capsys.readouterr().out
    assert "goes on from step 3" in out and json.loads(out.splitlines()[-1])["resumed_at"] == 3


def test_a_launcher_s_sigterm_still_ends_a_process_of_a_team() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stops_after_step(Listener(), shows=False, alone=False):
        assert signal.getsignal(signal.SIGTERM) is before and signal.getsignal(signal.SIGINT) is not before


def test_a_second_interruption_stops_at_once(command, monkeypatch, capsys) -> None:
    interrupt_after(monkeypatch, 2)
    stop = reporter.Reporter.on_step

    def twice(self: reporter.Reporter, progress: Progress) -> None:
        stop(self, progress)
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(reporter.Reporter, "on_step", twice)
    assert main(command(9)) == INTERRUPTED
    assert capsys.readouterr().err.splitlines()[-1] == "Stopped."


def test_nothing_is_overwritten_in_silence_and_more_steps_go_on(command, tmp_path: Path, capsys) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        status = main(command(*arguments))
        told = capsys.readouterr()
        return status, told.err if status else told.out

    assert run(2)[0] == 0
    first = (tmp_path / "out" / FILE).read_bytes()
    for refused in ((2,), (4, "--seed", "7")):  # the same again; more steps of another training
        status, line = run(*refused)
        assert status == 2 and "exists already" in line and "--overwrite" in line and "more --steps" in line
        assert (tmp_path / "out" / FILE).read_bytes() == first
    status, told = run(4)
    assert status == 0 and "goes on from step 2" in told and json.loads(told.splitlines()[-1])["resumed_at"] == 2
    longer = (tmp_path / "out" / FILE).read_bytes()
    status, told = run(2, "--seed", "7", "--overwrite")
    assert status == 0 and json.loads(told.splitlines()[-1])["resumed_at"] == 0
    assert len({first, longer, (tmp_path / "out" / FILE).read_bytes()}) == 3


def test_pictures_are_added_and_other_files_are_refused(tiny_folder, pictures, tmp_path: Path, capsys) -> None:
    imagine = ["imagine", "--prompt", "a man", "--steps", "1", "--base", str(tiny_folder), "--out", str(tmp_path)]
    for count in ("1", "2"):
        assert main([*imagine, "--count", count]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["0.png", "1.png", "2.png"]
    (tmp_path / FILE).write_bytes(b"mine")
    base = ["--base", str(tiny_folder)]
    for other in (
        ["export", "--avatar", str(tmp_path), "--out", str(tmp_path / FILE), *base],
        ["import", str(tmp_path / FILE), "--out", str(tmp_path), *base],
        ["distil", "--out", str(tmp_path), *base],
        ["study", "--photos", str(tmp_path), "--out", str(tmp_path), *base],
    ):
        capsys.readouterr()
        assert main(other) == 2
        assert "exists already" in capsys.readouterr().err
    assert (tmp_path / FILE).read_bytes() == b"mine"


def test_a_folder_of_photos_is_inspected(pictures, tmp_path: Path, capsys) -> None:
    save(pictures[:2], tmp_path / "album")
    (tmp_path / "album" / "notes.txt").write_text("no photo")
    assert main(["inspect", str(tmp_path / "album"), "--class", "thing", "--json"]) == 0
    verdicts = json.loads(capsys.readouterr().out.splitlines()[-1])["verdicts"]
    assert [Path(verdict["file"]).name for verdict in verdicts] == ["0.png", "1.png"]
    (tmp_path / "empty").mkdir()
    assert main(["inspect", str(tmp_path / "empty")]) == 2
    assert "no photos" in capsys.readouterr().err


PROGRESS = Progress(3, 10, 4000.0, 0.12345, 1e-4, step_seconds=2.5)


def test_the_bar_shows_loss_rate_pace_and_what_is_left(capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    reporter.show_progress(PROGRESS)
    line = capsys.readouterr().err
    for part in ("[######", "step 3 of 10", "loss 0.1235", "rate 1.0e-04", "2.5 s/step", "1 h 6 min left"):
        assert part in line
    monkeypatch.setenv("COLUMNS", "40")  # a line that wraps would not be replaced
    reporter.show_progress(replace(PROGRESS, step_seconds=0.25))
    assert len(capsys.readouterr().err.strip("\r").removesuffix("\x1b[K")) < 40


def test_a_log_gets_a_line_for_each_tenth(capsys) -> None:
    for step in range(1, 31):
        reporter.show_progress(replace(PROGRESS, step=step, steps=30))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and lines[-1].startswith("step 30 of 30, loss 0.1235")
