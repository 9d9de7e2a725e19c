"""A small model on two cores: two halves of a batch in parallel give the results of the whole batch."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from engine.adapters.adapters import FILE
from engine.device import cores
from engine.device.cores import one_core, split_items, split_rows
from engine.recipe import Recipe
from tests.engine.learning import learn

LORA = Recipe("lora", 3, 2e-3, 6, 4, 1.0, rank=4, alpha=4, prior_pictures=4, precision="float32")


@pytest.fixture(autouse=True)
def two_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_halves_run_in_parallel_and_their_results_come_back_in_order(tiny) -> None:
    meeting = threading.Barrier(2, timeout=30)

    def work(part: slice) -> tuple[list[int], int]:
        meeting.wait()
        return list(range(9))[part], torch.get_num_threads()

    assert split_rows(tiny, 9, work) == [([0, 1, 2, 3], 1), ([4, 5, 6, 7, 8], 1)]
    assert torch.get_num_threads() == 2


def test_few_rows_are_not_split(tiny) -> None:
    assert split_rows(tiny, 2, lambda part: (part, torch.get_num_threads())) == [(slice(None), 1)]
    assert torch.get_num_threads() == 2


def test_a_large_model_uses_all_cores(tiny, monkeypatch) -> None:
    monkeypatch.setattr("engine.device.cores.LARGE", 1)
    assert split_rows(tiny, 9, lambda part: (part, torch.get_num_threads())) == [(slice(None), 2)]
    with one_core(tiny):
        assert torch.get_num_threads() == 2


def test_a_batch_on_a_gpu_is_not_split(tiny) -> None:
    gpu = SimpleNamespace(device=torch.device("cuda"), unet=tiny.unet)
    assert split_rows(gpu, 9, lambda part: (part, torch.get_num_threads())) == [(slice(None), 2)]


def test_an_exception_of_one_half_is_raised_after_the_other_half(tiny) -> None:
    done = list[int]()

    def work(part: slice) -> None:
        if part.start == 0:
            raise ValueError("too much")
        threading.Event().wait(0.2)
        done.append(part.start)

    with pytest.raises(ValueError, match="too much"):
        split_rows(tiny, 10, work)
    assert done == [5]


def test_items_are_split_by_their_sizes(tiny) -> None:
    def work(items: list[str]) -> tuple[str, int]:
        return "".join(items), torch.get_num_threads()

    assert split_items(work, [*"abcde"], [5, 1, 1, 1, 2]) == [("a", 1), ("bcde", 1)]
    assert split_items(work, [*"abc"], [9, 1, 1]) == [("a", 1), ("bc", 1)]
    assert split_items(work, [*"ab"], [0, 0]) == [("a", 1), ("b", 1)]
    torch.set_num_threads(1)
    assert split_items(work, [*"abc"], [1, 1, 1]) == [("abc", 1)]


@pytest.mark.parametrize("recipe", [LORA, replace(LORA, text_encoder=True), replace(LORA, method="dreambooth")])
def test_halves_learn_what_one_core_learns_and_the_same_every_time(tiny, pictures, tmp_path, recipe, monkeypatch):
    def learned(name: str) -> tuple[dict[str, torch.Tensor], list[float]]:
        losses, out = list[float](), tmp_path / name / FILE
        learn(tiny, pictures, recipe, out, side=64, prior_folder=tmp_path / "priors",
              on_step=lambda progress: losses.extend((progress.loss, progress.prior_loss)))  # fmt: skip
        return load_file(out), losses

    (first, losses), (second, _) = learned("first"), learned("second")
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    monkeypatch.setattr(cores, "MIN_SPLIT_ROWS", 1000)
    _, alone = learned("alone")
    assert len(losses) == 6 and losses == pytest.approx(alone, rel=1e-4)
