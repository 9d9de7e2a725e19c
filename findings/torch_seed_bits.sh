#!/bin/bash
# torch 2.13.0, generator on a CPU: `manual_seed` takes any whole number below 2^64 and `initial_seed` gives it back, but
# only its low 32 bits decide the random numbers. Seeds that differ in higher bits alone are one seed. A trainer that packs
# two numbers into one seed, such as (seed << 32) + step, therefore gets the same noise for every seed.
#
# Expected: different seeds, different numbers, as in numpy, whose default_rng uses all bits of the same seeds.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.3.4
"$folder/venv/bin/python" - <<'PYTHON'
import numpy
import torch


def drawn(seed):
    return torch.rand(3, generator=torch.Generator().manual_seed(seed)).tolist()


step = 5
seeds = [(seed << 32) + step for seed in (0, 1, 77)]
for seed in seeds:
    generator = torch.Generator().manual_seed(seed)
    print("torch", torch.__version__, "seed", generator.initial_seed(), drawn(seed))
assert [torch.Generator().manual_seed(seed).initial_seed() for seed in seeds] == seeds
assert drawn(seeds[0]) == drawn(seeds[1]) == drawn(seeds[2]), "changed: higher bits count"
assert drawn(step) != drawn(step + 1)
assert len({numpy.random.default_rng(seed).random() for seed in seeds}) == 3
PYTHON
echo "as described"
