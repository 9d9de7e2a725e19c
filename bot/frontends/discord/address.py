"""Where Discord is. What the library keeps to itself about that is touched here and nowhere else."""

from discord.gateway import DiscordWebSocket
from discord.http import Route
from yarl import URL


def point_at(api_url: str, gateway_url: str) -> None:
    """Let the library talk to these, in the whole process. Raises RuntimeError if it keeps its addresses elsewhere."""
    if not isinstance(getattr(Route, "BASE", None), str) or not hasattr(DiscordWebSocket, "DEFAULT_GATEWAY"):
        raise RuntimeError("this discord.py keeps its addresses elsewhere: look for them in http.py and gateway.py")
    Route.BASE = api_url.rstrip("/")
    DiscordWebSocket.DEFAULT_GATEWAY = URL(gateway_url)
