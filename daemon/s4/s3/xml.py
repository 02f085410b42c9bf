"""XML in and out. In: expat with every declaration refused, and bounds on size, depth and elements. Out: text.

S3's bodies are small trees without attributes that matter; `parse` gives them as nested `Element`s with
local names. Namespaces are ignored on the way in, as S3 does for most clients' sake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote
from xml.parsers import expat

from s4.s3.errors import S3Error, text

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
MAX_ELEMENTS = 50_000
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


def parse(body: bytes, root: str, max_depth: int) -> Element:
    """The document's root, which must have that name. Raises S3Error MalformedXML."""
    top = Element("")
    stack = [top]
    count = 0
    parser = expat.ParserCreate("UTF-8", namespace_separator=" ")  # whatever it declares: no other codec is started
    parser.buffer_text = True

    def refuse(*_: object) -> None:
        raise S3Error("MalformedXML", "Document type and entity declarations are not allowed.")

    def start(name: str, _: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if len(stack) > max_depth or count > MAX_ELEMENTS:
            raise S3Error("MalformedXML", "The XML is nested too deep or has too many elements.")
        element = Element(name.rpartition(" ")[2])
        stack[-1].children.append(element)
        stack.append(element)

    def end(_: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        stack[-1].text += data

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, UnicodeError, ValueError) as error:
        raise S3Error("MalformedXML") from error
    if len(top.children) != 1 or top.children[0].name != root:
        raise S3Error("MalformedXML", f"The XML's root should be {root}.")
    return top.children[0]


def tag(name: str, value: str | int) -> str:
    return f"<{name}>{text(value) if isinstance(value, str) else value}</{name}>"


def encode_key(key: bytes, url: bool) -> str:
    """A key for a listing: percent-encoded where the client asked (encoding-type=url), else as XML text."""
    if url:
        return key.decode() if _PLAIN_KEY(key) else quote(key, safe="/-_.~*")
    return text(key.decode("utf-8", "replace"))


def document(root: str, inner: str) -> bytes:
    return f'{HEAD}<{root} xmlns="{NAMESPACE}">{inner}</{root}>'.encode()
