"""Learning: an album becomes an adapter."""
