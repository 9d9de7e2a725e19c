"""Small models of every family."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.engine import tiny


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's small model."""

    @cache
    def folder(family: str) -> Path:
        return tiny.save(family, tmp_path_factory.mktemp(family))

    return folder


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 throughout, to compare with pipelines that know no mixed precision."""
    monkeypatch.setattr("engine.device.precision.compute_dtype", lambda device: torch.float32)
