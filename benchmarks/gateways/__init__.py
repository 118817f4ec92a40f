"""What a gateway costs: ``python -m benchmarks.gateways``."""
