# pyarrow ships no types: what comes out of it is Any here, so that strict checking covers our side of the border.
from typing import Any

def __getattr__(name: str) -> Any: ...
