"""Files that the bot hands out, for platforms that have to be given all of a file at once."""

from bot.messages import File
from storage.blobs import Blobs


async def content(blobs: Blobs, file: File, most: int) -> bytes | None:
    """The file's bytes, or None if it has more than `most`. Raises UnknownBlob if it was erased since."""
    if file.key is None:
        data = (file.content or "").encode()
        return data if len(data) <= most else None
    # In pieces: what a full DreamBooth learned of Stable Diffusion has more bytes than the process should hold.
    held = bytearray()
    async for chunk in blobs.stream(file.key):
        held += chunk
        if len(held) > most:
            return None
    return bytes(held)
