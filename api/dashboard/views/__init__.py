"""Pages from the store: each function reads what one page shows and returns its dataclass. No HTML and no HTTP here."""
