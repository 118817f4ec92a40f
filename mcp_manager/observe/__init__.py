"""What can be seen of the fleet: views, snapshots, metrics and the latest calls."""
