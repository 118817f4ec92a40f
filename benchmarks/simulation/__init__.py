"""What balancing, retries and hedges do to latencies and errors, in simulated time."""
