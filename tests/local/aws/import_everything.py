"""Imports all that a function may ever import, with nothing on the path but the folders given, its own first.

Run by test_build.py in a Python of its own, without installed packages.
"""

import ast
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path


def imports(module: str) -> Iterator[str]:
    """What a module imports, inside of its functions as well."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(str(name), level=0):
                yield name


folders = sys.argv[1:]
sys.path += folders
own = [module.name for module in pkgutil.iter_modules(folders[:1])]
own += [
    f"chat_push.{module.name}" for module in pkgutil.iter_modules([f"{folder}/chat_push" for folder in folders[1:]])
]
assert "app" in own
assert "chat_push.settings" in own
for module in own:
    importlib.import_module(module)
    for imported in imports(module):
        importlib.import_module(imported)
