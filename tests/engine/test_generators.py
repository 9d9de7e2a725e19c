"""Random numbers follow from every bit of every seed and step."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.adapters.adapters import FILE
from engine.bases.schedule import Diffusion
from engine.device.generators import SEEDS, generator_of, seed_of
from engine.drawing.denoising import later_noise, noise
from engine.learning.examples import Example
from engine.learning.samples import example_indices, step_sample
from engine.recipe import Recipe
from tests.engine.learning import learn

SHAPE = (4, 8, 8)


def test_torch_still_keeps_32_bits_of_a_seed() -> None:
    """Why numbers are mixed. If this fails, they need not be."""
    first, other = (torch.rand(4, generator=torch.Generator().manual_seed(seed)) for seed in (7, 7 + SEEDS))
    assert torch.equal(first, other)


def test_a_small_seed_is_torchs_own_so_that_other_programs_draw_the_same() -> None:
    assert [seed_of(seed) for seed in (0, 7, SEEDS - 1)] == [0, 7, SEEDS - 1]
    assert torch.equal(noise([7], SHAPE)[0], torch.randn(SHAPE, generator=torch.Generator().manual_seed(7)))


@pytest.mark.parametrize("bit", [0, 8, 24, 31, 32, 40, 52])
def test_every_bit_of_a_seed_counts(bit: int) -> None:
    assert not torch.equal(noise([3], SHAPE), noise([3 ^ 1 << bit], SHAPE))
    assert not torch.equal(later_noise([3], SHAPE, 0), later_noise([3 ^ 1 << bit], SHAPE, 0))
    assert len({seed_of(3, 5), seed_of(3 ^ 1 << bit, 5), seed_of(3, 5 ^ 1 << bit), seed_of(5, 3)}) == 4


def test_a_step_of_a_drawing_has_noise_of_its_own() -> None:
    seen = [noise([3], SHAPE), *(later_noise([3], SHAPE, step) for step in range(3)), later_noise([4], SHAPE, 0)]
    assert len({tuple(one.flatten().tolist()) for one in seen}) == len(seen)


def test_seeds_and_steps_change_all_that_a_training_step_chooses() -> None:
    examples = [Example(torch.zeros(SHAPE), torch.ones(SHAPE), (0,)) for _ in range(12)]
    recipe = Recipe("lora", 10, 1e-4, 12, 3, 1.0)
    samples = [
        step_sample(step, seed, recipe, 1, examples, torch.zeros(9, *SHAPE), Diffusion({}))
        for seed, step in ((1, 0), (77, 0), (1 + SEEDS, 0), (1, 1))
    ]
    for choice in ("noises", "latent_noises", "timesteps", "examples", "prompt_choices"):
        seen = {str([torch.as_tensor(one).tolist() for one in getattr(sample, choice)]) for sample in samples}
        assert len(seen) == len(samples), choice


def test_orders_of_epochs_and_seeds_differ() -> None:
    orders = [example_indices(12, 12, epoch, seed) for epoch in range(3) for seed in (1, 77, 1 + SEEDS)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == len(orders)


@pytest.mark.parametrize("method", ["lora", "dreambooth"])
def test_seeds_learn_different_weights_and_one_seed_the_same(tiny, pictures, tmp_path: Path, method) -> None:
    recipe, files = Recipe(method, 2, 1e-3, 2, 0, 0.0, rank=2), []
    for number, seed in enumerate((1, 77, 2**32 + 1, 1)):
        out = tmp_path / str(number) / FILE
        learn(tiny, pictures, recipe, out, seed=seed)
        files.append(load_file(out))
    learned = [torch.cat([tensor.float().flatten() for tensor in file.values()]) for file in files]
    assert torch.equal(learned[0], learned[3])
    for other in learned[1:3]:
        assert other.shape != learned[0].shape or not torch.allclose(learned[0], other)
    assert float(generator_of(1, 2).initial_seed()) < SEEDS
