"""What an evaluation keeps of each person."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.bases.families import TOON
from engine.measuring import evaluation
from engine.measuring.evaluation import PHOTOS, Learned, people
from engine.recipe import choose


def test_whom_an_evaluation_was_killed_at_is_drawn_again_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds: list[float] = []

    def learn(*arguments: object, **options: object) -> Learned:
        seconds.append(len(seconds))
        return Learned(seconds[-1], [[Image.new("RGB", (128, 128), "red")] * 2])

    def one(steps: int) -> float:
        recipe = choose(PHOTOS, "lora", TOON, steps=steps)
        return evaluation._one((0, people(1)[0]), "base", recipe, None, tmp_path, torch.get_num_threads()).seconds

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "learn", learn)
    monkeypatch.setattr(evaluation.BaseModel, "load", lambda rests: None)
    assert one(steps=10) == one(steps=10) == 0
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(evaluation, "write_text", killed)
        one(steps=20)
    # Its pictures are the second recipe's, so they are not taken for the first one's.
    assert one(steps=10) == 2
    assert one(steps=10) == 2
