"""The settings of the engine."""

from pydantic import Field

from engine.work.gpu_client import STALL
from storage.settings import StorageSettings


class EngineSettings(StorageSettings):
    """Settings of the engine: `AVATAR_...` in the environment or in `.env`."""

    base_model: str | None = Field(
        default=None,
        description="Base model: a diffusers folder, Hub id or .safetensors file; unset means the embedded model.",
    )
    gpu_stall: float = Field(
        default=STALL, gt=0, description="Seconds of silence before the GPU process is killed and restarted."
    )
