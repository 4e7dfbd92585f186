"""The wire contract: golden bytes, unknown members kept, malformed documents refused by field."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.documents import (
    Desired,
    Document,
    Envelope,
    Presence,
    ProbeReport,
    Reported,
    Window,
    parse_telemetry,
)
from edgekit.errors import DocumentError
from tests.contract.samples import SAMPLES

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", SAMPLES)
def test_the_wire_form_is_the_golden_one(name: str) -> None:
    place = GOLDEN / f"{name}.json"
    text = json.dumps(SAMPLES[name].to_dict(), indent=2, sort_keys=True) + "\n"
    if os.environ.get("EDGEKIT_UPDATE_GOLDEN"):
        place.write_text(text)
    assert text == place.read_text()


@pytest.mark.parametrize("name", SAMPLES)
def test_a_document_survives_the_wire(name: str) -> None:
    sample = SAMPLES[name]
    assert type(sample).parse(sample.to_bytes()) == sample


@pytest.mark.parametrize("name", SAMPLES)
def test_a_member_of_a_newer_version_is_kept(name: str) -> None:
    sample = SAMPLES[name]
    newer = {**sample.to_dict(), "added_later": {"x": [1, 2]}}
    assert type(sample).from_dict(newer).to_dict() == newer


@pytest.mark.parametrize("name", SAMPLES)
def test_a_missing_or_mistyped_member_is_named(name: str) -> None:
    sample = SAMPLES[name]
    for member in sample.to_dict():
        broken = {**sample.to_dict(), member: object}
        with pytest.raises(DocumentError) as caught:
            type(sample).from_dict(broken)
        assert caught.value.where is not None
        assert member in caught.value.where


def test_a_schema_from_the_future_is_refused() -> None:
    with pytest.raises(DocumentError, match="newer"):
        Presence.from_dict({**SAMPLES["presence"].to_dict(), "schema": 99})


def test_an_unsigned_desired_document_is_refused() -> None:
    with pytest.raises(DocumentError, match="not signed"):
        Envelope.parse(SAMPLES["desired"].to_bytes())


def test_the_signature_covers_what_was_received_also_unknown_members() -> None:
    envelope = SAMPLES["envelope"]
    assert isinstance(envelope, Envelope)
    changed = Envelope.from_dict({**envelope.to_dict(), "signed": {**envelope.signed, "later": 1}})
    assert changed.payload() != envelope.payload()
    assert Desired.from_dict(changed.signed).extra == {"later": 1}


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{", b'{"a":1,"a":2}', b'{"at":NaN}', b"\xff\xfe", b"[" * 100_000, b'{"schema":true}'],
)
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DocumentError):
        Reported.parse(data)


def test_telemetry_is_told_apart_by_its_record() -> None:
    assert isinstance(parse_telemetry(SAMPLES["window"].to_bytes()), Window)
    assert isinstance(parse_telemetry(SAMPLES["probe"].to_bytes()), ProbeReport)
    with pytest.raises(DocumentError, match="window or probe"):
        parse_telemetry(b'{"record":"other"}')


def test_probe_bits_must_be_one_per_item() -> None:
    with pytest.raises(DocumentError, match="8 characters"):
        ProbeReport.from_dict({**SAMPLES["probe"].to_dict(), "right": "11"})


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(name=st.sampled_from(sorted(SAMPLES)), member=st.data())
def test_no_member_can_break_the_parser(name: str, member: st.DataObject) -> None:
    sample = SAMPLES[name]
    body: dict[str, Any] = sample.to_dict()
    key = member.draw(st.sampled_from(sorted(body)))
    body[key] = member.draw(_json)
    try:
        parsed: Document = type(sample).from_dict(body)
    except DocumentError:
        return
    again = type(sample).from_dict(json.loads(parsed.to_bytes()))
    assert again.to_bytes() == parsed.to_bytes()
