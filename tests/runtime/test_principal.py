import asyncio

import pytest

from chappe.runtime import principal
from chappe.runtime.errors import InvalidPrincipalError
from chappe.runtime.principal import Caller, Principal

ALICE = Principal(b"a" * 16, 2, b"s" * 16)


def test_a_principal_survives_its_metadata() -> None:
    key, value = principal.principal_metadata(ALICE)

    assert key == "chappe-principal-bin"
    assert principal.read_principal([value]) == ALICE


def test_a_principal_fits_its_limit_at_its_largest() -> None:
    _, value = principal.principal_metadata(Principal(b"\xff" * 16, 32767, b"\xff" * 16))

    assert len(value) <= principal.MAX_PRINCIPAL_BYTES


def test_no_value_is_no_principal() -> None:
    assert principal.read_principal([]) is None


def test_a_value_that_is_text_is_refused() -> None:
    with pytest.raises(InvalidPrincipalError):
        principal.read_principal(["text"])


async def test_each_task_has_its_own_caller() -> None:
    async def handle(service: str) -> str:
        principal.set_caller(Caller(service, ALICE))
        await asyncio.sleep(0)
        return principal.caller().service

    seen = await asyncio.gather(handle("svc-edge"), handle("svc-message"))

    assert list(seen) == ["svc-edge", "svc-message"]


async def test_a_handler_reads_the_end_user() -> None:
    principal.set_caller(Caller("svc-edge", ALICE))

    assert principal.principal() == ALICE


async def test_a_call_without_an_end_user_says_so() -> None:
    principal.set_caller(Caller("grafana", None))

    with pytest.raises(InvalidPrincipalError, match="names none"):
        principal.principal()


@pytest.mark.parametrize(
    ("metadata", "address"),
    [
        ([("chappe-client-address", "192.0.2.1")], "192.0.2.1"),
        ([("chappe-client-address", "192.0.2.1"), ("chappe-client-address", "192.0.2.2")], ""),
        ([("chappe-client-address", "x" * 65)], ""),
        ([("chappe-client-address", b"192.0.2.1")], ""),
        ([("x-forwarded-for", "192.0.2.1")], ""),
        (None, ""),
    ],
)
def test_the_address_of_a_client_counts_when_it_is_said_once(
    metadata: list[tuple[str, str | bytes]] | None, address: str
) -> None:
    assert principal.client_address(metadata) == address
