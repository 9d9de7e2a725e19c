#!/bin/bash
# lycoris-lora 4.1.3: merging a LoHa or a LoKr into a layer's weight applies alpha / rank twice. `get_weight` multiplies by
# it, and `get_diff_weight`, which `get_merged_weight` and `merge_to` call, multiplies its result again. The forward pass
# that the adapter was trained with multiplies once. With alpha 1 and rank 2 the merged layer has half of the change.
# LoCon merges right. So a merged weight is no reference for what a trained LoHa or LoKr draws; the forward pass is.
#
# Expected: the merged layer answers as the adapted layer did, for every kind.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0 numpy==2.3.4 lycoris-lora==4.1.3 \
    --extra-index-url https://download.pytorch.org/whl/cpu
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from torch import nn

torch.manual_seed(0)
shares = {}
for kind, options in ((LoConModule, {}), (LohaModule, {}), (LokrModule, {"factor": 4})):
    layer = nn.Linear(32, 32, bias=False)
    before, features = layer.weight.detach().clone(), torch.randn(5, 32)
    adapter = kind("name", layer, lora_dim=2, alpha=1, **options)
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        trained = adapter(features) - features @ before.T
        adapter.merge_to(1.0)
        merged = features @ (layer.weight - before).T
    shares[kind.__name__] = float(merged.norm() / trained.norm())
    print(kind.__name__, "change after merging / change in training:", round(shares[kind.__name__], 3))
    assert torch.allclose(merged, shares[kind.__name__] * trained, atol=1e-5)
assert abs(shares["LoConModule"] - 1) < 1e-3
assert abs(shares["LohaModule"] - 0.5) < 1e-3 and abs(shares["LokrModule"] - 0.5) < 1e-3, "changed"
PYTHON
echo "as described"
