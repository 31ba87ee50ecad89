from __future__ import annotations

import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.whatsapp_server.wire.codec import Codec, TokenTables
from tests.whatsapp_server.wire.nodes import JID, SERVER, Content, MalformedStanzaError, Node, lid_jid, number_jid

TOKENS = TokenTables(
    ["", "message", "to", "s.whatsapp.net", "lid", "id"], [["receipt", "read"], ["g.us"], ["x"], ["y"]]
)
CODEC = Codec(TOKENS)

texts = st.one_of(
    st.sampled_from(["message", "receipt", "g.us", "0123-45.6", "3EB0AF", "1", "A", "é"]),
    st.text(string.printable, min_size=1, max_size=300),
)
users = st.text(string.digits, min_size=1, max_size=15)
addresses = st.one_of(
    st.builds(JID, users, st.sampled_from(["s.whatsapp.net", "lid"]), st.integers(0, 99)),
    st.builds(JID, users, st.just("g.us"), st.just(0)),
    st.just(SERVER),
)
contents = st.one_of(st.none(), st.binary(max_size=2000))
leaves = st.builds(Node, texts, st.dictionaries(texts, st.one_of(texts, addresses), max_size=4), contents)
trees = st.recursive(
    leaves, lambda children: st.builds(Node, texts, content=st.lists(children, min_size=1, max_size=4))
)


@given(trees)
def test_what_is_encoded_decodes_to_the_same(node: Node) -> None:
    assert CODEC.decode(CODEC.encode(node)) == node


@given(trees, st.data())
def test_a_frame_that_is_cut_off_is_malformed(node: Node, data: st.DataObject) -> None:
    frame = CODEC.encode(node)
    cut = frame[: data.draw(st.integers(0, len(frame) - 1))]
    with pytest.raises(MalformedStanzaError):
        CODEC.decode(cut)


@pytest.mark.parametrize(
    ("node", "encoded"),
    [
        (Node("message"), "f801 01"),
        (Node("receipt"), "f801 ec00"),
        (Node("message", {"id": "12-3"}), "f803 01 05 ff0212a3"),
        (Node("message", {"id": "ABC"}), "f803 01 05 fb82abcf"),
        (Node("message", {"to": SERVER}), "f803 01 02 fa0003"),
        (Node("message", {"to": JID("7", "g.us")}), "f803 01 02 faff817fed00"),
        (Node("message", {"to": number_jid("7", 2)}), "f803 01 02 f70002ff817f"),
        (Node("message", {"to": JID("7", "lid", 2)}), "f803 01 02 f70102ff817f"),
        (Node("message", {"id": None, "to": ""}), "f801 01"),
        (Node("message", content=b"\x07"), "f802 01 fc0107"),
        (Node("message", content=[Node("message")]), "f802 01 f801 f801 01"),
    ],
)
def test_the_bytes_are_those_of_the_format(node: Node, encoded: str) -> None:
    assert CODEC.encode(node) == b"\0" + bytes.fromhex(encoded)


@pytest.mark.parametrize("size", [255, 256, 1 << 20])
def test_contents_of_every_size_survive(size: int) -> None:
    content: Content = bytes(size)
    assert CODEC.decode(CODEC.encode(Node("message", content=content))).content == content


def test_more_children_than_one_byte_counts() -> None:
    node = Node("message", content=[Node("id") for _ in range(300)])
    assert CODEC.decode(CODEC.encode(node)) == node


def test_a_compressed_frame_is_read() -> None:
    plain = CODEC.encode(Node("message", {"id": "7"}))
    assert CODEC.decode(b"\x02" + zlib.compress(plain[1:])) == Node("message", {"id": "7"})


@pytest.mark.parametrize("frame", [b"", b"\0", b"\0\0", b"\x02nonsense", b"\0\xf8\x01\xf0", b"\0\x05"])
def test_bytes_that_are_no_node_are_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedStanzaError):
        CODEC.decode(frame)


def test_a_node_gives_what_it_holds_and_says_what_it_lacks() -> None:
    node = Node("iq", {"to": lid_jid("62811", 3), "id": "7"}, [Node("a", None, [Node("b", None, b"\x01\x00")])])

    assert node.need("a", "b").number == 256
    assert node.find("a", "c") is None
    assert node.jid("to").number == "62811"
    assert str(node.jid("to")) == "100000000062811:3@lid"
    assert node.text("type", "none") == "none"
    for ask in (lambda: node.need("c"), lambda: node.text("type"), lambda: node.jid("id")):
        with pytest.raises(MalformedStanzaError):
            ask()
