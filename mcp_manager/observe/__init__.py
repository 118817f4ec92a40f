"""Observation of the fleet: views, snapshots, metrics and the latest calls."""
