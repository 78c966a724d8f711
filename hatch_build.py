"""Has the wheel carry the web console, built with the Node.js that comes from PyPI (`web/build.py`).

An editable installation takes what `make web` leaves, whenever that is run. With `MODELKEEP_WITHOUT_CONSOLE=1` the wheel has no
console.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConsoleHook(BuildHookInterface[Any]):
    """Builds the console before the wheel's files are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build it; a wheel that would silently lack it is not made."""
        del build_data
        if version == "editable" or os.environ.get("MODELKEEP_WITHOUT_CONSOLE"):
            return
        done = subprocess.run([sys.executable, str(Path(self.root, "web/build.py")), "build"], check=False)
        if done.returncode:
            sys.exit("The web console was not built: see above. With MODELKEEP_WITHOUT_CONSOLE=1 the wheel has none.")
