"""The rule of privacy as a part of statements; a test holds it against `protocol.privacy.may_see`.

A statement that uses it calls whom is looked at `u`, its settings `ts` and those of the viewer `vs`; all are joined
from the left, so that whoever does not exist is NULL.
"""

from svc_identity.model.privacy import PrivacyAspect
from svc_identity.protocol.privacy import RECIPROCAL

JOINS = """
    LEFT JOIN users u ON u.user_id = q.target
    LEFT JOIN user_settings ts ON ts.user_id = q.target
    LEFT JOIN user_settings vs ON vs.user_id = q.viewer
"""
"""For a statement that reads from `q(viewer, target)`."""

_AUDIENCES = {
    PrivacyAspect.LAST_SEEN: "coalesce({s}.last_seen, 2)",
    PrivacyAspect.ONLINE: "coalesce({s}.online, {s}.last_seen, 2)",
    PrivacyAspect.PHOTO: "coalesce({s}.profile_photo, 3)",
    PrivacyAspect.ABOUT: "coalesce({s}.about, 2)",
    PrivacyAspect.GROUPS: "coalesce({s}.groups, 3)",
}
_SEES = """
    (u.user_id IS NOT NULL AND (q.viewer = q.target OR (
        {is_shared}
        AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.blocker_id = q.target AND b.blocked_id = q.viewer)
        AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.blocker_id = q.viewer AND b.blocked_id = q.target)
        AND CASE {audience}
            WHEN 3 THEN true
            WHEN 2 THEN EXISTS (SELECT 1 FROM contacts c WHERE c.contact_user_id = q.viewer AND c.owner_id = q.target)
            ELSE false END)))
"""


def sees(aspect: PrivacyAspect) -> str:
    """Returns the expression that says whether `q.viewer` may see an aspect of `q.target`."""
    audience = _AUDIENCES[aspect]
    is_shared = audience.format(s="vs") + " <> 1" if aspect in RECIPROCAL else "true"
    return _SEES.format(is_shared=is_shared, audience=audience.format(s="ts"))
