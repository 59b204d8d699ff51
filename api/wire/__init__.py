"""The documents people send and get: pydantic models, strict where they come in, complete where they go out.

No type here is used inside `service`; `api/resolve.py` turns job documents into `JobSpec`s.
"""
