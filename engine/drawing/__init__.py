"""Drawing: requests and adapters become pictures."""
