"""Pre-training: the scripts that made the embedded base's weights. Nothing in service imports them."""
