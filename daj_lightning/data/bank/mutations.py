"""Semantic mutations: the mistakes that a policy makes.

A mutation is one replacement at one place, offered by an operator of `operators` or `slips`. It may
leave the program right by chance: only execution says. What steers a `while` is left alone, for most
changes there would only make the loop endless.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random

from daj_lightning.data.bank.operators import PLAIN, Operator, Replacement
from daj_lightning.data.bank.slips import SLIPS, Slip
from daj_lightning.data.bank.views import View

OPERATORS: tuple[str, ...] = (*PLAIN, *SLIPS)
"""Names of all operators."""
Site = tuple[ast.AST, Replacement]
"""A node, and what comes in its place."""


@dataclass(frozen=True)
class Mutation:
    """A program core with one mistake in it."""

    operator: str
    core: ast.Module


def mutate(core: ast.Module, operators: Mapping[str, float], rng: Random) -> Mutation | None:
    """A copy of the core with one mistake in it.

    Args:
        operators: name -> weight; an operator is drawn by weight among those that apply, then a place evenly.
    Returns:
        None if no operator of these applies.
    """
    found = sites(core, operators)
    if not found:
        return None
    name = rng.choices(list(found), weights=[operators[name] for name in found])[0]
    node, replacement = rng.choice(found[name])
    return Mutation(name, replaced(core, node, replacement))


def sites(core: ast.Module, operators: Iterable[str]) -> dict[str, list[Site]]:
    """Where each of these operators applies, without those that do not."""
    places, known = _places(core), _operators(core)
    return {name: found for name in operators if (found := _sites(places, known[name]))}


def _operators(core: ast.Module) -> dict[str, Operator]:
    """Every operator by name; slips see what is around a node of this core."""
    view = View(core)

    def bound(slip: Slip) -> Operator:
        return lambda node: slip(node, view)

    return {**PLAIN, **{name: bound(slip) for name, slip in SLIPS.items()}}


def _places(core: ast.Module) -> list[tuple[ast.AST, bool]]:
    """Nodes of `solve` that may change, and whether each may also go."""
    protected, deletable = _protected(core), _deletable(core)
    nodes = [node for node in ast.walk(core.body[-1]) if id(node) not in protected]
    return [(node, id(node) in deletable) for node in nodes]


def _sites(places: list[tuple[ast.AST, bool]], operator: Operator) -> list[Site]:
    return [
        (node, replacement)
        for node, may_go in places
        for replacement in operator(node)
        if replacement is not None or may_go
    ]


def _protected(core: ast.Module) -> set[int]:
    """Nodes that decide how long a `while` runs: its test, and what changes a name in it."""
    roots: list[ast.AST] = []
    for loop in ast.walk(core):
        if isinstance(loop, ast.While):
            names = {node.id for node in ast.walk(loop.test) if isinstance(node, ast.Name)}
            roots += [loop.test, *(part for part in ast.walk(loop) if _touches(part, names))]
    return {id(node) for root in roots for node in ast.walk(root)}


def _touches(node: ast.AST, names: set[str]) -> bool:
    """Whether a statement assigns one of the names, or is a call, which may change anything."""
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        stored = {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        return bool(stored & names)
    return isinstance(node, ast.Expr)


def _deletable(core: ast.Module) -> set[int]:
    """Statements that leave a sibling behind, outside of any `while`."""
    loops = [loop for loop in ast.walk(core) if isinstance(loop, ast.While)]
    looped = {id(node) for loop in loops for statement in loop.body for node in ast.walk(statement)}
    bodies = [getattr(node, field, []) for node in ast.walk(core) for field in ("body", "orelse")]
    siblings = [node for body in bodies if isinstance(body, list) and len(body) > 1 for node in body]
    return {id(node) for node in siblings} - looped


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: Replacement) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST | None:
        return copy.deepcopy(self.new) if node is self.old else self.generic_visit(node)


def replaced(core: ast.Module, old: ast.AST, new: Replacement) -> ast.Module:
    """A copy of the core with this replacement made."""
    memo: dict[int, ast.AST] = {}
    tree = copy.deepcopy(core, memo)
    result = _Replace(memo[id(old)], new).visit(tree)
    assert isinstance(result, ast.Module)
    return ast.fix_missing_locations(result)
