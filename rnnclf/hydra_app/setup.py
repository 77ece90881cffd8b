"""Registers schemas, resolvers and plugins with Hydra before anything is composed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from rnnclf.config import GROUPS, Config
from rnnclf.errors import ConfigError
from rnnclf.files import claim_folder
from rnnclf.hydra_app.plugins import register_plugins
from rnnclf.options import Component
from rnnclf.registry import PLUGGABLE


def conf_dir() -> Path:
    """conf/ inside the package in a wheel, or next to the package in a checkout.

    Not importlib.resources: an editable install leaves a stale copy in site-packages.
    """
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise FileNotFoundError("rnnclf is installed without its conf/ folder.")


def register(plugins: list[str]) -> None:
    """Registers schemas and plugins; can be called again with more plugins.

    Schemas have their own group `schema`: names such as cell/base_lstm would show up in help and TAB
    completion, and a sweep over all cells would run them.
    """
    if not OmegaConf.has_resolver("fresh_dir"):
        _register_fresh_dir(_claimed)
        register_plugins()
    for group, name in add_plugins(plugins):
        _store_choice(group, name)
    _store_schema("schema", "config", Config)
    for group, registry in GROUPS.items():
        for name, kind in registry.items():
            _store_schema(f"schema/{group}", name, kind)


def _store_schema(group: str, name: str, kind: type) -> None:
    """Stores a schema, unless it is there: storing all of them takes a third of composing a configuration."""
    store = ConfigStore.instance()
    stored: Any = store.repo
    for part in (*group.split("/"), f"{name}.yaml"):
        stored = stored.get(part, {})
    if not stored or OmegaConf.get_type(stored.node) is not kind:
        node = OmegaConf.structured(kind)
        if kind is Config:  # the file of an experiment holds figures, too; `from_composed` refuses other keys
            node._set_flag("struct", False)
        store.store(group=group, name=name, node=node, provider="rnnclf")


def _claimed(base: str, name: str | None = None) -> str:
    return str(claim_folder(Path(base), name=name or ""))


def _shown(base: str, name: str | None = None) -> str:
    return f"{base}/DATE/TIME{f'_{name}' if name else ''}"


def _register_fresh_dir(folder: Callable[..., str]) -> None:
    # cached, so that all processes of a sweep get the same folder
    OmegaConf.register_new_resolver("fresh_dir", folder, use_cache=True, replace=True)


@contextmanager
def folders_unclaimed() -> Iterator[None]:
    """Makes no folder inside the block, where a configuration is only shown."""
    _register_fresh_dir(_shown)
    try:
        yield
    finally:
        _register_fresh_dir(_claimed)


def add_plugins(plugins: list[str]) -> list[tuple[str, str]]:
    """Adds components from entry points and `plugins` to the registries; returns their groups and names."""
    own = [*_installed(), *_named(plugins)]
    for group, name, kind in own:
        GROUPS[group].add(name, kind)
    return [(group, name) for group, name, _ in own]


def _store_choice(group: str, name: str) -> None:
    """Stores a `group/name.yaml` for a plugin: its schema and, for a cell, hidden_size from `hidden`."""
    node = {"defaults": [f"/schema/{group}/{name}@_here_", "_self_"]}
    sizes = {"hidden_size": "${hidden}"} if group == "cell" else {}
    ConfigStore.instance().store(group=group, name=name, node={**node, **sizes}, provider="rnnclf")


def _installed() -> list[tuple[str, str, type[Component]]]:
    return [
        (group, point.name, point.load())
        for group, points in PLUGGABLE.items()
        for point in entry_points(group=points)
    ]


def _named(plugins: list[str]) -> list[tuple[str, str, type[Component]]]:
    """The components defined in the named modules. Raises ConfigError."""
    found = []
    for module_name in plugins:
        module = own_module(module_name, "plugins: ")
        kinds = [
            (group, kind.name, kind)
            for kind in vars(module).values()
            if isinstance(kind, type) and kind.__module__ == module_name
            for group, base in _bases().items()
            if issubclass(kind, base)
        ]
        if not kinds:
            raise ConfigError(f"plugins: '{module_name}' defines neither a cell nor a dataset.")
        found += kinds
    return found


def own_module(name: str, prefix: str = "") -> ModuleType:
    """Imports a user's module, also from the current folder. Raises ConfigError."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except (ImportError, SyntaxError, ValueError, TypeError) as error:  # the last two for an invalid name
        raise ConfigError(f"{prefix}cannot import '{name}': {error}.") from error


def _bases() -> dict[str, type[Component]]:
    from rnnclf.cells import Cell
    from rnnclf.data import Source

    return {"cell": Cell, "dataset": Source}
