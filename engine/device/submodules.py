"""The modules within a model, walked once: every drawing asks for them several times."""

from collections.abc import Mapping
from weakref import WeakKeyDictionary

from torch import nn

_walked: WeakKeyDictionary[nn.Module, dict[str, nn.Module]] = WeakKeyDictionary()


def submodules(module: nn.Module) -> Mapping[str, nn.Module]:
    """All modules within `module` by their names; the same object until `forget_submodules` is called."""
    if module not in _walked:
        _walked[module] = {name: part for name, part in module.named_modules() if part is not module}
    return _walked[module]


def forget_submodules() -> None:
    """Walk every model again at the next call. To be called after modules were put into a model or taken out."""
    _walked.clear()
