"""How groups look on a terminal, and as JSON."""

from chappe.cli.duration import spoken
from chappe.cli.terminal import Terminal
from chappe.cli.times import moment
from chappe.client import Client, Group, GroupOutcome, Invite, Member, RefusalReason, Role

_WHY = {
    RefusalReason.USER_NOT_FOUND: "has no account",
    RefusalReason.NOT_ALLOWED: "does not let you add it; send it an invite: chappe group invite",
    RefusalReason.BLOCKED: "is blocked by you; chappe unblock",
    RefusalReason.UNKNOWN: "was refused",
}


class Board:
    """Shows groups to one person."""

    def __init__(self, terminal: Terminal, me: Client) -> None:
        """Prepares.

        Args:
            terminal: Where to show it.
            me: Whose groups they are.
        """
        self.me = me
        self._terminal = terminal

    def group(self, group: Group, event: str) -> None:
        """Shows a group on one line."""
        people = "1 member" if group.member_count == 1 else f"{group.member_count} members"
        marks = "".join(
            (
                "  announcements" if group.is_announcement_only else "",
                f"  timer {spoken(group.expiry_s)}" if group.expiry_s else "",
            )
        )
        self._terminal.show(
            f"{group.id[:8]}  {group.name:<24} {people:<14} you: {group.role.name.lower()}{marks}",
            event=event,
            group=group.id,
            name=group.name,
            description=group.description,
            members=group.member_count,
            role=group.role.name.lower(),
            is_announcement_only=group.is_announcement_only,
            expiry_s=group.expiry_s,
            version=group.version,
        )

    async def refusals(self, outcome: GroupOutcome) -> None:
        """Shows who is not in a group, and why."""
        names = await self.me.people.names_of(refusal.user_id for refusal in outcome.refusals)
        for refusal in outcome.refusals:
            name = names[refusal.user_id]
            self._terminal.show(
                f"          {name} {_WHY[refusal.reason]}",
                event="refused",
                group=outcome.group.id,
                user=refusal.user_id.hex(),
                name=name,
                reason=refusal.reason.name,
            )

    async def info(self, named: str) -> None:
        """Shows a group and its members."""
        group = await self.me.groups.get(named)
        self.group(group, "group")
        if group.description and not self._terminal.is_json:
            self._terminal.show("\n".join(f"          {line}" for line in group.description.splitlines()))
        members = await self.me.groups.members(group)
        names = await self.me.people.names_of(member.user_id for member in members)
        for member in members:
            self._member(member, names[member.user_id])

    async def give_role(self, named: str, person: str, role: str) -> None:
        """Gives somebody a role, and shows it."""
        group = await self.me.groups.set_role(named, person, Role[role.upper()])
        self._terminal.show(
            f"{person} is {'the owner' if role == 'owner' else 'an admin' if role == 'admin' else 'a member'}"
            f" of {group.name}",
            event="role",
            group=group.id,
            person=person,
            role=role,
        )

    def invite(self, invite: Invite) -> None:
        """Shows an invite."""
        uses = f", for {invite.use_limit} people" if invite.use_limit else ""
        self._terminal.show(
            f"{invite.code}\nUntil {moment(invite.expire_ms)}{uses}: chappe --profile NAME group join {invite.code}",
            event="invite",
            invite=invite.invite_id.hex(),
            code=invite.code,
            expire_ms=invite.expire_ms,
            use_limit=invite.use_limit,
        )

    def _member(self, member: Member, name: str) -> None:
        name = f"{name} (you)" if member.user_id == self.me.user_id else name
        role = "" if member.role is Role.MEMBER else member.role.name.lower()
        self._terminal.show(
            f"          {name:<24} {role}".rstrip(),
            event="member",
            user=member.user_id.hex(),
            name=name,
            role=member.role.name.lower(),
            join_ms=member.join_ms,
        )
