"""XML that comes in pieces is what it is in one, and each piece costs by its own length."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from s4.config.limits import Limits
from s4.http.operations.listing import key_text
from s4.metadata.listing import Version
from s4.metadata.rows import Summary
from s4.s3.errors import S3Error
from s4.s3.xml import Document, Element, encode_key, parse

TEXT = "<D><K>a&amp;b<!-- c -->é\U0001f600</K><K/><E><F>x</F> y<![CDATA[<z>]]></E></D>".encode()


@given(st.lists(st.integers(0, len(TEXT)), max_size=6))
def test_pieces_make_the_same_document(cuts: list[int]) -> None:
    whole = parse(TEXT, "D", 5)
    pieces = Document("D", 5)
    edges = [0, *sorted(cuts), len(TEXT)]
    for start, end in itertools.pairwise(edges):
        pieces.feed(TEXT[start:end])
    assert pieces.end() == whole
    assert [child.text for child in whole.children] == ["a&bé\U0001f600", "", " y<z>"]


@pytest.mark.parametrize(
    "text", ["", "<D>", "<E></E>", "<D></D><D></D>", "<!DOCTYPE D><D/>", "<D><a><b><c/></b></a></D>"]
)
def test_what_is_no_such_document_is_refused_in_pieces_too(text: str) -> None:
    document = Document("D", 3)
    with pytest.raises(S3Error) as caught:
        for letter in text:
            document.feed(letter.encode())
        document.end()
    assert caught.value.code == "MalformedXML"


def test_a_completion_names_as_many_parts_as_there_may_be_as_listings_tell_them() -> None:
    part = "<Part>{}<ETag>e</ETag><ChecksumCRC32>s</ChecksumCRC32><LastModified>t</LastModified><Size>1</Size></Part>"
    parts = "".join(part.format(f"<PartNumber>{number}</PartNumber>") for number in range(1, Limits().parts + 1))
    root = "CompleteMultipartUpload"
    assert len(parse(f"<{root}>{parts}</{root}>".encode(), root, 5).children) == Limits().parts


def test_a_long_text_in_many_pieces_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment behind each letter makes each a piece: a text that grew by every one took seconds for 4 MB. Counted are
    the letters that are copied: none twice but for the join."""
    copied = 0

    class Counted(Element):
        def __setattr__(self, name: str, value: object) -> None:
            nonlocal copied
            if name == "text":
                copied += len(str(value))
            super().__setattr__(name, value)

    monkeypatch.setattr("s4.s3.xml.Element", Counted)
    count = 20_000
    found = parse(b"<D>" + b"a<!---->" * count + b"</D>", "D", 5)
    assert found.text == "a" * count
    assert copied <= 2 * count


@pytest.mark.parametrize("url", [False, True])
def test_a_page_of_keys_is_shown_as_each_of_them(url: bool) -> None:
    """Whether the page's keys need escaping is looked at once for all: with what needs it among them, and without."""
    summary = Summary(0, 0, "", False, False, "", "", "")
    every = [bytes((number,)) for number in range(256)] + ["ü".encode(), b"a b", b"a&b<c>"]
    for keys in (*([key] for key in every), every, [b"a", b"b/c d"]):
        shown = key_text([Version(key, b"", summary, True) for key in keys], url)
        assert [shown(key) for key in keys] == [encode_key(key, url) for key in keys]
