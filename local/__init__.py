"""The whole system on one machine. A script imports from here what docs/scripting.md describes.

Each name is imported when it is first used: ./dev reads its options from this package before anything is installed.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local.app import App, Person, chat_app, new_phone
    from local.cloud import LocalCloud, local_cloud
    from local.providers.apns import faults as apns_faults
    from local.providers.expo import faults as expo_faults
    from local.providers.fcm import faults as fcm_faults
    from local.providers.phones import Arrival, Condition, Phone

__all__ = [
    "App",
    "Arrival",
    "Condition",
    "LocalCloud",
    "Person",
    "Phone",
    "apns_faults",
    "chat_app",
    "expo_faults",
    "fcm_faults",
    "local_cloud",
    "new_phone",
]

# chat_client: the people of the demo, of chaos and of ./dev chat use it. It is not installed as a package.
sys.path.append(str(Path(__file__).parents[1] / "client" / "python"))

_FAULTS = {f"{provider}_faults": f"local.providers.{provider}.faults" for provider in ("apns", "expo", "fcm")}
_MODULES = ("local.providers.phones", "local.app", "local.cloud")


def __getattr__(name: str) -> object:
    """An exported name (https://peps.python.org/pep-0562/)."""
    if name in _FAULTS:
        return import_module(_FAULTS[name])
    if name in __all__:
        for module in map(import_module, _MODULES):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
