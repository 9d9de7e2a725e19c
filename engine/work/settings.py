"""The settings of the engine."""

from pydantic import Field

from engine.work.gpu_client import STALL
from storage.settings import StorageSettings


class EngineSettings(StorageSettings):
    """What the engine reads from the environment and an `.env` file, with the prefix AVATAR_."""

    base_model: str | None = Field(
        default=None,
        description="Base model: a diffusers folder, hub id or .safetensors file; unset means the embedded one.",
    )
    gpu_stall: float = Field(
        default=STALL, gt=0, description="Seconds of silence before the GPU process is killed and restarted."
    )
