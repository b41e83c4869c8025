"""Keeps the book of the ledger in Cassandra 5.

The tables are in `svc_message/schema/cassandra`; how promises are kept without transactions is in
docs/adr/009-the-ledger-on-cassandra.md. All ports share one `Connection`. What each file holds:

- `connection`: the session, rows written in groups, reads side by side, and everything that goes wrong.
- `cells`: the bytes of cells, their write timestamps and partitions. `copies`: reads the rows of messages and bodies.
  `lines`: the rows of chat lists. `pointers`: writes the rows of inboxes. `recent`: remembers rows just written.
- `MessageStore`: `accepting` (accept, find, declare_void), `inboxes` (read_inbox, append_events), `history` (read_page,
  list_chats), `receipts` (apply_receipts), put together in `message_store`.
- `ActionStore`: `acting`. `SettingStore`: `settings`. `RetentionStore`: `retention`. `TraceStore`: `traces`.
- `GroupStore`: `group_accepting`, `group_acting`, `expanding`, `group_reading`, put together in `group_store`.
  `group_walk`: goes through the messages of a group that one member sees.
- `Journal`: `journal`, with `entries` (their rows, and what they are about) and `shards` (beginning them).
- `ReceiptStore`: `group_receipts` (acknowledge, unread, read), `tallies`, `news`, put together in `receipt_store`.

What the ports ask for, and the statements that it becomes (P: one partition is read, B: rows in batches that are not
LOGGED):

- accept: for retries P sender's row, P recipient's row; B both rows, two pointers, once a minute two lines and the
  pair; for retries that were new P both rows again, whether they were declared void meanwhile.
- find: P both rows, or the body. declare_void: the same, B is_void of both, P both again; where a message came
  meanwhile B the withdrawal.
- apply_receipts: for what was read P its reader's line, then P late ids and their rows, and beside that P the reader's
  rows up to read_upto; for what was received P reader's rows, unless this process has just stored them; B both rows,
  pointers, line.
- append_events: B a pointer for each user. read_inbox: P each week since the cursor, then P actions, P rows or bodies
  of each conversation, P lines and reactions of what needs them.
- read_page: P line, P rows of a bucket or more, P reactions of what has some. list_chats: P all lines of the user, then
  for each line of the window P the newest row, and P the rows after read_upto where there may be unread ones.
- sight: P action, P row under its id, P row of its message. act: the same; for what is new B action, P action, whether
  it was declared void meanwhile; B changed cells, pointers. A revoke deletes the reactions of its message in one
  statement.
- change: P lines, B cells of both lines at the time of the position, pointers.
- expire, forget, wake: nothing; cells and events end by themselves, and what is archived is compared when it is listed.
- GroupStore.accept: for retries P body; B body, sender's pointer, bound; then, when these are there, B the shard when
  it was not begun for 5 s and a slot every ten minutes; B entries of the journal. act: as for direct messages, then
  the same entries. expand: B pointers, then lines.
- GroupStore.read_page: P bounds of each time of the reader, P line, P bodies of a bucket or more, P the reader's
  rows, P reactions. read_chats: the same of many groups at once, of each the newest two bodies and what is after
  read_upto.
- checkpoint, adopt, advance, end: one row of journal_shards, all of them in one partition. read: P the slots of the
  shard, P each since the mark, then what the entries are about.
- acknowledge, read: P bodies, P the member's rows, once a minute P news; B group_receipts, news, pointers; then, when
  these are there, B the member's rows, which decide what is raised, and lines. unread: P bounds, P bodies. tally: P
  bodies, P slices of many messages of a partition. list_receipts: P the slice of a message. claim_news: P the minutes
  that are due, P each of what is found there; B it.
- read_trace: P pair or body, P rows, P inboxes from its acceptance on.
"""

from pathlib import Path
from typing import Final

SCHEMA: Final = Path(__file__).resolve().parents[2] / "schema" / "cassandra"
"""The migrations of the ledger on Cassandra."""
