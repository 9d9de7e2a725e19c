"""The worker: it takes jobs from the queues and publishes their events."""
