"""What runs on the cluster: engines, scorers, tracers. Knows no database and no HTTP, so it cannot decide to spend."""
