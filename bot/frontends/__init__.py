"""The places where people chat. Each adapts one platform to `Commands` and to the `Frontend` port."""

from bot.messages import Frontend

__all__ = ["Frontend"]
