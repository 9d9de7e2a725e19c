"""The service: the supervisor takes jobs from the queues, runs the GPU process and publishes events."""
