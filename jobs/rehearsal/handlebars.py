"""Renders the part of Handlebars that SendGrid's templates know; anything else is an error.

Substitution ({{x}} HTML-escaped, {{{x}}} as it is), if / unless / else / else if, equals, notEquals, and, or,
greaterThan, lessThan, length, each, insert with a default (SendGrid's documentation, "Using Handlebars"). Paths are
`name`, `a.b`, `this`, `this.x`, `@root.x`, `@index`. formatDate is the one documented helper that is left out.
As in Handlebars, a block tag or comment that stands alone on a line takes the line with it.
"""

import functools
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_TAG: Final = re.compile(
    r"\{\{!--(?P<long>.*?)--\}\}|\{\{!(?P<comment>[^}]*)\}\}|\{\{\{(?P<raw>[^{}]*)\}\}\}|\{\{(?P<tag>[^{}]*)\}\}",
    re.DOTALL,
)
_TOKEN: Final = re.compile(r"""\s*(?:(?P<string>"[^"]*"|'[^']*')|(?P<paren>[()])|(?P<word>[^\s()"']+))""")
_PATH: Final = re.compile(r"@?[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_][A-Za-z0-9_-]*)*\Z")
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?\Z")
_DEPTH: Final = 50


class TemplateError(ValueError):
    """The template is not in the subset that SendGrid supports; the message names the line."""


@dataclass(frozen=True)
class Path:
    """A look-up in the data."""

    name: str


@dataclass(frozen=True)
class Invocation:
    """A helper with its arguments, in a tag or in parentheses."""

    helper: str
    arguments: tuple["Expression", ...]


Expression = str | float | bool | None | Path | Invocation


@dataclass(frozen=True)
class Output:
    """{{x}} or {{{x}}}."""

    value: Expression
    is_escaped: bool


@dataclass
class Block:
    """{{#helper ...}} body {{else}} otherwise {{/helper}}."""

    helper: str
    arguments: tuple[Expression, ...]
    line: int
    body: list["Node"] = field(default_factory=list)
    otherwise: list["Node"] = field(default_factory=list)


Node = str | Output | Block


@dataclass(frozen=True)
class _Scope:
    root: Any
    this: Any
    index: int | None = None


def render(template: str, data: Mapping[str, Any]) -> str:
    """Render a template; what is missing in the data is empty. Raises TemplateError."""
    return _render(compile_template(template), _Scope(data, data))


@functools.lru_cache(maxsize=64)
def compile_template(template: str) -> tuple[Node, ...]:
    """Parse a template; raises TemplateError for what SendGrid would not render."""
    if "{{{{" in template:
        line = template.count("\n", 0, template.index("{{{{")) + 1
        raise TemplateError(f"line {line}: raw blocks (four braces) are not supported")
    root = Block("", (), 1)
    # Each entry is an open block, the list that it collects into, and whether it was opened by an {{else if}}.
    stack: list[tuple[Block, list[Node], bool]] = [(root, root.body, False)]
    end = counted = 0
    line = 1
    for match in _TAG.finditer(template):
        text = template[end : match.start()]
        line += template.count("\n", counted, match.start())
        counted = match.start()
        start, end = _trim_standalone(template, match)
        _add_text(stack[-1][1], text[: len(text) - (match.start() - start)], line)
        if match["raw"] is not None:
            stack[-1][1].append(Output(_expression(match["raw"], line), is_escaped=False))
        elif match["tag"] is not None:
            _add_tag(stack, match["tag"].strip(), line)
        if len(stack) > _DEPTH:
            raise TemplateError(f"line {line}: blocks are nested more than {_DEPTH} deep")
    _add_text(stack[-1][1], template[end:], line + template.count("\n", counted, end))
    if len(stack) > 1:
        block = stack[-1][0]
        raise TemplateError(f"line {block.line}: {{{{#{block.helper}}}}} is never closed")
    return tuple(root.body)


def _trim_standalone(template: str, match: re.Match[str]) -> tuple[int, int]:
    """Give where the text before a tag ends and the text after it starts."""
    start, end = match.span()
    tag = (match["tag"] or "").strip()
    is_block = match["raw"] is None and (match["tag"] is None or tag[:1] in ("#", "/") or tag.split()[:1] == ["else"])
    if not is_block:
        return start, end
    line_start = template.rfind("\n", 0, start) + 1
    line_end = template.find("\n", end)
    line_end = len(template) if line_end < 0 else line_end + 1
    if template[line_start:start].strip() or template[end:line_end].strip():
        return start, end
    return line_start, line_end


def _add_text(nodes: list[Node], text: str, line: int) -> None:
    if "{{" in text:
        raise TemplateError(f"line {line}: '{{{{' without its '}}}}', or braces inside braces")
    if text:
        nodes.append(text)


def _add_tag(stack: list[tuple[Block, list[Node], bool]], tag: str, line: int) -> None:
    block, nodes, _ = stack[-1]
    if tag.startswith("#"):
        opened = _open_block(tag[1:], line)
        nodes.append(opened)
        stack.append((opened, opened.body, False))
    elif tag == "else" or tag.startswith("else "):
        if len(stack) == 1 or nodes is block.otherwise:
            raise TemplateError(f"line {line}: {{{{else}}}} without a block that it belongs to")
        was_chained = stack.pop()[2]
        stack.append((block, block.otherwise, was_chained))
        if tag != "else":
            opened = _open_block(tag[len("else ") :], line)
            block.otherwise.append(opened)
            stack.append((opened, opened.body, True))
    elif tag.startswith("/"):
        while len(stack) > 1 and stack[-1][2]:  # the blocks of {{else if}} close with the one that they continue
            stack.pop()
        if len(stack) == 1 or stack[-1][0].helper != tag[1:].strip():
            raise TemplateError(f"line {line}: {{{{{tag}}}}} closes no open block")
        stack.pop()
    else:
        nodes.append(Output(_expression(tag, line), is_escaped=True))


def _open_block(text: str, line: int) -> Block:
    helper, arguments = _words(text, line)
    if helper not in _BLOCK_ARGUMENTS:
        raise TemplateError(f"line {line}: unknown block helper {helper!r}; known are {', '.join(_BLOCK_ARGUMENTS)}")
    if len(arguments) != _BLOCK_ARGUMENTS[helper]:
        raise TemplateError(f"line {line}: {helper} takes {_BLOCK_ARGUMENTS[helper]} arguments, not {len(arguments)}")
    return Block(helper, arguments, line)


def _expression(text: str, line: int) -> Expression:
    """Parse the inside of {{...}}: a path, or an inline helper with arguments."""
    helper, arguments = _words(text, line)
    if helper in _INLINE:
        return _inline(helper, arguments, line)
    if arguments:
        raise TemplateError(f"line {line}: unknown helper {helper!r}; known are {', '.join(_INLINE)}")
    return _path(helper, line)


def _words(text: str, line: int) -> tuple[str, tuple[Expression, ...]]:
    tokens: list[tuple[str, str]] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise TemplateError(f"line {line}: a quote is not closed")
        tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
        position = match.end()
    if not tokens or tokens[0][0] != "word":
        raise TemplateError(f"line {line}: a tag must begin with a name")
    arguments, rest = _arguments(tokens[1:], line, depth=0)
    if rest:
        raise TemplateError(f"line {line}: ')' without its '('")
    return tokens[0][1], arguments


def _arguments(
    tokens: Sequence[tuple[str, str]], line: int, depth: int
) -> tuple[tuple[Expression, ...], Sequence[tuple[str, str]]]:
    """Parse arguments up to the end or the ')' of this depth; give them and what is left."""
    found: list[Expression] = []
    while tokens:
        kind, text = tokens[0]
        tokens = tokens[1:]
        if kind == "string":
            found.append(text[1:-1])
        elif kind == "word":
            found.append(_literal(text) if _literal(text) is not _NOT_LITERAL else _path(text, line))
        elif text == "(" and tokens and tokens[0][0] == "word" and depth < _DEPTH:
            inner, rest = _arguments(tokens[1:], line, depth + 1)
            found.append(_inline(tokens[0][1], inner, line))
            tokens = rest
        elif text == ")" and depth:
            return tuple(found), tokens
        else:
            return tuple(found), [(kind, text), *tokens]
    if depth:
        raise TemplateError(f"line {line}: '(' without its ')'")
    return tuple(found), ()


_NOT_LITERAL: Final = object()


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "null": None, "undefined": None}
    if text in words:
        return words[text]
    if _NUMBER.match(text):
        return float(text) if "." in text else int(text)
    return _NOT_LITERAL


def _path(text: str, line: int) -> Path:
    if not _PATH.match(text):
        raise TemplateError(f"line {line}: {text!r} is neither a name nor a helper that SendGrid's templates know")
    if text.startswith("@") and text.split(".")[0] not in ("@root", "@index"):
        raise TemplateError(f"line {line}: {text!r} is unknown; known are @root and @index")
    return Path(text)


def _inline(helper: str, arguments: tuple[Expression, ...], line: int) -> Invocation:
    if helper not in _INLINE:
        raise TemplateError(f"line {line}: unknown helper {helper!r}; known are {', '.join(_INLINE)}")
    least, most = (1, 1) if helper == "length" else (1, 2)
    if not least <= len(arguments) <= most:
        raise TemplateError(f"line {line}: {helper} takes {least} to {most} arguments, not {len(arguments)}")
    return Invocation(helper, arguments)


def _render(nodes: Sequence[Node], scope: _Scope) -> str:
    out: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        elif isinstance(node, Output):
            text = _as_text(_value(node.value, scope))
            out.append(_escape(text) if node.is_escaped else text)
        elif node.helper == "each":
            value = _value(node.arguments[0], scope)
            entries = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
            for index, entry in enumerate(entries):
                out.append(_render(node.body, _Scope(scope.root, entry, index)))
            if not entries:
                out.append(_render(node.otherwise, scope))
        else:
            arguments = [_value(argument, scope) for argument in node.arguments]
            out.append(_render(node.body if _CONDITIONS[node.helper](*arguments) else node.otherwise, scope))
    return "".join(out)


def _value(expression: Expression, scope: _Scope) -> Any:
    if isinstance(expression, Path):
        return _look_up(expression.name, scope)
    if isinstance(expression, Invocation):
        value, *rest = [_value(argument, scope) for argument in expression.arguments]
        if expression.helper == "length":
            return len(value) if isinstance(value, str | list) else 0
        fallback = _as_text(rest[0]) if rest else ""
        return value if _is_true(value) else fallback.removeprefix("default=")
    return expression


def _look_up(name: str, scope: _Scope) -> Any:
    first, *rest = name.split(".")
    if first == "@index":
        value: Any = scope.index
    elif first == "@root":
        value = scope.root
    elif first == "this":
        value = scope.this
    else:
        value = scope.this.get(first) if isinstance(scope.this, Mapping) else None
    for part in rest:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _is_true(value: Any) -> bool:
    """Empty strings, zeros, null and empty lists are false; any other string is true, "0" and "false" too."""
    return bool(value)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _escape(text: str) -> str:
    """Escape what Handlebars escapes: & < > " ' and, for attributes without quotes, ` and =."""
    return html.escape(text, quote=True).replace("`", "&#x60;").replace("=", "&#x3D;")


def _as_number(value: Any) -> float | None:
    """Read a number as JavaScript's comparison would; None compares false with everything."""
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, str) and _NUMBER.match(value.strip()):
        return float(value)
    return None


def _equals(left: Any, right: Any) -> bool:
    """Compare across types: {{#equals 3 "3"}} is true (SendGrid's documentation, "Equals")."""
    if type(left) is type(right):
        return bool(left == right)
    if left is None or right is None:
        return False
    return _as_text(left) == _as_text(right)


def _compares(compare: Callable[[float, float], bool]) -> Callable[[Any, Any], bool]:
    def condition(left: Any, right: Any) -> bool:
        numbers = _as_number(left), _as_number(right)
        return numbers[0] is not None and numbers[1] is not None and compare(numbers[0], numbers[1])

    return condition


_CONDITIONS: Final[dict[str, Callable[..., bool]]] = {
    "if": _is_true,
    "unless": lambda value: not _is_true(value),
    "equals": _equals,
    "notEquals": lambda left, right: not _equals(left, right),
    "and": lambda left, right: _is_true(left) and _is_true(right),
    "or": lambda left, right: _is_true(left) or _is_true(right),
    "greaterThan": _compares(lambda left, right: left > right),
    "lessThan": _compares(lambda left, right: left < right),
}
_BLOCK_ARGUMENTS: Final = {
    "if": 1,
    "unless": 1,
    "each": 1,
    "equals": 2,
    "notEquals": 2,
    "and": 2,
    "or": 2,
    "greaterThan": 2,
    "lessThan": 2,
}
_INLINE: Final = ("insert", "length")
