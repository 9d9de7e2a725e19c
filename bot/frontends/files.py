"""Reading a file of a message into memory, for platforms that do not stream uploads."""

from bot.messages import File
from storage.blobs import Blobs


async def content(blobs: Blobs, file: File, most: int) -> bytes | None:
    """The file's bytes, or None if there are more than `most`. Raises UnknownBlob if it was erased."""
    if file.key is None:
        data = (file.content or "").encode()
        return data if len(data) <= most else None
    # In chunks, to stop at the limit: a DreamBooth checkpoint of Stable Diffusion has gigabytes.
    held = bytearray()
    async for chunk in blobs.stream(file.key):
        held += chunk
        if len(held) > most:
            return None
    return bytes(held)
