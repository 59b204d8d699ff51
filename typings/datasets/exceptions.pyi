# datasets is typed in part only: what comes out of it is Any here, as with pyarrow.
from typing import Any

def __getattr__(name: str) -> Any: ...
