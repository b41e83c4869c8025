"""Invites: what opens a group, and what is kept of it."""

import base64
import hashlib
import hmac
import re

from svc_identity.model import UserId
from svc_identity.model.group import GroupId, InviteId
from svc_identity.protocol.group import invite_missing

DEFAULT_LIFE_S = 7 * 86_400

_CODE = re.compile("[A-Za-z0-9_-]{22}")


def invite_code(pepper: bytes, group_id: GroupId, user_id: UserId, request_id: bytes) -> str:
    """Returns the code of an invite: the same for every retry of a request, and nothing that could be guessed."""
    signed = b"\0".join((b"chappe-invite", group_id, user_id, request_id))
    # No hyphen: a command would take a code that begins with one for an option.
    return base64.b64encode(hmac.digest(pepper, signed, hashlib.sha256)[:16], altchars=b"__").rstrip(b"=").decode()


def invite_hash(code: str) -> bytes:
    """Returns what is kept of a code, which is too long to be guessed from it.

    Raises:
        InviteNotFoundError: It cannot be a code.
    """
    if _CODE.fullmatch(code) is None:
        raise invite_missing()
    return hashlib.sha256(b"chappe-invite-code\0" + code.encode("ascii")).digest()


def invite_id_of(code_hash: bytes) -> InviteId:
    """Returns the name of an invite, which opens nothing."""
    return InviteId(hashlib.sha256(b"chappe-invite-id\0" + code_hash).digest()[:16])
