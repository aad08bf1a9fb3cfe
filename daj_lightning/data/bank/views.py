"""What stands around a node of a program: the names in view that could be mistaken for it, and its loops.

Two names are alike if they were bound alike: indices of loops, values of loops, numbers, lists, and so
on. Names are in view from where they are bound, in the order of the program.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable


class View:
    """The surroundings of every node of a core."""

    def __init__(self, core: ast.Module) -> None:
        self._alike: dict[int, list[str]] = {}
        loops = [node for node in ast.walk(core) if isinstance(node, ast.While)]
        self._looped = {id(node) for loop in loops for statement in loop.body for node in ast.walk(statement)}
        self._looped |= {id(loop) for loop in loops}
        self._steering = {node.id for loop in loops for node in ast.walk(loop.test) if isinstance(node, ast.Name)}
        solve = core.body[-1]
        numbers = [node.value for node in ast.walk(solve) if isinstance(node, ast.Constant) and type(node.value) is int]
        self.constants = list(dict.fromkeys(numbers))
        """The numbers of the program, each once."""
        assert isinstance(solve, ast.FunctionDef)
        self._block(solve.body, {argument.arg: "argument" for argument in solve.args.args})

    def alike(self, name: ast.expr) -> list[str]:
        """Other names in view that were bound alike; for one assigned to, none that a `while` waits for."""
        others = self._alike.get(id(name), [])
        stored = isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        return [other for other in others if not stored or other not in self._steering]

    def in_while(self, node: ast.AST) -> bool:
        """Whether the node is a `while` or inside of one, where a moved statement may make it endless."""
        return id(node) in self._looped

    def _block(self, statements: Iterable[ast.stmt], kinds: dict[str, str]) -> None:
        for statement in statements:
            self._statement(statement, kinds)

    def _statement(self, node: ast.stmt, kinds: dict[str, str]) -> None:
        if isinstance(node, ast.FunctionDef):
            self._block(node.body, kinds | {argument.arg: "index" for argument in node.args.args})
            return
        if isinstance(node, ast.For):
            self._expression(node.iter, kinds)
            _bind_loop(node.target, node.iter, kinds)
        elif isinstance(node, ast.If | ast.While):
            self._expression(node.test, kinds)
        else:
            for part in ast.iter_child_nodes(node):
                self._expression(part, kinds)
        if isinstance(node, ast.Assign):
            for target in node.targets:
                _bind(target, node.value, kinds)
        self._block(getattr(node, "body", []), kinds)
        self._block(getattr(node, "orelse", []), kinds)

    def _expression(self, node: ast.AST, kinds: dict[str, str]) -> None:
        if isinstance(node, ast.Name) and node.id in kinds:
            self._alike[id(node)] = [name for name in kinds if name != node.id and kinds[name] == kinds[node.id]]
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            inner = dict(kinds)
            for generator in node.generators:
                self._expression(generator.iter, inner)
                _bind_loop(generator.target, generator.iter, inner)
                for test in generator.ifs:
                    self._expression(test, inner)
            for made in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
                self._expression(made, inner)
        elif isinstance(node, ast.Lambda):
            self._expression(node.body, kinds | {argument.arg: "value" for argument in node.args.args})
        else:
            for part in ast.iter_child_nodes(node):
                self._expression(part, kinds)


def _bind_loop(target: ast.expr, values: ast.expr, kinds: dict[str, str]) -> None:
    called = values.func.id if isinstance(values, ast.Call) and isinstance(values.func, ast.Name) else ""
    if called == "enumerate" and isinstance(target, ast.Tuple):
        _bind_all(target.elts[0], "index", kinds)
        _bind_all(target.elts[1], "value", kinds)
    else:
        _bind_all(target, "index" if called == "range" else "value", kinds)


def _bind(target: ast.expr, value: ast.expr, kinds: dict[str, str]) -> None:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for one, its_value in zip(target.elts, value.elts, strict=True):
            _bind(one, its_value, kinds)
    else:
        _bind_all(target, "value" if isinstance(target, ast.Tuple) else _kind(value, kinds), kinds)


def _bind_all(target: ast.expr, kind: str, kinds: dict[str, str]) -> None:
    """Every name of a target; a name keeps the kind that it had first."""
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            kinds.setdefault(node.id, kind)


def _kind(value: ast.expr, kinds: dict[str, str]) -> str:
    if isinstance(value, ast.Name):
        return kinds.get(value.id, "number")
    if isinstance(value, ast.IfExp):
        return _kind(value.body, kinds)
    if isinstance(value, ast.BinOp) and isinstance(value.left, ast.List | ast.ListComp):
        return "list"
    if isinstance(value, ast.Constant):
        return type(value.value).__name__.replace("int", "number")
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return {"sorted": "list", "list": "list", "set": "set", "range": "list"}.get(value.func.id, "number")
    made = {
        ast.DictComp: "dict",
        ast.List: "list",
        ast.ListComp: "list",
        ast.Set: "set",
        ast.SetComp: "set",
        ast.Dict: "dict",
    }
    return made.get(type(value), "number")
