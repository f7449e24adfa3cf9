"""
YAML as nodes that know their line, so that an error can name it.

Loading is safe: nothing is constructed but text, numbers, booleans, lists and mappings. A key that
is there twice and an alias are refused: of the one a value would be lost, the other can make a
small file large.
"""

from collections.abc import Iterable
from typing import Any, Final

import yaml

from domain.errors import BadInput

DEPTH_MAX: Final = 32
DIGITS_MAX: Final = 9
NUMBER_END: Final = 1e300
"""What isn't below it, infinity and NaN too, is no number to reckon with."""


class YamlFile:
    """
    A parsed YAML file.

    Raises:
        BadInput: naming the source and the line.
    """

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = "" if error.problem_mark is None else f" line {error.problem_mark.line + 1}"
            raise BadInput(f"{source}{line}: expected YAML: {error.problem}") from None
        except (yaml.YAMLError, RecursionError) as error:
            raise BadInput(f"{source}: expected YAML: {error}") from None
        if root is None:
            raise BadInput(f"{source}: expected scenarios, was an empty file")
        self.root = root
        self._check_tree(root)

    def place(self, node: yaml.Node) -> str:
        """Return how messages name a node's place: `guide.yaml line 7`."""
        return f"{self.source} line {node.start_mark.line + 1}"

    def bad(self, node: yaml.Node, problem: str) -> BadInput:
        """Return the error about a node, to be raised."""
        return BadInput(f"{self.place(node)}: {problem}")

    def mapping(
        self, node: yaml.Node, at: str, *, known: Iterable[str] = (), required: Iterable[str] = ()
    ) -> dict[str, yaml.Node]:
        """
        Return a mapping's nodes by key.

        Args:
            at: what it is, for messages.
            known: the keys that may be there; none for any.
        """
        if not isinstance(node, yaml.MappingNode):
            raise self.bad(node, f"{at}: expected a mapping, was {_kind(node)}")
        names = tuple(known)
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.bad(key, f"{at}: expected keys that are text, was {_kind(key)}")
            if key.value in found:
                raise self.bad(key, f"{at}: the key {key.value!r} is there twice")
            if names and key.value not in names:
                raise self.bad(key, f"{at}: unknown key {key.value!r}; known: {', '.join(names)}")
            found[key.value] = value
        for name in required:
            if name not in found:
                raise self.bad(node, f"{at}: expected a key {name!r}, was {', '.join(found)}")
        return found

    def sequence(self, node: yaml.Node, at: str) -> list[yaml.Node]:
        """Return a list's nodes."""
        if not isinstance(node, yaml.SequenceNode):
            raise self.bad(node, f"{at}: expected a list, was {_kind(node)}")
        return list(node.value)

    def text(self, node: yaml.Node, at: str) -> str:
        """Return a scalar's text as it stands in the file."""
        if not isinstance(node, yaml.ScalarNode):
            raise self.bad(node, f"{at}: expected text, was {_kind(node)}")
        return str(node.value)

    def number(self, node: yaml.Node, at: str) -> float:
        """Return a finite number."""
        value = self.plain(node)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not abs(value) < NUMBER_END:
            raise self.bad(node, f"{at}: expected a number, was {value!r}")
        return float(value)

    def whole(self, node: yaml.Node, at: str) -> int:
        """Return a whole number from 0."""
        text = self.text(node, at)
        if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
            raise self.bad(node, f"{at}: expected a whole number, was {text!r}")
        return int(text)

    def is_null(self, node: yaml.Node) -> bool:
        """Return whether a node is null."""
        return bool(node.tag == "tag:yaml.org,2002:null")

    def plain(self, node: yaml.Node) -> Any:
        """Return a node as Python's own dicts, lists and scalars."""
        if isinstance(node, yaml.MappingNode):
            inner = self.mapping(node, "mapping")
            return {key: self.plain(value) for key, value in inner.items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(value) for value in node.value]
        try:
            return yaml.constructor.SafeConstructor().construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError):
            raise self.bad(node, f"expected a plain value, was {node.value!r}") from None

    def _check_tree(self, root: yaml.Node) -> None:
        """Refuse what was met before, an alias, and what is nested too deeply."""
        seen: set[int] = set()
        below = [(root, 0)]
        while below:
            node, depth = below.pop()
            if id(node) in seen:
                raise self.bad(node, "expected no alias (*name), was one to this; write it out")
            seen.add(id(node))
            if depth > DEPTH_MAX:
                raise self.bad(node, f"expected at most {DEPTH_MAX} levels, was more")
            if isinstance(node, yaml.MappingNode):
                below += [(part, depth + 1) for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                below += [(part, depth + 1) for part in node.value]


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, yaml.SequenceNode) else repr(node.value)
