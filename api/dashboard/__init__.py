"""The pages: server-rendered, offline, one declared dataclass per page."""
