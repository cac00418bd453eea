"""The whole system on one machine. A script imports from here what docs/scripting.md describes.

Each name is imported when it is first used: ./dev reads its options from this package before anything is installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local.app import App, Person, chat_app, new_phone
    from local.cloud import LocalCloud, local_cloud
    from local.providers.expo.faults import (
        Hang,
        HttpError,
        OddAnswer,
        ProjectConflict,
        ReceiptError,
        Reset,
        TicketCount,
        TicketError,
    )
    from local.providers.phones import Arrival, Phone

__all__ = [
    "App",
    "Arrival",
    "Hang",
    "HttpError",
    "LocalCloud",
    "OddAnswer",
    "Person",
    "Phone",
    "ProjectConflict",
    "ReceiptError",
    "Reset",
    "TicketCount",
    "TicketError",
    "chat_app",
    "local_cloud",
    "new_phone",
]

_MODULES = ("local.providers.expo.faults", "local.providers.phones", "local.app", "local.cloud")


def __getattr__(name: str) -> object:
    """An exported name (https://peps.python.org/pep-0562/)."""
    if name in __all__:
        for module in map(import_module, _MODULES):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
