"""One spelling for programs that differ in layout, comments, type hints and the names of their variables.

Renamed in order of appearance: whatever the program binds itself, scope by scope, except what others call
by name: attributes and methods, keyword arguments, imports, builtins and `class Solution`. Constants
stay. Candidates are untrusted text, so nothing here runs them, and what the parser refuses (unfinished
programs, null bytes, thousands of brackets) is compared line by line instead.
"""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence

_STRING = (
    r'"""(?:\\.?|[^\\])*?(?:"""|\Z)'
    r"|'''(?:\\.?|[^\\])*?(?:'''|\Z)"
    r'|"(?:\\.|[^"\\\n])*"?'
    r"|'(?:\\.|[^'\\\n])*'?"
)
_COMMENT = re.compile(rf"({_STRING})|#[^\n]*", re.DOTALL)
_TOKEN = re.compile(rf"{_STRING}|\w+|\S", re.DOTALL)

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_NAME_FIELD: dict[type[ast.AST], str] = {
    ast.Name: "id",
    ast.arg: "arg",
    ast.ExceptHandler: "name",
    ast.MatchAs: "name",
    ast.MatchStar: "name",
    ast.MatchMapping: "rest",
    ast.Global: "names",
    ast.Nonlocal: "names",
}
"""Where nodes name a variable, definitions and imports aside."""
_SILENT = {(ast.Name, "ctx"), (ast.arg, "annotation"), (ast.Constant, "kind"), (ast.AnnAssign, "simple")}
_FIXED = "Solution"
"""The class that the platform calls."""


def canonical_program(code: str) -> str:
    """Equal for two programs that are copies of each other but for what the module's first lines list."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a candidate's string is no concern of ours
            tree = ast.parse(code)
        return "tree " + _Spelling(tree).text()
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # MemoryError: the parser's own stack
        return "lines " + _canonical_lines(code)


def without_comments(code: str) -> str:
    """The code less its comments; a # within a string is none. Takes unfinished programs too."""
    return _COMMENT.sub(lambda match: match[1] or "", code)


def _canonical_lines(code: str) -> str:
    """Depth and tokens of each line that holds any."""
    widths: list[int] = []
    lines = []
    for line in without_comments(code).expandtabs().splitlines():
        tokens = _TOKEN.findall(line)
        if tokens:
            width = len(line) - len(line.lstrip())
            widths = [*(outer for outer in widths if outer < width), width]
            lines.append(f"{len(widths)} {' '.join(tokens)}")
    return "\n".join(lines)


class _Scope:
    """The variables of a module, function, class body or comprehension, and how each is spelled."""

    def __init__(
        self,
        nodes: Iterable[ast.AST],
        outer: _Scope | None,
        numbers: Iterator[int],
        parameters: Iterable[str] = (),
        class_body: bool = False,
    ) -> None:
        # What a class body binds is not seen from within its methods.
        self.outer: _Scope | None = outer.outer if outer and outer.class_body else outer
        self.numbers = numbers
        self.class_body: bool = class_body
        bound, kept, elsewhere = _bindings(nodes)
        bound |= set(parameters)
        kept |= bound if class_body else bound & {_FIXED}  # what a class body binds are attributes
        self.names: dict[str, str | None] = dict.fromkeys(bound - elsewhere)
        self.names |= {name: name for name in kept}

    def spell(self, name: str) -> str:
        scope: _Scope | None = self
        while scope and name not in scope.names:
            scope = scope.outer
        if not scope:
            return name  # a builtin, or from an import of everything
        spelled = scope.names[name]
        if spelled is None:
            spelled = scope.names[name] = f"%{next(self.numbers)}"  # no name of a program holds a %
        return spelled


def _bindings(nodes: Iterable[ast.AST]) -> tuple[set[str], set[str], set[str]]:
    """Names that these nodes of one scope bind, import, and declare to be of an outer scope."""
    bound: set[str] = set()
    imported: set[str] = set()
    elsewhere: set[str] = set()
    todo = list(nodes)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                bound.add(node.id)
        elif isinstance(node, _DEFINITIONS):
            bound.add(node.name)
        elif isinstance(node, _COMPREHENSIONS):  # `:=` binds outside
            bound |= {inner.target.id for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)}
        elif isinstance(node, ast.Global | ast.Nonlocal):
            elsewhere |= set(node.names)
        elif isinstance(node, ast.alias):
            imported.add(node.asname or node.name.split(".")[0])
        elif not isinstance(node, ast.Lambda):
            name = getattr(node, _NAME_FIELD.get(type(node), ""), None)
            bound |= {name} if name else set()
            todo += ast.iter_child_nodes(node)
    return bound, imported, elsewhere


class _Spelling:
    """A syntax tree written out with its variables numbered."""

    def __init__(self, tree: ast.Module) -> None:
        self._parts: list[str] = []
        self._numbers = itertools.count()
        module = _Scope(tree.body, None, self._numbers)
        declared = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
        module.names = {**dict.fromkeys(declared), **module.names}
        self._value(tree.body, module)

    def text(self) -> str:
        return "".join(self._parts)

    def _value(self, value: object, scope: _Scope) -> None:
        """A field: a node, a list of them, or what a node is made of."""
        if isinstance(value, ast.AST):
            self._node(value, scope)
        elif isinstance(value, list):
            self._parts.append("[")
            for entry in value:
                if not _says_nothing(entry, scope):
                    self._value(entry, scope)
            self._parts.append("]")
        else:
            self._parts.append(f"{value!r},")

    def _node(self, node: ast.AST, scope: _Scope) -> None:
        if isinstance(node, ast.AnnAssign) and node.value is not None and not scope.class_body:
            node = ast.Assign([node.target], node.value)  # but a dataclass means its hints
        kind = type(node)
        self._parts.append(f"{kind.__name__}(")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._parts.append(f"{scope.spell(node.name)},")
            self._value(node.decorator_list, scope)
            self._function(node.args, node.body, scope)
        elif isinstance(node, ast.Lambda):
            self._function(node.args, [node.body], scope)
        elif isinstance(node, ast.ClassDef):
            self._parts.append(f"{scope.spell(node.name)},")
            self._value([node.decorator_list, node.bases, node.keywords], scope)
            self._value(node.body, _Scope(node.body, scope, self._numbers, class_body=True))
        elif isinstance(node, _COMPREHENSIONS):
            self._comprehension(node, scope)
        else:
            self._fields(node, scope)
        self._parts.append(")")

    def _fields(self, node: ast.AST, scope: _Scope) -> None:
        kind = type(node)
        names = _NAME_FIELD.get(kind)
        for field in node._fields:
            value = getattr(node, field, None)
            if field == names and value is not None:
                self._parts += [f"{scope.spell(name)}," for name in ([value] if isinstance(value, str) else value)]
            elif (kind, field) not in _SILENT:
                self._value(value, scope)

    def _function(self, args: ast.arguments, body: Sequence[ast.AST], scope: _Scope) -> None:
        self._value([args.defaults, args.kw_defaults], scope)
        named = [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))]
        inner = _Scope(body, scope, self._numbers, parameters=[arg.arg for arg in named])
        self._value([args.posonlyargs, args.args, args.vararg, args.kwonlyargs, args.kwarg], inner)
        self._value(list(body), inner)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, scope: _Scope) -> None:
        inner = _Scope([generator.target for generator in node.generators], scope, self._numbers)
        for k, generator in enumerate(node.generators):
            self._value(generator.iter, inner if k else scope)  # the first is evaluated outside
            self._value([generator.target, generator.ifs, generator.is_async], inner)
        elements = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._value(elements, inner)


def _says_nothing(statement: object, scope: _Scope) -> bool:
    """A docstring, a string that stands as a comment, or a type hint alone."""
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None and not scope.class_body
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
