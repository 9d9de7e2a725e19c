"""What an evaluation keeps of each person."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from PIL import Image

from engine.bases.families import TOON
from engine.drawing.drawing import Drawing
from engine.measuring import evaluation
from engine.measuring.evaluation import PHOTOS, WAYS, Learned, evaluate, evaluate_person, people
from engine.recipe import choose
from engine.toon.prompts import PROMPTS


def test_a_resumed_evaluation_draws_only_the_unfinished_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: list[float] = []

    def learn(*arguments: object, **options: object) -> Learned:
        seconds.append(len(seconds))
        return Learned(seconds[-1], [[Image.new("RGB", (128, 128), "red")] * 2])

    def one(steps: int) -> float:
        recipe = choose(PHOTOS, "lora", TOON, steps=steps)
        threads = torch.get_num_threads()
        return evaluate_person(0, people(1)[0], recipe, None, tmp_path, fingerprint="base", threads=threads).seconds

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "learn", learn)
    monkeypatch.setattr(evaluation.BaseModel, "load", lambda denoiser_dtype: SimpleNamespace(fingerprint="base"))
    assert one(steps=10) == one(steps=10) == 0
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(evaluation, "write_text", killed)
        one(steps=20)
    # Its pictures are the second recipe's, so they are not taken for the first one's.
    assert one(steps=10) == 2
    assert one(steps=10) == 2


@pytest.mark.parametrize(("kept", "loads"), [((), 0), (("person-0.json",), 1)])
def test_the_base_is_loaded_for_its_fingerprint_only_if_pictures_were_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: tuple[str, ...], loads: int
) -> None:
    loaded: list[str] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, processes: int, context: object) -> None:
            super().__init__(processes)

    def load(**options: object) -> SimpleNamespace:
        loaded.append("")
        return SimpleNamespace(fingerprint="base")

    def evaluate_person(*arguments: object, fingerprint: str | None, threads: int) -> Learned:
        assert fingerprint == ("base" if kept else None)
        return Learned(1.0, [[Image.new("RGB", (128, 128))] * len(PROMPTS)] * (len(WAYS) + 1))

    for name in kept:
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr(evaluation, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(evaluation.BaseModel, "load", load)
    monkeypatch.setattr(evaluation, "evaluate_person", evaluate_person)
    assert evaluate(1, work=tmp_path)["train_seconds"] == 1.0
    assert len(loaded) == loads


def test_drawings_share_batches_with_others_of_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[list[str]] = []

    def make_plan(drawing: Drawing, base: object, attached: object) -> SimpleNamespace:
        return SimpleNamespace(drawing=drawing, batch_key=(drawing.width,))

    def draw_together(base: object, attached: object, plans: list[SimpleNamespace]) -> list[list[SimpleNamespace]]:
        batches.append([plan.drawing.prompt for plan in plans])
        return [[SimpleNamespace(image=f"{plan.drawing.prompt}{n}") for n in range(2)] for plan in plans]

    monkeypatch.setattr(evaluation, "make_plan", make_plan)
    monkeypatch.setattr(evaluation, "draw_together", draw_together)
    drawings = [Drawing(str(n), count=2, width=128 if n % 3 else 192) for n in range(14)]
    base, attached = Mock(), Mock()
    pictures = evaluation.draw_in_batches(base, attached, drawings)
    assert pictures == [[f"{n}0", f"{n}1"] for n in range(14)]
    assert batches == [["0", "3", "6", "9", "12"], ["1", "2", "4", "5", "7"], ["8", "10", "11", "13"]]
