"""Addresses of classes: what a file says, and what it may lead to."""

import importlib
import sys
from typing import TypeVar

T = TypeVar("T")

LIBRARIES = ("lightning.", "torch.")  # importing a part of these runs nothing that a file could choose


def public_address(cls: type) -> str:
    """Return the address by which files name a class: that of its package if it is public, so that modules can move."""
    package = cls.__module__.partition(".")[0]
    is_public = getattr(sys.modules[package], cls.__name__, None) is cls
    return f"{package if is_public else cls.__module__}.{cls.__qualname__}"


def find_class(path: str, base: type[T]) -> type[T] | None:
    """Return the class at an address, of this package, of torch or Lightning, or of a module that is imported already.

    Nothing else is imported, as the address may come from a file of somebody else.

    Args:
        path: Import path, or the name of a public class of this package; so does a former address of one.
        base: What it must be a subclass of.

    Returns:
        The class, or None if there is none.
    """
    module, _, name = path.rpartition(".")
    if module.partition(".")[0] in ("", __package__):
        module = str(__package__)
    elif f"{module}.".startswith(LIBRARIES):
        importlib.import_module(module)
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, base) else None
