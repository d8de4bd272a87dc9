"""Named parameters in a source's query: found with SQL's own lexical rules, never by replacing text.

`:name` inside a string, a quoted name, a comment or a dollar-quoted body is not a parameter, and neither is the
`::` of a PostgreSQL cast.
"""

import re
from collections.abc import Callable, Iterator

_TOKEN = re.compile(
    r"""
      (?P<quoted> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | `[^`]*` )
    | (?P<body> \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<cast> :: )
    | :(?P<name> [A-Za-z_]\w* )
    | (?P<code> \w+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)


def parameter_names(query: str) -> set[str]:
    """Name every parameter that the query uses."""
    return {match["name"] for match in _TOKEN.finditer(query) if match["name"]}


def bind_names(query: str, placeholder: Callable[[str], str]) -> str:
    """Put `placeholder(name)` where a parameter stands and leave the rest as it is."""
    return "".join(placeholder(match["name"]) if match["name"] else match[0] for match in _TOKEN.finditer(query))


def query_problems(query: str, *, needed: set[str], allowed: set[str]) -> Iterator[str]:
    """Say everything that keeps a query from being one ordered SELECT over its window."""
    names = parameter_names(query)
    if missing := sorted(needed - names):
        listed = ", ".join(f":{name}" for name in missing)
        yield f"the query does not use {listed}; without it every day would export everything"
    if unknown := sorted(names - allowed):
        yield (
            f"the query uses {', '.join(f':{name}' for name in unknown)}; "
            f"the parameters here are {', '.join(f':{name}' for name in sorted(allowed))}"
        )
    code = _outer_code(query)
    if ";" in code:
        yield "the query is more than one statement; expected one SELECT without semicolons"
    if not re.search(r"\border by\b", code):
        yield "the query has no ORDER BY of its own; without it two exports of one day could differ: order it by a key"


def _outer_code(query: str) -> str:
    """Keep the words outside literals, comments and parentheses, in lower case with single spaces."""
    words, depth = [], 0
    for match in _TOKEN.finditer(query):
        word = match["code"]
        if word is None or word.isspace():
            words.append(" ")
        elif word in "()":
            depth += 1 if word == "(" else -1
        elif depth == 0:
            words.append(word.lower())
    return re.sub(r"\s+", " ", "".join(words))
