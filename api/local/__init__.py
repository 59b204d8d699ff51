"""Commands that need no service: they read files on this machine and may import `workers`."""
