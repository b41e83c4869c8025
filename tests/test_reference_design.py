"""The page that sets Chappe against the source document has a row for each of its statements."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from svc_identity.model.privacy import Audience, Settings

COLUMNS = {
    "Messages": "user_id conversation_id message_id timestamp sender_id text media_url status",
    "Message_Recipients": "message_id recipient_id status",
    "User_Status": "is_online last_heartbeat",
    "Users": "user_id phone_number profile_name profile_photo_url status_msg created_at last_login",
    "User_Settings": "user_id setting_key setting_value notifications_enabled",
    "Contacts": "user_id contact_user_id contact_name contact_phone",
    "Blocked_Users": "user_id blocked_user_id",
    "Groups": "group_id group_name creator_id created_at member_count",
    "Group_Members": "group_id user_id role joined_at",
}
SETTINGS = {
    "privacy": "last_seen profile_photo about read_receipts groups",
    "notifications": "message_notifications group_notifications call_notifications notification_sound",
    "security": "two_step_verification show_security_notifications",
}
DEFAULTS = {
    "last_seen": Audience.CONTACTS,
    "profile_photo": Audience.EVERYONE,
    "about": Audience.CONTACTS,
    "read_receipts": True,
    "groups": Audience.EVERYONE,
    "message_notifications": True,
    "group_notifications": True,
    "call_notifications": True,
    "notification_sound": "default",
    "two_step_verification": True,
    "show_security_notifications": True,
}
"""What the document's user has."""
STEPS = {"Encryption": 5, "Flow 1": 8, "Flow 2": 5, "Flow 3": 5, "Media": 4}
MESSAGE_FIELDS = "message_id sender_id recipient_id encrypted_content encrypted_session_key timestamp"
STATEMENTS = (
    # What people ask first.
    "PostgreSQL cannot keep the messages",
    "The partition key is (user_id, conversation_id)",
    "Each participant's copy has its own status",
    "A session key is encrypted with RSA",
    "POST /api/messages",
    # The problem.
    "2 billion users",
    "100 billion messages a day",
    "5 million a second at the peak",
    "50 to 100 messages a user and day",
    "Groups of up to 1,024",
    "Half of the messages are media",
    "33 million status updates a second",
    "Deliver within 1 second",
    "Never lose messages",
    "Show sent, delivered and read",
    "Work offline",
    "End-to-end encryption",
    "Groups of 1,024 at once",
    "Videos of up to 100 MB",
    "Typing in real time",
    "Online and offline in real time",
    "A conversation's history in under 100 ms",
    "Sync across devices",
    # Components.
    "Client devices",
    "Load balancer",
    "WS server",
    "Redis",
    "Cassandra",
    "PostgreSQL",
    "S3",
    # Why Cassandra, and its schema.
    "Pure append",
    "Time series",
    "Partition by user_id and conversation_id",
    "Show the conversation with X",
    "Newest first, 50 at a time",
    "Rarely older than a month",
    "36.5 trillion messages a year",
    "PRIMARY KEY ((user_id, conversation_id), timestamp, message_id)",
    "CLUSTERING ORDER BY (timestamp DESC, message_id DESC)",
    "message_id breaks ties",
    "Stored twice",
    "No joins in Cassandra",
    "user_001 sees delivered, user_002 sees read",
    "$20 for a TB and month",
    "Query 1: load a conversation",
    "Hash to one node",
    "Query 2: before a timestamp",
    "Query 3: UPDATE",
    "Commit log, MemTable, acknowledge immediately",
    # Why not PostgreSQL.
    "Message_Recipients",
    "Three B-trees for each INSERT",
    "10,000 writes a second, 120 servers",
    "36.5 trillion rows, VACUUM cannot keep up",
    "Hot partitions of celebrities",
    "Sharding is complex",
    "Cassandra solves all of these",
    "Cassandra: 1M+ writes a second for each node",
    # Presence.
    "online:user_001",
    "Heartbeat every 30 seconds",
    "No heartbeat, no key: offline",
    "connection:user_001",
    "GET connection for each message",
    "Route to the WS server, which pushes",
    "lastseen:user_001",
    "Set when the user goes offline",
    '"last seen today at 10:00 AM"',
    "typing:conv_001_002:user_001",
    "Refresh every 2 seconds",
    "GET typing to check",
    "Is user_002 online, when a chat is opened",
    "All contacts on app open",
    "Under 10 ms, under 1 ms for an operation",
    "1M+ operations a second for each instance",
    "Scales out in cluster mode",
    "User_Status",
    "A background job marks users offline",
    "TTL handles expiry",
    # People.
    "INDEX (user_id)",
    "Query 1: profile with settings",
    "Query 2: may user_002 see user_001's status",
    "Phone numbers and memberships need transactions",
    "Query 3: mutual groups",
    # Encryption.
    "The server cannot read content",
    "The server only sees metadata",
    "INSERT … VALUES (…), (…)",
    "Employees and agencies cannot read",
    # Frames.
    "MESSAGE",
    "ACK",
    "NEW_MESSAGE",
    "STATUS_UPDATE",
    "READ_RECEIPT",
    "SYNC_MESSAGES",
    # Flows, beside their steps.
    "Online: under 500 ms",
    "1,024 members: 1,024 writes",
    "1M times 1,024 would be a billion",
    "500+ members: Kafka",
    "Hundreds of messages in under 100 ms",
    "Fast, small, cached",
    # Numbers.
    "1.2M messages a second",
    "PostgreSQL 10K writes a second",
    "500 ms write latency spikes",
    "Conversation in < 10 ms",
    "Status update in < 5 ms",
    "Delivery in < 500 ms",
    "Offline sync in < 100 ms",
    "Group write in < 50 ms",
    "33M status updates a second",
    "580K status queries a second",
    "Redis < 1 ms",
    "45 s, 60 s, 30 days, 5 s",
    "Upload in 1 to 5 seconds",
    # Trade-offs.
    "Message write throughput",
    "Conversation load < 100 ms",
    "Online status 33M/s",
    "User settings queries",
    "Group member JOINs",
    "Time-series partitioning",
    "Horizontal scaling",
    "TTL for ephemeral data",
    "Operational complexity",
    "Cost at WhatsApp scale",
    "Everything in MongoDB",
    "Everything in MySQL",
    # What it leaves out of durability, failure, replication and scale.
    "(nothing on what a failure may cost)",
    "(nothing on writes of unknown outcome)",
    "(nothing on replicas of data)",
    "(nothing on the mode of the commit log)",
    "(nothing on backup and restore)",
    "(nothing on growing and shrinking)",
)
HEAD = "| the document says | Chappe does | why, and the test or figure that shows it |"
_SHOWN = re.compile(r"`test_\w+`|\]\(|[Nn]ot (built|measured)|make mutations|`[\w./]+\.(py|proto)`")


class Row(NamedTuple):
    """One row of a table."""

    statement: str
    """The first cell without its bold type."""
    does: str
    shown_by: str


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "reference-design.md").read_text()


@pytest.fixture(scope="module")
def rows(page: str) -> list[Row]:
    lines = [line for line in page.splitlines() if line.startswith("|") and line != HEAD and "|---" not in line]
    cells = [[cell.strip() for cell in line[1:-1].split(" | ")] if " | " in line else [line] for line in lines]
    broken = [cell for cell in cells if len(cell) != 3]
    assert broken == []
    return [Row(first.replace("**", ""), second, third.strip()) for first, second, third in cells]


def statements() -> list[str]:
    """Returns the beginnings of the rows that there have to be."""
    columns = [f"{table}.{column}" for table, names in COLUMNS.items() for column in names.split()]
    settings = [f"{group}.{name}" for group, names in SETTINGS.items() for name in names.split()]
    steps = [f"{flow}, step {number}" for flow, count in STEPS.items() for number in range(1, count + 1)]
    fields = [f"MESSAGE.{name}" for name in MESSAGE_FIELDS.split()]
    return [*columns, *settings, *steps, *fields, *STATEMENTS]


def test_every_statement_of_the_document_has_a_row(rows: list[Row]) -> None:
    begun = tuple(row.statement for row in rows)

    missing = [wanted for wanted in statements() if not any(statement.startswith(wanted) for statement in begun)]

    assert missing == []


def test_every_row_names_what_shows_it_or_says_that_nothing_does(rows: list[Row]) -> None:
    silent = [row.statement for row in rows if not _SHOWN.search(f"{row.does} {row.shown_by}")]

    assert silent == []


def test_a_default_that_is_not_the_documents_is_said_to_differ(rows: list[Row]) -> None:
    settings = Settings()
    differing = {name for name, value in DEFAULTS.items() if getattr(settings, name) != value}

    said = {
        row.statement.split(".")[1].split(":")[0] for row in rows if "by default, where the document has" in row.does
    }

    assert {name for names in SETTINGS.values() for name in names.split()} == DEFAULTS.keys()
    assert said == differing


def test_every_table_and_every_key_of_ours_is_named(page: str, root: Path) -> None:
    scripts = "\n".join(path.read_text() for path in root.glob("svc_*/schema/*.lua"))
    migrations = "\n".join(path.read_text() for path in root.glob("svc_*/schema/*.sql"))
    keys = set(re.findall(r"^--   (\w+):\{", scripts, re.MULTILINE))
    tables = set(re.findall(r"^CREATE TABLE (\w+)", migrations, re.MULTILINE))

    named = set(re.findall(r"`(\w+)(?:[.`]|:\{)", page))
    assert (keys | tables) - named == set()


def test_the_readme_leads_to_the_page_in_its_second_paragraph(root: Path) -> None:
    second = (root / "README.md").read_text().split("\n\n")[2]

    assert "(docs/reference-design.md)" in second
