"""Builds an engine of a model that cannot be computed here. Argument: its directory. Prints why as JSON."""

import json
import sys
from pathlib import Path

from service.errors import InvalidInput
from tests.engine.drive_engine import model_spec
from workers.engine import VllmEngine

if __name__ == "__main__":
    try:
        VllmEngine(model_spec(Path(sys.argv[1])), seed=0)
        print(json.dumps({"said": None}))
    except InvalidInput as error:
        print(json.dumps({"said": str(error)}))
