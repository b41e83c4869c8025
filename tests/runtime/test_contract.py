import timeit
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from chappe.api.edge.v1 import edge_service_pb2, item_pb2, send_pb2
from chappe.api.fanout.v1 import fanout_service_pb2
from chappe.api.identity.v1 import directory_service_pb2
from chappe.api.message.v1 import conversation_service_pb2, history_service_pb2, message_service_pb2
from chappe.api.presence.v1 import presence_service_pb2
from chappe.api.type.v1 import access_pb2, envelope_pb2, principal_pb2, rules_pb2
from chappe.runtime import contract
from chappe.runtime.errors import InvalidFieldError

CONTRACTS = [
    conversation_service_pb2,
    directory_service_pb2,
    edge_service_pb2,
    fanout_service_pb2,
    history_service_pb2,
    message_service_pb2,
    presence_service_pb2,
]
Callers = list[access_pb2.Caller.ValueType]
Field = descriptor_pb2.FieldDescriptorProto
TYPES = {
    "bytes": Field.TYPE_BYTES,
    "string": Field.TYPE_STRING,
    "int64": Field.TYPE_INT64,
    "enum": Field.TYPE_ENUM,
    "message": Field.TYPE_MESSAGE,
}


def build(*fields: tuple[str, str, rules_pb2.FieldRules | None], services: Any = ()) -> Any:
    """Builds the type Probe from (name, type, rules); "*" before a type repeats it, "?" gives it presence."""
    file = descriptor_pb2.FileDescriptorProto(name="probe.proto", package="probe", syntax="proto3")
    file.enum_type.add(name="Colour").value.extend(
        [
            descriptor_pb2.EnumValueDescriptorProto(name="NONE", number=0),
            descriptor_pb2.EnumValueDescriptorProto(name="RED", number=1),
        ]
    )
    probe = file.message_type.add(name="Probe")
    for number, (name, kind, rules) in enumerate(fields, 1):
        added = probe.field.add(name=name, number=number, type=TYPES[kind.lstrip("*?")], label=Field.LABEL_OPTIONAL)
        if kind.startswith("*"):
            added.label = Field.LABEL_REPEATED
        if kind.startswith("?"):
            added.proto3_optional = True
            added.oneof_index = len(probe.oneof_decl)
            probe.oneof_decl.add(name="_" + name)
        if kind.endswith("enum"):
            added.type_name = ".probe.Colour"
        if kind.endswith("message"):
            added.type_name = ".probe.Probe"
        if rules is not None:
            added.options.Extensions[rules_pb2.rules].CopyFrom(rules)
    file.service.extend(services)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("probe.Probe"))


def problem(probe: Any) -> str | None:
    check = contract.compile_checks(type(probe).DESCRIPTOR)
    assert check is not None
    violation = check(probe)
    return None if violation is None else ": ".join(violation)


Rules = rules_pb2.FieldRules


@pytest.mark.parametrize(
    ("kind", "rules", "value", "why"),
    [
        ("bytes", Rules(required=True), b"", "v: must be set"),
        ("bytes", Rules(required=True, len=2), b"", "v: has 0 bytes, must have 2"),
        ("bytes", Rules(len=2), b"", None),
        ("bytes", Rules(len=2), b"abc", "v: has 3 bytes, must have 2"),
        ("bytes", Rules(len=2), b"ab", None),
        ("string", Rules(len=2), "éé", None),
        ("string", Rules(len=2), "ééé", "v: has 3 characters, must have 2"),
        ("string", Rules(min_len=2), "", None),
        ("string", Rules(min_len=2), "a", "v: has 1 characters, the least is 2"),
        ("string", Rules(max_len=2), "abc", "v: has 3 characters, the most is 2"),
        ("int64", Rules(), 0, None),
        ("int64", Rules(required=True), 0, "v: must be set"),
        ("int64", Rules(gte=-2), -3, "v: is -3, the least is -2"),
        ("int64", Rules(gte=0, lte=5), 0, None),
        ("int64", Rules(lte=0), 1, "v: is 1, the most is 0"),
        ("enum", Rules(defined_only=True), 0, "v: is 0, which is no value that may be given"),
        ("enum", Rules(defined_only=True), 7, "v: is 7, which is no value that may be given"),
        ("enum", Rules(defined_only=True), 1, None),
        ("string", Rules(format=rules_pb2.STRING_FORMAT_E164), "", None),
        ("string", Rules(format=rules_pb2.STRING_FORMAT_E164), "+390101234567", None),
        ("string", Rules(format=rules_pb2.STRING_FORMAT_E164), "+0101234567", "v: must be a plus sign"),
        ("string", Rules(format=rules_pb2.STRING_FORMAT_E164), "+39010123456\n", "v: must be a plus sign"),
        ("string", Rules(format=rules_pb2.STRING_FORMAT_LINE), "Zoë 🦊 Ωmega", None),
        ("string", Rules(format=rules_pb2.STRING_FORMAT_LINE), "a\x00b", "v: must be one line"),
        ("string", Rules(format=rules_pb2.STRING_FORMAT_LINE), "a\u202eb", "v: must be one line"),
        ("string", Rules(format=rules_pb2.STRING_FORMAT_LINE), "a\nb", "v: must be one line"),
        ("*bytes", Rules(required=True), [], "v: has 0 items, the least is 1"),
        ("*bytes", Rules(min_items=2), [b"a"], "v: has 1 items, the least is 2"),
        ("*bytes", Rules(max_items=1), [b"a", b"b"], "v: has 2 items, the most is 1"),
        ("*bytes", Rules(len=2), [b"ab", b""], "v[1]: has 0 bytes, must have 2"),
        ("*int64", Rules(lte=5), [1, 2, 9], "v[2]: is 9, the most is 5"),
        ("*enum", Rules(defined_only=True), [1, 5], "v[1]: is 5, which is no value that may be given"),
        ("?bytes", Rules(len=2), b"", "v: has 0 bytes, must have 2"),
    ],
)
def test_each_limit_is_checked(kind: str, rules: Rules, value: object, why: str | None) -> None:
    probe = build(("v", kind, rules))(v=value)

    found = problem(probe)

    assert found == why if why is None else (found or "").startswith(why)


def test_a_value_with_presence_that_is_not_set_passes() -> None:
    probe = build(("v", "?bytes", Rules(len=2)))()

    assert problem(probe) is None


def test_a_required_message_must_be_there() -> None:
    probe = build(("v", "message", Rules(required=True)), ("n", "int64", Rules(lte=1)))()

    assert problem(probe) == "v: must be set"


def test_a_recursive_message_names_the_whole_path() -> None:
    kind = build(("child", "message", None), ("list", "*message", None), ("n", "int64", Rules(lte=1)))
    probe = kind(list=[kind(), kind(child=kind(child=kind(n=2)))])

    assert problem(probe) == "list[1].child.child.n: is 2, the most is 1"


def test_a_message_without_limits_has_no_check() -> None:
    assert contract.compile_checks(build(("child", "message", None)).DESCRIPTOR) is None
    assert contract.checker(access_pb2.Access) is None
    contract.validate(access_pb2.Access())


def test_the_error_names_the_field_in_a_real_contract() -> None:
    request = message_service_pb2.AppendEventsRequest(
        events=[message_service_pb2.InboxEvent(change_id=b"1" * 16, user_ids=[b"2" * 16, b"3"], item=item_pb2.Item())]
    )

    with pytest.raises(InvalidFieldError, match=r"events\[0\].user_ids\[1\]: has 1 bytes") as caught:
        contract.validate(request)

    assert caught.value.metadata == {"field": "events[0].user_ids[1]"}


def test_content_of_64_kib_and_one_byte_is_refused() -> None:
    send = send_pb2.Send(message_id=b"1" * 16, attempt=1)
    send.message.user_id = b"2" * 16
    send.message.envelope.suite = envelope_pb2.ENCRYPTION_SUITE_NONE
    send.message.envelope.content = b"x" * 65536
    contract.validate(send)

    send.message.envelope.content += b"x"

    with pytest.raises(InvalidFieldError, match=r"message\.envelope\.content: has 65537 bytes, the most is 65536"):
        contract.validate(send)


@pytest.mark.untraced
def test_a_small_message_is_checked_in_no_time() -> None:
    principal = principal_pb2.Principal(user_id=b"1" * 16, device_id=1)
    contract.validate(principal)

    fastest_s = min(timeit.repeat(lambda: contract.validate(principal), number=1000, repeat=20)) / 1000

    assert fastest_s < 5e-6, "expected below 1 µs on an idle machine"


def test_limits_are_told_in_words() -> None:
    limits = dict(contract.limits_of(principal_pb2.Principal.DESCRIPTOR))

    assert limits["chappe.api.type.v1.Principal.user_id"] == "required, len 16"
    assert contract.describe_limits(access_pb2.Access.DESCRIPTOR.fields[0]) == ""
    phone = build(("v", "string", Rules(format=rules_pb2.STRING_FORMAT_E164))).DESCRIPTOR.fields[0]
    assert contract.describe_limits(phone) == "E164"


def test_every_method_of_the_contract_says_who_may_call() -> None:
    services = [service for module in CONTRACTS for service in module.DESCRIPTOR.services_by_name.values()]

    contract.check_services(services)

    assert len(services) >= 7


def test_access_is_read_by_path_and_by_name() -> None:
    access = contract.access_of("/chappe.api.message.v1.HistoryService/ListMessages")

    assert access == contract.access_of("chappe.api.message.v1.HistoryService.ListMessages")
    assert access.is_for_clients
    assert not access.is_open
    assert access.needs_principal
    assert access.is_idempotent
    assert access.rate_class == access_pb2.RATE_CLASS_READ


def test_a_method_that_may_not_be_repeated_says_so() -> None:
    assert not contract.access_of("/chappe.api.message.v1.MessageService/Submit").is_idempotent


def test_an_unknown_method_is_told_by_name() -> None:
    with pytest.raises(contract.ContractError, match=r"/no\.Such/Method"):
        contract.access_of("/no.Such/Method")


def service_of(*, method_callers: Callers, service_callers: Callers) -> Any:
    service = descriptor_pb2.ServiceDescriptorProto(name="ProbeService")
    method = service.method.add(name="Get", input_type=".probe.Probe", output_type=".probe.Probe")
    if method_callers:
        method.options.Extensions[access_pb2.access].callers.extend(method_callers)
    if service_callers:
        service.options.Extensions[access_pb2.service_access].callers.extend(service_callers)
    return build(services=[service]).DESCRIPTOR.file.services_by_name["ProbeService"]


@pytest.mark.parametrize("callers", [[], [access_pb2.CALLER_UNSPECIFIED]])
def test_a_method_without_callers_stops_the_service(callers: Callers) -> None:
    service = service_of(method_callers=callers, service_callers=[])

    with pytest.raises(contract.ContractError, match=r"probe\.ProbeService\.Get does not say who may call it"):
        contract.check_services([service])


def test_a_method_takes_the_access_of_its_service() -> None:
    service = service_of(method_callers=[], service_callers=[access_pb2.CALLER_FANOUT])

    access = contract.read_access(service.methods_by_name["Get"])

    assert access.callers == {access_pb2.CALLER_FANOUT}


def test_a_methods_own_access_wins() -> None:
    service = service_of(method_callers=[access_pb2.CALLER_EDGE], service_callers=[access_pb2.CALLER_FANOUT])

    access = contract.read_access(service.methods_by_name["Get"])

    assert access.callers == {access_pb2.CALLER_EDGE}
