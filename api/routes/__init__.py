"""HTTP routes, one module a resource. Handlers are plain functions: they write rows and wake the loop, no more."""
