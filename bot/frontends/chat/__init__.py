"""The local web chat: a small page, a WebSocket and the same commands as everywhere.

People log in by typing a name, and whoever types the same name is the same person. That is meant for one's own
machine, where it saves setting up accounts; do not put it on a network that others can reach.
"""

from bot.frontends.chat.bot import serve

__all__ = ["serve"]
