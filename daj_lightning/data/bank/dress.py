"""What two programs may differ in without meaning anything else: names and spelling.

Right and wrong programs are dressed alike, from the same pools, after any mistake was made.
"""

from __future__ import annotations

import ast
import builtins
from random import Random

_POOLS = (
    ("total", "count", "result", "answer", "res", "ans"),
    ("best", "result", "answer", "top", "res", "ans"),
    ("values", "vals", "items", "arr", "kept"),
    ("kept", "chosen", "items", "vals"),
    ("run", "length", "cur", "streak"),
    ("start", "left", "begin", "first"),
    ("x", "v", "num", "val"),
    ("a", "x", "u", "p"),
    ("b", "y", "w", "q"),
    ("i", "j", "k", "idx"),
    ("j", "t", "pos", "m"),
    ("digit", "d", "rest", "last"),
    ("digits", "parts", "ds", "found"),
    ("text", "out", "result", "res", "ans"),
    ("parts", "out", "pieces", "result"),
    ("letter", "ch", "c", "sym"),
    ("size", "length", "cnt", "width"),
    ("turned", "moved", "out", "res", "t"),
    ("counts", "freq", "seen", "table"),
    ("window", "cur", "total", "acc"),
    ("prefix", "acc", "pre", "sums"),
    ("sums", "totals", "scores", "found"),
    ("groups", "merged", "blocks", "out"),
    ("ways", "dp", "table", "counts"),
    ("best_at", "dp", "table", "score"),
    ("dist", "steps", "seen", "depth"),
    ("stack", "opened", "pending", "st"),
    ("level", "depth", "height", "balance"),
    ("cell", "ch", "mark", "square"),
)


def dress(core: ast.Module, rng: Random) -> ast.Module:
    """A core with other names and spellings, and the same behaviour."""
    core = _Rename(_new_names(core, rng)).visit(core)
    if rng.random() < 0.3:
        core = _SpellOut().visit(core)
    if rng.random() < 0.2:
        core = _Mirror().visit(core)
    return ast.fix_missing_locations(core)


def fold(core: ast.Module) -> ast.Module:
    """Sums, differences and products of two numbers worked out: a template's `3 - 1` becomes 2."""
    return ast.fix_missing_locations(_Fold().visit(core))


def _new_names(core: ast.Module, rng: Random) -> dict[str, str]:
    """A name for every local variable that has a pool; no two names meet."""
    taken = set(dir(builtins)) | {"n", "self", "solve"}
    local: list[str] = []
    for node in ast.walk(core):
        if isinstance(node, ast.Name):
            taken.add(node.id)
            if isinstance(node.ctx, ast.Store) and node.id not in local:
                local.append(node.id)
        elif isinstance(node, ast.arg | ast.alias | ast.FunctionDef):
            taken.add(node.arg if isinstance(node, ast.arg) else node.name)
    fixed = {node.arg for node in ast.walk(core) if isinstance(node, ast.arg)}
    pools = {pool[0]: pool for pool in _POOLS}
    names = {}
    for old in sorted(set(local) - fixed):
        free = [name for name in pools.get(old, ()) if name == old or name not in taken]
        if free:
            names[old] = rng.choice(free)
            taken.add(names[old])
    return names


class _Rename(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


class _SpellOut(ast.NodeTransformer):
    """x += y as x = x + y, for plain names."""

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt:
        if not isinstance(node.target, ast.Name):
            return node
        old = ast.Name(node.target.id, ast.Load())
        return ast.Assign([node.target], ast.BinOp(old, node.op, node.value), lineno=0)


class _Mirror(ast.NodeTransformer):
    """a < b as b > a."""

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        self.generic_visit(node)
        other = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
        if len(node.ops) != 1 or type(node.ops[0]) not in other:
            return node
        return ast.Compare(node.comparators[0], [other[type(node.ops[0])]()], [node.left])


class _Fold(ast.NodeTransformer):
    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if not (_is_int(node.left) and _is_int(node.right)):
            return node
        left, right = node.left.value, node.right.value  # type: ignore[attr-defined]
        if isinstance(node.op, ast.Add):
            return ast.Constant(left + right)
        if isinstance(node.op, ast.Sub):
            return ast.Constant(left - right)
        return ast.Constant(left * right) if isinstance(node.op, ast.Mult) else node


def _is_int(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int
