"""The frontends. Each adapts one chat platform to `Commands` and to the `Frontend` port."""

from bot.messages import Frontend

__all__ = ["Frontend"]
