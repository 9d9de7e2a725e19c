"""The local web chat: a small page, a WebSocket and the same commands as everywhere.

People log in with a name and no password: everybody who types the same name is the same person. This is meant for your
own machine. Do not open it to a network that others can reach.
"""

from bot.frontends.chat.bot import serve

__all__ = ["serve"]
