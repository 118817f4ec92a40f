"""HTTP connections: opened, routed, bounded and shared."""
