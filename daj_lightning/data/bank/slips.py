"""Slips: the mistakes of the policy "foreign", none of which another policy makes.

A name, an argument or a constant taken for another one of its kind, and statements in the wrong place.
A slip is an operator that also sees what stands around the node.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import TypeVar

from daj_lightning.data.bank.operators import Replacement, calls, is_int
from daj_lightning.data.bank.views import View

Slip = Callable[[ast.AST, View], Iterator[Replacement]]

_SIMPLE = (ast.Assign, ast.AugAssign, ast.Expr)
_JUMPS = (ast.Return, ast.Break, ast.Continue)
# Called the other way round, these only crash or do the same.
_KEPT_ORDER = ("min", "max", "range", "combinations", "heappush", "accumulate", "next", "sum", "get", "setdefault")


# ---- one thing for another of its kind


def wrong_variable(node: ast.AST, view: View) -> Iterator[Replacement]:
    """Another variable of the same kind is read."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for other in view.alike(node):
            yield ast.Name(other, ast.Load())


def wrong_accumulator(node: ast.AST, view: View) -> Iterator[Replacement]:
    """Another variable of the same kind is updated."""
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        for other in view.alike(node.target):
            yield ast.AugAssign(ast.Name(other, ast.Store()), node.op, node.value)
    elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        for other in view.alike(node.targets[0]):
            yield ast.Assign([ast.Name(other, ast.Store())], node.value, lineno=0)


def wrong_constant(node: ast.AST, view: View) -> Iterator[Replacement]:
    """One number of the program for another one: not 0 or 1, and not the next one."""
    if is_int(node):
        for other in view.constants:
            if other > 1 and abs(other - node.value) > 1:  # type: ignore[attr-defined]
                yield ast.Constant(other)


def index_for_value(node: ast.AST, view: View) -> Iterator[Replacement]:
    """i for nums[i]."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and isinstance(node.slice, ast.Name):
        yield node.slice


def count_for_sum(node: ast.AST, view: View) -> Iterator[Replacement]:
    """sum(1 for x in xs) for sum(x for x in xs), and back; len for sum."""
    if not calls(node, "sum") or len(node.args) != 1:  # type: ignore[attr-defined]
        return
    argument = node.args[0]  # type: ignore[attr-defined]
    if not isinstance(argument, ast.GeneratorExp):
        yield ast.Call(ast.Name("len", ast.Load()), [argument], [])
    elif is_int(argument.elt) and isinstance(argument.generators[0].target, ast.Name):
        value = ast.Name(argument.generators[0].target.id, ast.Load())
        yield ast.Call(ast.Name("sum", ast.Load()), [ast.GeneratorExp(value, argument.generators)], [])
    elif not isinstance(argument.elt, ast.Compare | ast.BoolOp | ast.BinOp | ast.Constant):
        yield ast.Call(ast.Name("sum", ast.Load()), [ast.GeneratorExp(ast.Constant(1), argument.generators)], [])


def confuse_equality(node: ast.AST, view: View) -> Iterator[Replacement]:
    """An equality for an inequality, and back; text is left alone."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and not _is_text(node.comparators[0]):
        others: Mapping[type, tuple[type[ast.cmpop], ...]] = {
            ast.Eq: (ast.LtE, ast.GtE),
            **dict.fromkeys((ast.Lt, ast.LtE, ast.Gt, ast.GtE), (ast.Eq,)),
        }
        for other in others.get(type(node.ops[0]), ()):
            yield ast.Compare(node.left, [other()], node.comparators)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


# ---- the wrong way round


def swap_arguments(node: ast.AST, view: View) -> Iterator[Replacement]:
    """f(b, a) for f(a, b), and table[c, r] for table[r, c]."""
    if isinstance(node, ast.Call) and len(node.args) == 2 and not node.keywords:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in _KEPT_ORDER:
            yield ast.Call(node.func, node.args[::-1], [])
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple) and len(node.slice.elts) == 2:
        yield ast.Subscript(node.value, ast.Tuple(node.slice.elts[::-1], ast.Load()), node.ctx)


def swap_targets(node: ast.AST, view: View) -> Iterator[Replacement]:
    """b, a = ... for a, b = ..., also in loops."""
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Store) and len(node.elts) == 2:
        yield ast.Tuple(node.elts[::-1], ast.Store())


# ---- something left out


def drop_default(node: ast.AST, view: View) -> Iterator[Replacement]:
    """No answer for what is missing: d[k] for d.get(k, 0), max(xs) for max(xs, default=0)."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "get" and len(node.args) == 2:
            yield ast.Subscript(node.func.value, node.args[0], ast.Load())
    elif calls(node, "min", "max") and any(keyword.arg == "default" for keyword in node.keywords):  # type: ignore[attr-defined]
        kept = [keyword for keyword in node.keywords if keyword.arg != "default"]  # type: ignore[attr-defined]
        yield ast.Call(node.func, node.args, kept)  # type: ignore[attr-defined]
    elif calls(node, "next") and len(node.args) == 2:  # type: ignore[attr-defined]
        yield ast.Call(node.func, node.args[:1], [])  # type: ignore[attr-defined]


def drop_start(node: ast.AST, view: View) -> Iterator[Replacement]:
    """A range or slice from the very beginning: an inner loop meets again what the outer one has done."""
    if calls(node, "range") and len(node.args) == 2 and _is_late(node.args[0]):  # type: ignore[attr-defined]
        yield ast.Call(node.func, node.args[1:], [])  # type: ignore[attr-defined]
    elif isinstance(node, ast.Slice) and node.lower is not None and _is_late(node.lower):
        yield ast.Slice(None, node.upper, node.step)


def _is_late(start: ast.expr) -> bool:
    """Not 0 or 1: one place off is another operator's mistake."""
    return not is_int(start) or start.value > 1  # type: ignore[attr-defined]


def overwrite(node: ast.AST, view: View) -> Iterator[Replacement]:
    """= for +=: the last value is kept, not the total."""
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        yield ast.Assign([node.target], node.value, lineno=0)


def alias_rows(node: ast.AST, view: View) -> Iterator[Replacement]:
    """[row] * n for [row for _ in range(n)]: n times one and the same row."""
    if isinstance(node, ast.ListComp) and len(node.generators) == 1 and not isinstance(node.elt, ast.Constant):
        loop = node.generators[0]
        unused = isinstance(loop.target, ast.Name) and loop.target.id == "_"
        if unused and calls(loop.iter, "range") and len(loop.iter.args) == 1:  # type: ignore[attr-defined]
            yield ast.BinOp(ast.List([node.elt], ast.Load()), ast.Mult(), loop.iter.args[0])  # type: ignore[attr-defined]


# ---- the wrong place


def swap_statements(node: ast.AST, view: View) -> Iterator[Replacement]:
    """An update and the statement that follows it, the wrong way round."""
    body = _body(node, view)
    for i, (first, second) in enumerate(pairwise(body)):
        if _updates(first) and isinstance(second, (*_SIMPLE, ast.If)) and _names(first) & _names(second):
            yield _with_body(node, [*body[:i], second, first, *body[i + 2 :]])


def dedent_last(node: ast.AST, view: View) -> Iterator[Replacement]:
    """The last statement of a loop after the loop."""
    body = _body(node, view)
    for i, loop in enumerate(body):
        if isinstance(loop, ast.For) and len(loop.body) > 1 and not _jumps(loop.body[-1]):
            yield _with_body(node, [*body[:i], _with_body(loop, loop.body[:-1]), loop.body[-1], *body[i + 1 :]])


def indent_next(node: ast.AST, view: View) -> Iterator[Replacement]:
    """The statement after a loop inside of it: a return in the first turn, for one."""
    body = _body(node, view)
    for i, (loop, after) in enumerate(pairwise(body)):
        if isinstance(loop, ast.For) and isinstance(after, (*_SIMPLE, ast.Return)):
            yield _with_body(node, [*body[:i], _with_body(loop, [*loop.body, after]), *body[i + 2 :]])


def reset_in_loop(node: ast.AST, view: View) -> Iterator[Replacement]:
    """A first value given again in every turn."""
    body = _body(node, view)
    for i, first in enumerate(body):
        j = next((j for j in range(i + 1, len(body)) if isinstance(body[j], ast.For)), None)
        if j is not None and _is_start(first) and _names(first) & _names(body[j]):
            loop = _with_body(body[j], [first, *body[j].body])  # type: ignore[attr-defined]
            yield _with_body(node, [*body[:i], *body[i + 1 : j], loop, *body[j + 1 :]])


def stop_at_first(node: ast.AST, view: View) -> Iterator[Replacement]:
    """A break too many: after the first turn, or after the first hit."""
    if isinstance(node, ast.For) and not _jumps(node.body[-1]):
        yield _with_body(node, [*node.body, ast.Break()])
        for i, hit in enumerate(node.body):
            if isinstance(hit, ast.If) and not hit.orelse:
                stopping = _with_body(hit, [*hit.body, ast.Break()])
                yield _with_body(node, [*node.body[:i], stopping, *node.body[i + 1 :]])


def wrong_jump(node: ast.AST, view: View) -> Iterator[Replacement]:
    """break for continue, and back."""
    if isinstance(node, ast.Break | ast.Continue) and not view.in_while(node):
        yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()


def _body(node: ast.AST, view: View) -> list[ast.stmt]:
    """The statements of a function, a `for` or an `if`, unless a `while` is around it."""
    return node.body if isinstance(node, ast.FunctionDef | ast.For | ast.If) and not view.in_while(node) else []


_Node = TypeVar("_Node", bound=ast.AST)


def _with_body(node: _Node, body: list[ast.stmt]) -> _Node:
    changed = copy.copy(node)
    changed.body = body  # type: ignore[attr-defined]
    return changed


def _updates(node: ast.stmt) -> bool:
    """x += 1, x.append(1), x = f(x)."""
    if isinstance(node, ast.Assign):
        target = ast.unparse(node.targets[0])
        return any(isinstance(part, ast.expr) and ast.unparse(part) == target for part in ast.walk(node.value))
    return isinstance(node, ast.AugAssign | ast.Expr)


def _is_start(node: ast.stmt) -> bool:
    """A number or an empty list given to a name."""
    if not isinstance(node, ast.Assign) or not all(isinstance(target, ast.Name) for target in node.targets):
        return False
    return isinstance(node.value, ast.Constant) or (isinstance(node.value, ast.List) and not node.value.elts)


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _jumps(node: ast.stmt) -> bool:
    return any(isinstance(part, _JUMPS) for part in ast.walk(node))


SLIPS: Mapping[str, Slip] = {
    slip.__name__: slip
    for slip in (
        wrong_variable,
        wrong_accumulator,
        wrong_constant,
        index_for_value,
        count_for_sum,
        confuse_equality,
        swap_arguments,
        swap_targets,
        drop_default,
        drop_start,
        overwrite,
        alias_rows,
        swap_statements,
        dedent_last,
        indent_next,
        reset_in_loop,
        stop_at_first,
        wrong_jump,
    )
}
