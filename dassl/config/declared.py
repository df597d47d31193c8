"""What trainer files declare, read from their text: importing a method would import torch first.

A method declares its keys in a function `extend_cfg(cfg)` of assignments alone:

    cfg.TRAINER.METHOD = CfgNode()
    cfg.TRAINER.METHOD.KEY = <a literal>

and registers its class by the decorator `@TRAINER_REGISTRY.register()`. A file that does either in another way must be
imported to know.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from yacs.config import CfgNode

from basics.additions import method_folders

NEW_NODE = object()  # the value of `CfgNode()`
# Importing these declares no method and no dataset. Anything else that a file imports might.
DECLARE_NOTHING = {*sys.stdlib_module_names, "basics", "clip", "dassl", "datasets", "trainers"}
DECLARE_NOTHING |= {"numpy", "open_clip", "PIL", "torch", "torchvision", "tqdm", "yacs", "yaml"}


class NotDeclared(Exception):
    """A file has to be imported to know what it declares."""


def declare_keys(cfg: CfgNode, folder: Path) -> None:
    """Add the keys that the trainer files in `folder` declare.

    A file may add keys to the node of another one, so the nodes come first.

    Raises:
        NotDeclared: a file has an `extend_cfg` of another form, or two of them declare one node; `cfg` is unchanged.
    """
    found = [assignment for _, tree in _trees(folder) for assignment in _assignments(tree)]
    nodes = [tuple(path) for path, value in found if value is NEW_NODE]
    if len(set(nodes)) < len(nodes):
        raise NotDeclared
    extended = cfg.clone()
    for (*parents, name), value in sorted(found, key=lambda assignment: assignment[1] is not NEW_NODE):
        node = extended
        for parent in parents:
            if parent not in node:
                raise NotDeclared
            node = node[parent]
        node[name] = CfgNode() if value is NEW_NODE else value
    cfg.update(extended)


def registered_names(folder: Path) -> list[str]:
    """List the names of the classes that the files in `folder` register, in alphabetical order.

    Raises:
        NotDeclared: a file registers something by a call.
    """
    names: set[str] = set()
    for _, tree in _trees(folder):
        decorators = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                own = [d for d in node.decorator_list if isinstance(d, ast.Call) and _registers(d)]
                names.update({node.name} if own else ())
                decorators.update(own)
        if any(isinstance(n, ast.Call) and _registers(n) and n not in decorators for n in ast.walk(tree)):
            raise NotDeclared
    return sorted(names)


def _trees(folder: Path) -> list[tuple[Path, ast.Module]]:
    """Parse all files of a package, if nothing can be declared elsewhere than in them, and no other file is in it."""
    trees = []
    if method_folders(folder):
        raise NotDeclared
    for path in sorted({*folder.rglob("*.py")} - {folder / "__init__.py"}):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            raise NotDeclared from None  # the import reports what is wrong with it
        if any(root not in DECLARE_NOTHING for root in _imported(tree, folder.name)):
            raise NotDeclared
        trees.append((path, tree))
    return trees


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """List the top-level packages that a module of `package` imports when it is imported itself."""
    for node in _outside_functions(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if any("extend_cfg" in (alias.name, alias.asname) for alias in node.names):
                yield "extend_cfg"  # declares what another module does
            yield (node.module or "").partition(".")[0] if not node.level else package


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from _outside_functions(node)


def _registers(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "register"


def _assignments(tree: ast.Module) -> list[tuple[list[str], object]]:
    """List (["TRAINER", "METHOD", "KEY"], value) of the function `extend_cfg`; NEW_NODE for a node without keys."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "extend_cfg"]
    found = []
    for statement in (statement for function in functions for statement in function.body):
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # the docstring
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            raise NotDeclared
        found.append((_path(statement.targets[0]), _value(statement.value)))
    return found


def _path(target: ast.expr) -> list[str]:
    names: list[str] = []
    while isinstance(target, ast.Attribute):
        names.insert(0, target.attr)
        target = target.value
    if not names or not isinstance(target, ast.Name) or target.id != "cfg":
        raise NotDeclared
    return names


def _value(value: ast.expr) -> object:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in ("CfgNode", "CN"):
        if not value.args and not value.keywords:
            return NEW_NODE
    try:
        return ast.literal_eval(value)
    except ValueError:
        raise NotDeclared from None
