"""Each private name of torch that the engine uses is there, can be done without, and is used in one folder alone."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from engine.device import torch_private
from engine.device.memory import activation_bytes
from engine.device.packed import packed
from engine.learning.optimisers import AdamW, clip
from tests.engine.test_packed import CPU

ROOT = Path(__file__).parents[2]
PRIVATE = {
    name
    for owner in (Tensor, nn.Linear(1, 1), torch.optim.SGD([torch.zeros(1)]))
    for name in dir(owner)
    if name.startswith("_") and not name.startswith("__")
}
"""What tensors, modules and optimisers keep to themselves."""


def test_torch_still_has_every_private_name() -> None:
    gone = torch_private.changed()
    assert not gone, f"torch changed {', '.join(gone)}: measure the public way, then keep it or find the new name"


def test_only_the_device_folder_uses_private_names_of_torch() -> None:
    files = [path for folder in ("bot", "engine", "storage") for path in (ROOT / folder).rglob("*.py")]
    uses = {
        f"{path.relative_to(ROOT)}: {use}"
        for path in files
        if not path.is_relative_to(ROOT / "engine" / "device")
        for use in private_uses(path.read_text())
    }
    assert not uses


@pytest.mark.parametrize(
    "line",
    [
        "torch._foreach_add_(weights, 1)",
        "torch.cpu._is_avx2_supported()",
        "torch.ops.mkldnn",
        "from torch._dynamo import disable",
        "from torch.optim.optimizer import _use_grad_for_differentiable",
        "import torch._inductor.config",
        "layer._parameters",
        "tensor._base",
        "unwrap(Optimizer.step)",
    ],
)
def test_private_names_are_found(line: str) -> None:
    assert list(private_uses(line))


def private_uses(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            whole = ast.unparse(node)
            of_torch = whole.startswith("torch.") and node.attr.startswith("_") and not node.attr.startswith("__")
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if of_torch or whole.startswith("torch.ops.mkldnn") or (node.attr in PRIVATE and not own):
                yield whole
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            paths = [".".join([*modules, alias.name]) for alias in node.names]
            yield from (path for path in paths if path.startswith("torch.") and "._" in path)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("unwrap"):
            yield ast.unparse(node)


OPERATIONS = {"add_": (1,), "copy_": ([],), "lerp_": ([], 0.25), "mul_": (0.5,), "norm": ()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("operation", torch_private.FOREACH)
def test_an_operation_on_many_tensors_is_the_same_one_by_one(operation: str, dtype: torch.dtype, monkeypatch) -> None:
    def result() -> list[Tensor]:
        torch.manual_seed(0)
        tensors, others = ([torch.randn(shape, dtype=dtype) for shape in ((3,), (4, 5))] for _ in range(2))
        arguments = [others if argument == [] else argument for argument in OPERATIONS[operation]]
        found = torch_private.foreach(operation, tensors, *arguments)
        if operation.endswith("_"):
            assert all(one is other for one, other in zip(found, tensors, strict=True))
        return found

    by_torch = result()
    monkeypatch.delattr(torch, f"_foreach_{operation}")
    assert torch_private.changed() == [f"torch._foreach_{operation}"]
    for one, other in zip(result(), by_torch, strict=True):
        assert one.dtype == other.dtype and torch.allclose(one, other)


def test_adamw_is_the_same_without_the_fused_kernel(monkeypatch) -> None:
    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.randn(shape)) for shape in ((3,), (7, 5))]
        parameters[1].grad_dtype = torch.bfloat16
        optimiser = AdamW([{"params": parameters, "lr": 0.1}], 0.01)
        for _ in range(3):
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape).to(parameter.grad_dtype)
            clip(parameters, 0.5)
            optimiser.step()
        return [parameter.detach() for parameter in parameters]

    fused = trained()
    kernel = torch._fused_adamw_
    monkeypatch.setattr(torch, "_fused_adamw_", lambda *given, **options: calls.append(kernel(*given, **options)))
    calls = list[None]()
    trained()
    assert calls
    monkeypatch.delattr(torch, "_fused_adamw_")
    assert torch_private.changed() == ["torch._fused_adamw_"]
    for name in torch_private.FOREACH:
        monkeypatch.delattr(torch, f"_foreach_{name}")
    # The second one's mean is rounded to bfloat16 at each step.
    for one, other, tolerance in zip(trained(), fused, (1e-6, 2e-3), strict=True):
        assert torch.allclose(one, other, atol=tolerance)


def test_packed_layers_compute_the_same_without_onednns_operators(monkeypatch) -> None:
    monkeypatch.setattr("engine.device.precision.compute_dtype", lambda device: torch.bfloat16)
    module = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.Conv2d(8, 8, 3, stride=2, groups=2, bias=False),
        nn.Linear(4, 3),
    ).requires_grad_(False)
    features = torch.randn(2, 4, 9, 9, requires_grad=True)

    def computed() -> tuple[Tensor, Tensor]:
        features.grad = None
        with packed(module, CPU, learning=True), torch.autocast("cpu", torch.bfloat16):
            answer = module(features)
            answer.float().square().sum().backward()
        assert features.grad is not None
        return answer.detach().float(), features.grad

    with_operators = computed()
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert torch_private.changed() == [f"torch.ops.mkldnn.{name}" for name in torch_private.MKLDNN]
    for one, other in zip(computed(), with_operators, strict=True):
        assert torch.allclose(one, other, atol=2e-2 * float(other.abs().max()))


def test_a_method_is_unwrapped_once_or_left_as_it_is() -> None:
    def method() -> None: ...

    @functools.wraps(method)
    def wrapped() -> None: ...

    assert torch_private.undecorated(wrapped) is method and torch_private.undecorated(method) is method


@pytest.mark.parametrize(
    ("tensor", "view"),
    [(torch.zeros(3, 4), False), (torch.zeros(3, 4).T, True), (torch.zeros(3, 4)[1:], True), (torch.zeros(1), False)],
)
def test_views_are_recognised_without_the_private_attribute(tensor: Tensor, view: bool, monkeypatch) -> None:
    assert torch_private.is_view(tensor) == view
    monkeypatch.setattr(torch_private, "Tensor", SimpleNamespace())
    assert torch_private.is_view(tensor) == view


def test_activations_are_counted_alike_without_the_private_attribute(monkeypatch) -> None:
    layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def kept() -> int:
        return activation_bytes(lambda: layers(torch.randn(3, 8)))

    with_attribute = kept()
    monkeypatch.setattr(torch_private, "Tensor", SimpleNamespace())
    assert kept() == with_attribute > 0
