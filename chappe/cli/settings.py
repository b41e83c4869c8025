"""The command about what one allows and wants: settings."""

from typing import TYPE_CHECKING, Any

import click

from chappe.cli.terminal import Terminal, pass_terminal, shared_options

if TYPE_CHECKING:
    from chappe.api.identity.v1.settings_pb2 import Settings

_AUDIENCE = "PRIVACY_AUDIENCE_"
_NOT_ASKED = "two-step-verification"
"""Who reads that it is on would rely on it."""
_FOLLOWS = "like-last-seen"
"""What an audience that is not set means: only `online` may be."""


@click.command()
@click.argument("name", required=False)
@click.argument("value", required=False)
@shared_options
@pass_terminal
def settings(terminal: Terminal, /, *, name: str | None, value: str | None) -> None:
    """Show what you allow others to see and what your devices announce, or set NAME to VALUE.

    Audiences are everyone, contacts and nobody. What is hidden from others you do not see of them. For example:

    \b
        chappe settings last-seen nobody
        chappe settings read-receipts off
    """  # noqa: D301 - click reads the \b as "leave these lines as they are"

    async def work() -> None:
        async with terminal.client() as me:
            found = await me.account.settings()
            if name is not None and value is not None:
                found = await me.account.update_settings(changed(found, name, value))
        shown = spoken(found)
        if name is not None and name not in shown:
            raise _unknown(name, shown)
        for each, is_so in shown.items():
            if name in {None, each}:
                terminal.show(f"{each:<28} {is_so}", event="setting", name=each, value=is_so)
        if shown[_NOT_ASKED] == "on" and name in {None, _NOT_ASKED}:
            terminal.note(f"{_NOT_ASKED} is kept, and protects nothing yet: nobody is asked for a second code")

    terminal.run(work())


def spoken(found: "Settings") -> dict[str, str]:
    """Returns every setting by its name, as it is typed."""
    return {
        field.name.replace("_", "-"): _spoken(field, getattr(section, field.name))
        for section in _sections(found)
        for field in section.DESCRIPTOR.fields
    }


def changed(found: "Settings", name: str, value: str) -> "Settings":
    """Returns a change that sets one setting.

    Raises:
        BadParameter: There is none of that name, or it cannot have that value.
    """
    from chappe.api.identity.v1 import settings_pb2

    wanted = settings_pb2.Settings()
    for section in _sections(wanted):
        for field in section.DESCRIPTOR.fields:
            if field.name.replace("_", "-") == name:
                setattr(section, field.name, _typed(field, value))
                return wanted
    raise _unknown(name, spoken(found))


def _sections(found: "Settings") -> list[Any]:
    return [getattr(found, part.name) for part in found.DESCRIPTOR.fields]


def _spoken(field: Any, value: Any) -> str:
    if field.enum_type is not None:
        name: str = field.enum_type.values_by_number[value].name.removeprefix(_AUDIENCE).lower()
        return _FOLLOWS if name == "unspecified" else name
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _typed(field: Any, value: str) -> Any:
    if field.enum_type is not None:
        known = {_spoken(field, each.number): each.number for each in field.enum_type.values}
        if field.name != "online":
            known.pop(_FOLLOWS)
    elif field.cpp_type == field.CPPTYPE_BOOL:
        known = {"on": True, "off": False}
    else:
        return value
    if value not in known:
        raise click.BadParameter(f"{value!r}: it may be {', '.join(known)}")
    return known[value]


def _unknown(name: str, shown: dict[str, str]) -> click.BadParameter:
    return click.BadParameter(f"there is no setting {name!r}; there are: {', '.join(shown)}")
