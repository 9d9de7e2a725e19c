"""What people can tell the bot to do: one handler for each command and button."""
