"""The refusal table: malformed, malicious and unusual requests get the recorded answers, and reach no application.

`refusals.json` holds for each request the answer: the status codes, whether the connection closed, and what reached the
application. `before` is the answer of the server on gunicorn's own parsers, where that was another one, with the reason
why this one is stricter.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_core.data_plane.server import Limits
from bus_core.data_plane.server.head import RefusedError
from bus_core.data_plane.server.request import RequestReader
from tests.server.refusal_answers import answers
from tests.server.refusal_table import PIPELINED, REQUESTS
from tests.server.serving import Echo, serving
from tests.support import raw

TABLE: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("refusals.json").read_text())


@pytest.fixture(scope="module")
def answered() -> dict[str, list[str]]:
    return answers()


@pytest.mark.parametrize("name", REQUESTS)
def test_the_answer_is_the_recorded_one(name: str, answered: dict[str, list[str]]) -> None:
    recorded = TABLE[name]["answer"]
    # Versions of the parser see one of two faults first.
    recorded_statuses = {"400", "501"} if recorded[0] in ("400", "501") else {recorded[0]}
    assert answered[name][0] in recorded_statuses
    assert answered[name][1:] == recorded[1:]


def test_the_table_holds_each_request_once() -> None:
    assert list(TABLE) == list(REQUESTS)
    assert len(TABLE) > 300
    assert len(set(REQUESTS.values())) > len(REQUESTS) - 5, "requests that have two names"


def test_no_answer_is_laxer_than_that_of_the_server_before() -> None:
    """Stricter means: nothing more reaches the application, a refusal stays one, a connection that closed closes."""
    changed = {name: row for name, row in TABLE.items() if "before" in row}
    assert len(changed) >= 30
    for name, row in changed.items():
        (statuses, end, *reached), (old_statuses, old_end, *old_reached) = row["answer"], row["before"]
        assert row["why"], name
        assert reached in ([], old_reached), name
        assert end == "closed" or old_end == "open", name
        if old_statuses.startswith(("4", "5")):
            assert statuses.startswith(("4", "5")), name


def read_all(data: bytes, pieces: list[int]) -> tuple[list[tuple[Any, ...]], int]:
    """The requests that one reader finds in the data, cut at these places; and the status of a refusal, or 0."""
    reader, found, body = RequestReader(), [], b""
    cuts = sorted({0, len(data), *(cut % (len(data) + 1) for cut in pieces)})
    in_body = False
    try:
        for begin, end in itertools.pairwise(cuts):
            rest: bytes | None = data[begin:end]
            while rest:
                rest = reader.read_body(rest) if in_body else reader.read_head(rest)
                in_body = in_body or rest is not None
                body += reader.take_body()
                if in_body and reader.is_complete:
                    found.append((reader.method, reader.target, tuple(reader.fields), body, reader.keep_alive))
                    in_body, body = False, b""
    except RefusedError as error:
        return found, error.status
    return found, 0


@settings(max_examples=400, deadline=None)
@given(
    data=st.lists(st.sampled_from([*REQUESTS.values(), *PIPELINED.values()]), min_size=1, max_size=3).map(b"".join),
    pieces=st.lists(st.integers(0, 700), max_size=12),
)
def test_a_request_reads_the_same_however_it_arrives(data: bytes, pieces: list[int]) -> None:
    data = data[:20_000]
    whole, refused = read_all(data, [])
    found, also = read_all(data, pieces)
    # Where a read ends may decide which fault is seen first, and when; never what a request says.
    assert found == whole[: len(found)]
    assert bool(also) == bool(refused)
    if not refused:
        assert found == whole


@settings(max_examples=200, deadline=None)
@given(junk=st.lists(st.binary(max_size=5), max_size=4).map(b"\r\n".join), at=st.integers(0, 80))
def test_bytes_put_in_anywhere_never_make_a_head_that_the_grammar_forbids(junk: bytes, at: int) -> None:
    plain = b"POST / HTTP/1.1\r\nHost: a.b\r\nce-id: 1\r\nContent-Length: 2\r\n\r\nhi"
    found, _ = read_all(plain[:at] + junk + plain[at:], [])
    for _, target, fields, _, _ in found:
        assert target.raw_path.isascii()
        assert not any(byte < 33 or byte == 127 for byte in target.raw_path)
        for name, value in fields:
            assert name == name.lower()
            assert name
            assert not set(name) & set(b' \t\r\n:"(),/;<=>?@[\\]{}')
            assert not any((byte < 32 and byte != 9) or byte == 127 for byte in value)


def test_a_refusal_is_one_sentence_of_text() -> None:
    with serving(Limits(), Echo()) as (address, _):
        head, _, body = raw(address, REQUESTS["two Hosts"]).partition(b"\r\n\r\n")
    assert b"content-type: text/plain; charset=utf-8" in head
    assert b"connection: close" in head
    assert body == b"there are two Host headers\n"
