"""XML in and out. In: expat with every declaration refused, and bounds on size, depth and elements. Out: text.

S3's bodies are small trees without attributes that matter; `parse` gives them as nested `Element`s with
local names. Namespaces are ignored on the way in, as S3 does for most clients' sake. An element that its root's schema
(`schemas.py`) has not is refused as it begins, so that nothing a client says is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote
from xml.parsers import expat

from s4.s3.errors import S3Error, text
from s4.s3.schemas import MANY, SCHEMAS, Schema

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
MAX_ELEMENTS = 70_000  # 10,000 parts as ListParts tells them have 60,000
_PLAIN_KEY = re.compile(rb"[A-Za-z0-9/_.~*-]*").fullmatch


@dataclass(slots=True)
class Element:
    name: str
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, name: str) -> Iterator[Element]:
        return (child for child in self.children if child.name == name)

    def get(self, name: str) -> str | None:
        """The text of the first child of that name."""
        child = next(self.all(name), None)
        return child.text.strip() if child is not None else None

    def truth(self, name: str) -> bool:
        """Whether its child of that name says so; not where there is none. Raises S3Error MalformedXML."""
        value = (self.get(name) or "false").lower()
        if value not in ("true", "false"):
            raise S3Error("MalformedXML", f"{name} must be true or false.")
        return value == "true"


def parse(body: bytes, root: str, max_depth: int) -> Element:
    """The document's root, which must have that name. Raises S3Error MalformedXML."""
    document = Document(root, max_depth)
    document.feed(body)
    return document.end()


class Document:
    """A document that comes in pieces; each costs time by its own length only, whatever came before."""

    def __init__(self, root: str, max_depth: int) -> None:
        self._root, self._tree = root, _Tree(root, max_depth)
        # whatever it declares: no other codec is started
        self._parser = expat.ParserCreate("UTF-8", namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartDoctypeDeclHandler = self._parser.EntityDeclHandler = self._tree.refuse
        self._parser.StartElementHandler, self._parser.EndElementHandler = self._tree.start, self._tree.end
        self._parser.CharacterDataHandler = self._tree.text

    def feed(self, data: bytes, last: bool = False) -> None:
        """Raises S3Error MalformedXML."""
        try:
            self._parser.Parse(data, last)
        except (expat.ExpatError, UnicodeError, ValueError) as error:
            raise S3Error("MalformedXML") from error

    def end(self) -> Element:
        """The document's root. Raises S3Error MalformedXML."""
        self.feed(b"", True)
        found = self._tree.top.children
        if len(found) != 1 or found[0].name != self._root:
            raise S3Error("MalformedXML", f"The XML's root should be {self._root}.")
        return found[0]


class _Tree:
    """What a parser's handlers make. It does not know the parser: a cycle would keep both for the garbage collector."""

    def __init__(self, root: str, max_depth: int) -> None:
        self.top = Element("")
        # what may stand in each open element; None where nobody says
        self._schemas: list[Schema | None] = [{root: SCHEMAS[root]} if root in SCHEMAS else None]
        # of open elements; their texts are joined once, at the end
        self._stack, self._texts = [self.top], [list[str]()]
        self._max_depth, self._count = max_depth, 0

    def refuse(self, *_: object) -> None:
        raise S3Error("MalformedXML", "Document type and entity declarations are not allowed.")

    def start(self, name: str, _: dict[str, str]) -> None:
        self._count += 1
        if len(self._stack) > self._max_depth or self._count > MAX_ELEMENTS:
            raise S3Error("MalformedXML", "The XML is nested too deep or has too many elements.")
        element, schema = Element(name.rpartition(" ")[2]), self._schemas[-1]
        if schema is not None and len(self._stack) > 1:
            parent = self._stack[-1]
            wrong = "S4 does not know the element {} of {}." if element.name not in schema else ""
            if element.name not in MANY and any(parent.all(element.name)):
                wrong = "The element {} of {} is given twice."
            if wrong:
                raise S3Error("MalformedXML", wrong.format(element.name, parent.name), Element=element.name)
        self._schemas.append(schema.get(element.name) if schema is not None else None)
        self._stack[-1].children.append(element)
        self._stack.append(element)
        self._texts.append([])

    def end(self, _: str) -> None:
        self._schemas.pop()
        self._stack.pop().text = "".join(self._texts.pop())

    def text(self, data: str) -> None:
        self._texts[-1].append(data)


def tag(name: str, value: str | int) -> str:
    return f"<{name}>{text(value) if isinstance(value, str) else value}</{name}>"


def encode_key(key: bytes, url: bool) -> str:
    """A key for a listing: percent-encoded where the client asked (encoding-type=url), else as XML text."""
    if url:
        return key.decode() if _PLAIN_KEY(key) else quote(key, safe="/-_.~*")
    return text(key.decode("utf-8", "replace"))


def document(root: str, inner: str) -> bytes:
    return f'{HEAD}<{root} xmlns="{NAMESPACE}">{inner}</{root}>'.encode()
