"""Files that an option or an answer names."""

import os
from pathlib import Path


def file_of_caller(text: str) -> Path:
    """The file of this name. ./dev changes the folder, so a relative name begins in the folder where it was called."""
    return Path(os.environ.get("DEV_CALLED_IN", ""), os.path.expanduser(text))
