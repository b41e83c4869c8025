"""Whoever derives the id of a direct conversation derives the same."""

from hypothesis import given
from hypothesis import strategies as st

from chappe.client.mint import conversation_of
from chappe.runtime.conversation import direct_conversation

ids = st.binary(min_size=16, max_size=16)


@given(ids, ids)
def test_services_and_client_agree(one: bytes, other: bytes) -> None:
    derived = direct_conversation(one, other)

    assert derived == direct_conversation(other, one) == conversation_of(one, other)


@given(ids, ids)
def test_it_is_a_uuid_of_version_8(one: bytes, other: bytes) -> None:
    derived = direct_conversation(one, other)

    assert (len(derived), derived[6] >> 4, derived[8] >> 6) == (16, 8, 2)
