"""The private names of torch that the engine uses. No other module uses any.

A release of torch may drop a private name. Each function here therefore looks its name up at every call. If the name is
missing, it computes the same result by public calls, which are slower or need more memory.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

FOREACH = ("add_", "copy_", "lerp_", "mul_", "norm")
"""The operations that `foreach` is used for."""

MKLDNN = ("_convolution_pointwise", "_linear_pointwise", "_reorder_convolution_weight", "_reorder_linear_weight")
"""oneDNN's operators on packed weights, in `torch.ops.mkldnn`."""


def changed() -> list[str]:
    """The private names above that this release of torch does not have."""
    gone = [f"torch._foreach_{operation}" for operation in FOREACH if not hasattr(torch, f"_foreach_{operation}")]
    gone += [f"torch.ops.mkldnn.{name}" for name in MKLDNN if not hasattr(torch.ops.mkldnn, name)]
    gone += [] if hasattr(torch, "_fused_adamw_") else ["torch._fused_adamw_"]
    gone += [] if hasattr(Tensor, "_base") else ["torch.Tensor._base"]
    gone += [] if undecorated(Optimizer.state_dict) is not Optimizer.state_dict else ["Optimizer's decorators"]
    return gone


def foreach(operation: str, tensors: Sequence[Tensor], *arguments: Sequence[Tensor] | float) -> list[Tensor]:
    """`Tensor.<operation>` on each tensor, as one call.

    Args:
        operation: one of `FOREACH`; those that end in "_" change the tensors in place.
        arguments: the operation's own; a sequence has one tensor for each of `tensors`.
    Returns:
        The results, one for each tensor; for operations in place, `tensors`.
    """
    one_call: Callable[..., Any] | None = getattr(torch, f"_foreach_{operation}", None)
    if one_call:
        return list(one_call(list(tensors), *arguments) or tensors)
    each = [[argument] * len(tensors) if isinstance(argument, int | float) else argument for argument in arguments]
    return [getattr(tensor, operation)(*own) for tensor, *own in zip(tensors, *each, strict=True)]


def fused_adamw(
    parameters: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> None:
    """One step of AdamW (arXiv 1711.05101, algorithm 2) on each parameter, in place.

    Args:
        parameters: float32, as are the three lists of tensors of the same shapes that follow.
        means: of the gradients, m.
        squares: means of the gradients' squares, v.
        steps: the number t of this step, a 0-dimensional float32 tensor for each parameter.
    """
    kernel = getattr(torch, "_fused_adamw_", None)
    if not parameters:
        return
    if kernel:
        options = {"lr": lr, "beta1": betas[0], "beta2": betas[1], "weight_decay": weight_decay, "eps": eps}
        kernel(parameters, gradients, means, squares, [], steps, amsgrad=False, maximize=False, **options)
        return
    for parameter, gradient, mean, square, step in zip(parameters, gradients, means, squares, steps, strict=True):
        parameter.mul_(1 - lr * weight_decay)
        mean.lerp_(gradient, 1 - betas[0])
        square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        unbiased = [1 - beta ** float(step) for beta in betas]
        root = (square.sqrt() / math.sqrt(unbiased[1])).add_(eps)
        parameter.addcdiv_(mean, root, value=-lr / unbiased[0])


def undecorated(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of `torch.optim.Optimizer` without what torch wraps it in; the method itself where it is not wrapped.

    The wrapper imports torch's compiler, which takes a second and 70 MiB, only to tell it to leave the method alone.
    """
    plain: Callable[..., Any] = inspect.unwrap(method)
    return plain


def is_view(tensor: Tensor) -> bool:
    """Whether the tensor is a view of another one.

    Without the private attribute, views of all of a contiguous tensor are not recognised.
    """
    if hasattr(Tensor, "_base"):
        return tensor._base is not None
    return not tensor.is_contiguous() or tensor.untyped_storage().nbytes() > tensor.nbytes


def _mkldnn() -> Sequence[Any] | None:
    """oneDNN's operators on packed weights, in the order of `MKLDNN`; None unless torch has all of them."""
    try:
        operators: Sequence[Any] = attrgetter(*MKLDNN)(torch.ops.mkldnn)
    except AttributeError:
        return None
    return operators


def packed_convolution(
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    shape: torch.Size,
) -> Callable[[Tensor], Tensor]:
    """A convolution with packed weights of bfloat16 features (n, in, h, w) in channels_last.

    Args:
        weight: (out, in / groups, k, k), bfloat16.
        bias: (out,), bfloat16.
        shape: of the features.
    Returns:
        A function from the features to (n, out, h', w') in channels_last.
    """
    if operators := _mkldnn():
        # Unlike torch.mkldnn_convolution, this leaves the features in channels_last.
        convolve, _, reorder, _ = operators
        packed = reorder(weight, padding, stride, dilation, groups, shape)
        return lambda features: convolve(features, packed, bias, padding, stride, dilation, groups, "none", [], "")
    weight = weight.contiguous(memory_format=torch.channels_last)

    def plain(features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            answer = F.conv2d(features, weight, bias, list(stride), list(padding), list(dilation), groups)
        return answer.contiguous(memory_format=torch.channels_last)

    return plain


def packed_linear(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """A product with a packed weight.

    Args:
        weight: (out, in), bfloat16.
        bias: (out,), bfloat16.
    Returns:
        A function from bfloat16 features (..., in) to (..., out).
    """
    weight = weight.contiguous()
    if operators := _mkldnn():
        _, multiply, _, reorder = operators
        packed = reorder(weight)
        return lambda features: multiply(features, packed, bias, "none", [], "")

    def plain(features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features, weight, bias)

    return plain
