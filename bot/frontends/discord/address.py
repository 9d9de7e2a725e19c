"""Sets Discord's addresses, which are private attributes of the library. Only this module touches them."""

from discord.gateway import DiscordWebSocket
from discord.http import Route
from yarl import URL


def point_at(api_url: str, gateway_url: str) -> None:
    """Set the addresses for the process. Raises RuntimeError if this version of the library keeps them elsewhere."""
    if not isinstance(getattr(Route, "BASE", None), str) or not hasattr(DiscordWebSocket, "DEFAULT_GATEWAY"):
        raise RuntimeError("this discord.py keeps its addresses elsewhere: look for them in http.py and gateway.py")
    Route.BASE = api_url.rstrip("/")
    DiscordWebSocket.DEFAULT_GATEWAY = URL(gateway_url)
