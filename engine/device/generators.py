"""Random generators on the CPU that follow from whole numbers, such as a seed and a step."""

import hashlib

import torch

SEEDS = 2**32
"""Different seeds of torch's generator on a CPU: it keeps the low 32 bits of `manual_seed` and drops the rest without a
word (torch 2.13), so numbers that are packed into the higher bits would change nothing."""


def seed_of(*numbers: int) -> int:
    """A seed of 0 to 2^32 - 1 that depends on every bit of every number, through a hash (SHA-256).

    One number below 2^32 is its own seed, so that other programs draw the same picture from it.
    """
    if len(numbers) == 1 and 0 <= numbers[0] < SEEDS:
        return numbers[0]
    digest = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def generator_of(*numbers: int) -> torch.Generator:
    """A generator on the CPU with this seed (`seed_of`)."""
    return torch.Generator().manual_seed(seed_of(*numbers))
