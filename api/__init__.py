"""How people talk to isoflop: HTTP, pages, Python client and command line."""
