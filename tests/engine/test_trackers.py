"""A run's figures and pictures arrive where they are looked at: TensorBoard's files, an offline run of W&B."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.measuring.trackers import grid, open_tracker
from engine.sentences import sentence
from storage.errors import UserError

PICTURES = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green")]


def test_tensorboard_has_every_figure_and_the_grid(tmp_path: Path) -> None:
    tracker = open_tracker("tensorboard", tmp_path, {"steps": 2})
    for step in (1, 2):
        tracker.numbers(step, {"loss": 1 / step, "learning_rate": 1e-4})
    tracker.pictures(2, "samples", PICTURES)
    tracker.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]
    assert len(events.Scalars("learning_rate")) == 2
    (image,) = events.Images("samples")
    assert (image.width, image.height) == (32, 16)
    assert "recipe/text_summary" in events.Tags()["tensors"]


WANDB = """
import sys
from pathlib import Path
from PIL import Image
from engine.measuring.trackers import open_tracker
tracker = open_tracker("wandb", Path(sys.argv[1]), {"steps": 2})
for step in (1, 2):
    tracker.numbers(step, {"loss": 1 / step, "learning_rate": 1e-4})
tracker.pictures(2, "samples", [Image.new("RGB", (16, 16), "red")])
tracker.close()
"""


@pytest.mark.parametrize("mode", ["offline", None])
def test_wandb_keeps_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str | None) -> None:
    """Asked for, or because nobody has logged in, who is told then how to upload it."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    # Whatever login the machine has is not this test's.
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = subprocess.run([sys.executable, "-c", WANDB, str(tmp_path)], capture_output=True, text=True, timeout=300,
                         cwd=Path(__file__).parents[2], check=False)  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    told = [line for line in run.stdout.splitlines() if "wandb sync" in line]
    assert len(told) == (0 if mode else 1)
    (file,) = tmp_path.rglob("run-*.wandb")
    assert not told or told[0].endswith(f"wandb sync {file.parent}")
    content = file.read_bytes()
    assert b"learning_rate" in content and b"samples" in content
    assert list(tmp_path.rglob("media/images/*.png"))


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError) as refused:
        open_tracker("wandb", tmp_path, {})
    assert "pip install wandb" in sentence(refused.value)


def test_nothing_of_it_is_imported_unless_asked_for() -> None:
    modules = "sys, engine.commands.learn, engine.measuring.trackers, engine.learning.training"
    code = f"import {modules}; print({{'wandb', 'tensorboard'}} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2],
                         timeout=300, check=False)  # fmt: skip
    assert run.stdout.strip() == "set()", run.stderr


def test_a_grid_shows_its_pictures_in_a_row() -> None:
    board = grid(PICTURES)
    assert board.getpixel((8, 8)) == (255, 0, 0) and board.getpixel((24, 8)) == (0, 128, 0)
