"""Simulates the effect of balancing, retries and hedges on latencies and errors."""
