"""Operators of the policies that train a judge: mistakes in conditions, values, calls and statements.

An operator looks at one node of a program and offers replacements for it; None deletes a statement.
The mistakes that no training policy makes are in `slips`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping

Replacement = ast.AST | None
Operator = Callable[[ast.AST], Iterator[Replacement]]


# ---- conditions


def compare_strictness(node: ast.AST) -> Iterator[Replacement]:
    """< for <=, > for >=, and back."""
    yield from _other_comparison(node, {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt})


def flip_comparison(node: ast.AST) -> Iterator[Replacement]:
    """The opposite direction: < for >, == for !=."""
    flips: dict[type, type] = {
        ast.Lt: ast.Gt,
        ast.Gt: ast.Lt,
        ast.LtE: ast.GtE,
        ast.GtE: ast.LtE,
        ast.Eq: ast.NotEq,
        ast.NotEq: ast.Eq,
    }
    yield from _other_comparison(node, flips)


def _other_comparison(node: ast.AST, other: Mapping[type, type]) -> Iterator[Replacement]:
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            if type(op) in other:
                ops = [*node.ops[:i], other[type(op)](), *node.ops[i + 1 :]]
                yield ast.Compare(node.left, ops, node.comparators)


def negate_condition(node: ast.AST) -> Iterator[Replacement]:
    """The branches of an if, swapped."""
    if isinstance(node, ast.If):
        yield ast.If(_negation(node.test), node.body, node.orelse)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)


def _negation(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    return ast.UnaryOp(ast.Not(), test)


def swap_and_or(node: ast.AST) -> Iterator[Replacement]:
    if isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)


def drop_condition(node: ast.AST) -> Iterator[Replacement]:
    """One part of an `and` or `or` forgotten, or the filter of a comprehension."""
    if isinstance(node, ast.BoolOp):
        for i in range(len(node.values)):
            rest = [*node.values[:i], *node.values[i + 1 :]]
            yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield ast.comprehension(node.target, node.iter, [], 0)


def drop_guard(node: ast.AST) -> Iterator[Replacement]:
    """The special case forgotten: an early return, or the fallback of `a if c else b`."""
    if isinstance(node, ast.If) and not node.orelse and isinstance(node.body[-1], ast.Return | ast.Continue):
        yield None
    elif isinstance(node, ast.IfExp) and isinstance(node.orelse, ast.Constant | ast.UnaryOp):
        yield node.body


def drop_branch(node: ast.AST) -> Iterator[Replacement]:
    """Only one side of an if ... else ..."""
    if isinstance(node, ast.If) and node.orelse and not isinstance(node.orelse[0], ast.If):
        yield ast.If(node.test, node.body, [])
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse


# ---- arithmetic and values


def off_by_one_constant(node: ast.AST) -> Iterator[Replacement]:
    if is_int(node):
        yield ast.Constant(node.value + 1)  # type: ignore[attr-defined]
        yield ast.Constant(node.value - 1)  # type: ignore[attr-defined]


def swap_arithmetic(node: ast.AST) -> Iterator[Replacement]:
    """+ for -, * for +, // for %."""
    other = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mod}
    if isinstance(node, ast.BinOp) and type(node.op) in other and not isinstance(node.left, ast.List):
        yield ast.BinOp(node.left, other[type(node.op)](), node.right)
    elif isinstance(node, ast.AugAssign) and type(node.op) in other:
        yield ast.AugAssign(node.target, other[type(node.op)](), node.value)


def swap_operands(node: ast.AST) -> Iterator[Replacement]:
    """b - a for a - b."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub | ast.FloorDiv | ast.Mod):
        yield ast.BinOp(node.right, node.op, node.left)


def drop_modulus(node: ast.AST) -> Iterator[Replacement]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        yield node.left


def drop_negation(node: ast.AST) -> Iterator[Replacement]:
    """-x becomes x: a tie broken the wrong way."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield node.operand


def drop_term(node: ast.AST) -> Iterator[Replacement]:
    """a for a + b: one part of a sum forgotten."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield node.left
        if isinstance(node.op, ast.Add):
            yield node.right


def wrong_initial(node: ast.AST) -> Iterator[Replacement]:
    """A first value that is off: 1 for 0, 0 for anything else."""
    if not isinstance(node, ast.Assign):
        return
    if is_int(node.value):
        yield ast.Assign(node.targets, ast.Constant(0 if node.value.value else 1), lineno=0)  # type: ignore[attr-defined]
    elif isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Subscript):
        yield ast.Assign(node.targets, ast.Constant(0), lineno=0)


# ---- calls, ranges and slices


def swap_min_max(node: ast.AST) -> Iterator[Replacement]:
    other = {"min": "max", "max": "min"}
    if isinstance(node, ast.Name) and node.id in other:
        yield ast.Name(other[node.id], ast.Load())


def wrong_aggregate(node: ast.AST) -> Iterator[Replacement]:
    """max for sum, sum for max."""
    other = {"sum": "max", "max": "sum", "min": "sum"}
    if calls(node, *other) and len(node.args) == 1 and not node.keywords:  # type: ignore[attr-defined]
        yield ast.Call(ast.Name(other[node.func.id], ast.Load()), node.args, [])  # type: ignore[attr-defined]


def drop_call(node: ast.AST) -> Iterator[Replacement]:
    """Not sorted, not distinct, or one side of a min or max."""
    if calls(node, "sorted", "set"):
        yield ast.Call(ast.Name("list", ast.Load()), node.args[:1], [])  # type: ignore[attr-defined]
    elif calls(node, "min", "max") and len(node.args) == 2:  # type: ignore[attr-defined]
        yield from node.args  # type: ignore[attr-defined]


def wrong_order(node: ast.AST) -> Iterator[Replacement]:
    """Ascending for descending: True for False."""
    if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool):
        yield ast.keyword(node.arg, ast.Constant(not node.value.value))


def range_bound(node: ast.AST) -> Iterator[Replacement]:
    """A range that starts or ends one place off."""
    if calls(node, "range"):
        args = node.args  # type: ignore[attr-defined]
        at = 0 if len(args) == 1 else 1
        for bound in (_plus(args[at], 1), _plus(args[at], -1)):
            yield _range([*args[:at], bound, *args[at + 1 :]])
        yield _range([_plus(args[0], 1), *args[1:]] if at else [ast.Constant(1), *args])


def _range(args: list[ast.expr]) -> ast.Call:
    return ast.Call(ast.Name("range", ast.Load()), args, [])


def slice_bound(node: ast.AST) -> Iterator[Replacement]:
    """A slice one place off."""
    if isinstance(node, ast.Slice):
        if node.lower is not None:
            yield ast.Slice(_plus(node.lower, 1), node.upper, node.step)
        if node.upper is not None:
            yield ast.Slice(node.lower, _plus(node.upper, 1), node.step)
            yield ast.Slice(node.lower, _plus(node.upper, -1), node.step)


def wrong_index(node: ast.AST) -> Iterator[Replacement]:
    """The element next to the wanted one."""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name | ast.BinOp):
        yield ast.Subscript(node.value, _plus(node.slice, -1), node.ctx)


# ---- statements


def wrong_return(node: ast.AST) -> Iterator[Replacement]:
    """The answer one off, or of the last step only."""
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Name | ast.Call | ast.Subscript):
        yield ast.Return(_plus(node.value, 1))
        yield ast.Return(_plus(node.value, -1))


def drop_statement(node: ast.AST) -> Iterator[Replacement]:
    """An update forgotten."""
    if isinstance(node, ast.AugAssign | ast.Expr) or _overwrites(node):
        yield None


def _overwrites(node: ast.AST) -> bool:
    """x = f(x): without it, x keeps its value."""
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name | ast.Subscript):
        return False
    target = ast.unparse(node.targets[0])
    return any(isinstance(part, ast.expr) and ast.unparse(part) == target for part in ast.walk(node.value))


def _plus(expression: ast.expr, amount: int) -> ast.expr:
    """expression + amount, folded where it already ends in a constant."""
    if is_int(expression):
        return ast.Constant(expression.value + amount)  # type: ignore[attr-defined]
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.Add | ast.Sub) and is_int(expression.right):
        change = amount if isinstance(expression.op, ast.Add) else -amount
        value = expression.right.value + change  # type: ignore[attr-defined]
        return ast.BinOp(expression.left, expression.op, ast.Constant(value)) if value else expression.left
    return ast.BinOp(expression, ast.Add() if amount > 0 else ast.Sub(), ast.Constant(abs(amount)))


def is_int(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def calls(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


PLAIN: Mapping[str, Operator] = {
    operator.__name__: operator
    for operator in (
        compare_strictness,
        flip_comparison,
        negate_condition,
        swap_and_or,
        drop_condition,
        drop_guard,
        drop_branch,
        off_by_one_constant,
        swap_arithmetic,
        swap_operands,
        drop_modulus,
        drop_negation,
        drop_term,
        wrong_initial,
        swap_min_max,
        wrong_aggregate,
        drop_call,
        wrong_order,
        range_bound,
        slice_bound,
        wrong_index,
        wrong_return,
        drop_statement,
    )
}
