"""Every repair that is taken out, where it stands in the sources, and the scene that shows what it is for."""

from typing import Final

from tests.mutations.group_catalogue import GROUP_MUTATIONS
from tests.mutations.mutation import Mutation
from tests.mutations.simulated_catalogue import SIMULATED_MUTATIONS
from tests.mutations.tree import Edit

ACCEPT: Final = "svc_message/service/accept.py"
SIFT: Final = "svc_message/service/sift.py"
SYNC: Final = "svc_message/service/sync.py"
RULES: Final = "svc_message/protocol/__init__.py"
STORE: Final = "svc_message/adapters/message_store_postgres/accepting.py"
RECEIPTS: Final = "svc_message/adapters/message_store_postgres/receipts.py"

NO_BOOT_CHECK: Final = Edit(
    "svc_fanout/adapters/push_grpc.py",
    "        strays = [delivery for delivery in deliveries if delivery.route.boot_id != boot_id]\n",
    "        strays: list[Delivery] = []\n",
)
NUMBERS_FROM_ONE: Final = Edit(
    "svc_edge/service/sessions.py",
    "        self._last_id = seams.randomness.nonzero_u64()\n",
    "        self._last_id = 0\n",
)
NO_TAG_CHECK: Final = Edit("svc_edge/service/mesh.py", " or session.user_tag != tag or ", " or ")

UNTAKEN_IS_NOT_LOST: Final = Edit(
    "svc_message/adapters/dispatcher_grpc.py",
    "        self._losses.add(sum(hints for _, hints, _ in self._untaken))\n",
    "",
)

MUTATIONS: Final = (
    Mutation(
        "found-row",
        "A retry that finds its message writes the inboxes again before it is acknowledged.",
        "retry_after_late_commit",
        (
            Edit(
                SIFT,
                "            else:\n"
                "                kept[candidate.slot] = candidate._replace(is_known=True)\n"
                "                continue\n",
                "            else:\n"
                "                found_ms = earlier.accepted_ms\n"
                "                answers[candidate.slot] = Stored(found_ms, candidate.conversation_id, True)\n",
            ),
        ),
    ),
    Mutation(
        "found-row-on-postgres",
        "The store completes a message that it finds.",
        "retry_after_late_commit_on_postgres",
        (
            Edit(
                STORE,
                "        WHERE kind = 1 AND is_same AND NOT is_withheld AND recipient_id <> sender_id\n",
                "        WHERE false\n",
            ),
        ),
    ),
    Mutation(
        "age-check",
        "A write is acknowledged only while its position is young; else it is written again.",
        "late_commit",
        (Edit(RULES, "        return self.age_s(stamp) <= WRITE_WINDOW_S\n", "        return True\n"),),
    ),
    Mutation(
        "new-position",
        "What is written again gets a position of now, and not the one that a cursor may have passed.",
        "late_commit",
        (
            Edit(
                ACCEPT,
                "                message._replace(position=position, accepted_ms=wall_ms, is_retry=True)\n",
                "                message._replace(accepted_ms=wall_ms, is_retry=True)\n",
            ),
        ),
    ),
    Mutation(
        "first-decision",
        "What a block withheld stays withheld, also when it is sent again after the block.",
        "answer_lost_over_an_unblock",
        (
            Edit(
                ACCEPT,
                "self._dispatch(message, accepted_ms, is_withheld=is_withheld)",
                "self._dispatch(message, accepted_ms, is_withheld=message.is_withheld)",
            ),
        ),
    ),
    Mutation(
        "cached-no",
        "A no of the cache is read through before it withholds a message.",
        "unblock_and_write",
        (
            Edit(
                ACCEPT,
                "if user is None or not user.is_active or candidate.request.user_id in user.blocked_user_ids:",
                "if user is None:",
            ),
        ),
    ),
    Mutation(
        "late-bound",
        "The bound of a pass is taken before its first read.",
        "pausing_reader",
        (
            Edit(SYNC, "        bound = self._clock.bound()\n        starts = ", "        starts = "),
            Edit(
                SYNC,
                "        answers: list[InboxAnswer] = []\n",
                "        bound = self._clock.bound()\n        answers: list[InboxAnswer] = []\n",
            ),
        ),
    ),
    Mutation(
        "horizon",
        "A cursor stays behind the present by more than a write may take.",
        "slow_commit",
        (Edit(RULES, "HORIZON_S = 10.0\n", "HORIZON_S = 0.0\n"),),
    ),
    Mutation(
        "cursor-last-seen",
        "A cursor is the bound of a pass, and not the last position that was seen.",
        "overtaken_commit",
        (
            Edit(
                SYNC,
                "        reached = min(bound, page.events[-1].position) if page.has_more else bound\n",
                "        reached = page.events[-1].position if page.events else bound\n",
            ),
        ),
    ),
    Mutation(
        "read-from-newest",
        "A verification reads from the cursor, and not from the newest position that was pushed.",
        "ledger_dies_with_an_overtaken_hint",
        (
            Edit(
                "svc_edge/protocol/delivery.py",
                'self.reading, self._after, self._bound = kind, b"", b""\n',
                'self.reading, self._after, self._bound = kind, self.newest, b""\n',
            ),
        ),
    ),
    Mutation(
        "verify-after-dispatch",
        "When svc_message ends without its marker, all sessions read their logs.",
        "ledger_dies_with_hints",
        (
            Edit(
                "svc_fanout/rpc.py",
                '            self._worker.lost(f"the stream of {self._peer} ended without its drain marker")\n',
                "            return\n",
            ),
        ),
    ),
    Mutation(
        "verify-after-push",
        "When svc_fanout ends without its marker, all sessions of an edge read their logs.",
        "carrier_dies_with_hints",
        (Edit("svc_edge/rpc.py", "            self._mesh.verify_all(UNCLEAN_SPREAD_S)\n", "            return\n"),),
        weakened=(UNTAKEN_IS_NOT_LOST,),
    ),
    Mutation(
        "verify-after-dropping",
        "When svc_message says that it dropped hints, all sessions read their logs.",
        "too_many_hints",
        (Edit("svc_fanout/rpc.py", "        if batch.dropped_hints:\n", "        if batch.dropped_hints < 0:\n"),),
    ),
    Mutation(
        "verify-after-absence",
        "svc_message says that it dropped hints as soon as a svc_fanout listens again.",
        "carrier_is_away",
        (
            Edit(
                "svc_message/adapters/dispatcher_grpc.py",
                "        # While nobody listened hints were dropped, and the next one may be long in coming.\n"
                "        self._losses.tell()\n",
                "        return\n",
            ),
        ),
    ),
    Mutation(
        "verify-without-routes",
        "While svc_presence does not answer, all sessions read their logs every 10 s.",
        "nobody_knows_routes",
        (
            Edit(
                "svc_fanout/worker/verifying.py",
                '            self._tasks.spawn(self._grope(users[0]), name="grope")\n',
                "            return\n",
            ),
        ),
    ),
    Mutation(
        "verify-in-any-case",
        "Every session reads its log again and again, whatever was noticed.",
        "a_hint_vanishes",
        (
            Edit(
                "svc_edge/protocol/session.py",
                "        self.verify_at_s = now_s + self._limits.verify_interval_s"
                " + jitter * self._limits.verify_jitter_s\n",
                "        self.verify_at_s = NEVER\n",
            ),
        ),
    ),
    Mutation(
        "receipts-in-log",
        "Receipts are events in the sender's log, and a push of them is a hint.",
        "ticks_while_away",
        (
            Edit(
                RECEIPTS,
                "        SELECT peer_id, pos, conversation_id, 2, data, expires_ms FROM told WHERE is_news\n",
                "        SELECT peer_id, pos, conversation_id, 2, data, expires_ms FROM told WHERE false\n",
            ),
        ),
    ),
    Mutation(
        "boot-ids",
        "A route of another boot of an edge is never pushed to.",
        "edge_with_stale_routes",
        (NO_BOOT_CHECK,),
        weakened=(NUMBERS_FROM_ONE, NO_TAG_CHECK),
    ),
    Mutation(
        "boot-that-is-meant",
        "An edge refuses the pushes of whoever means another boot of it.",
        "carrier_with_a_stale_route",
        (
            Edit(
                "svc_edge/rpc.py",
                "        if request.edge_boot_id not in (0, self._identity.boot_id):\n",
                "        if request.edge_boot_id < 0:\n",
            ),
        ),
        weakened=(NUMBERS_FROM_ONE, NO_TAG_CHECK),
    ),
    Mutation(
        "random-numbers",
        "Session numbers begin at a random value.",
        "edge_with_stale_routes",
        (NUMBERS_FROM_ONE,),
        weakened=(NO_BOOT_CHECK, NO_TAG_CHECK),
    ),
    Mutation(
        "user-tags",
        "The edge compares the user of each push with that of the session.",
        "edge_with_stale_routes",
        (NO_TAG_CHECK,),
        weakened=(NO_BOOT_CHECK, NUMBERS_FROM_ONE),
    ),
    Mutation(
        "numbers-once",
        "A session number is never used again within a boot.",
        "edge_with_a_late_goodbye",
        (
            Edit(
                "svc_edge/service/sessions.py",
                "        self._last_id = self._last_id + 1 if self._last_id < _LAST_ID else 1\n",
                "        self._last_id = max(self.by_id, default=0) + 1\n",
            ),
        ),
        weakened=(NO_TAG_CHECK,),
    ),
    Mutation(
        "conditional-bye",
        "A goodbye forgets its own session only.",
        "late_goodbye",
        (
            Edit(
                "svc_presence/schema/bye.lua",
                "    if stored and string.sub(stored, 1, #session + 1) == session .. '|' then\n",
                "    if stored then\n",
            ),
        ),
    ),
    Mutation(
        "rank-timestamps",
        "Of two writes of one cell on Cassandra the rank decides, and not which of them came later.",
        "tests/svc_message/test_message_store_cassandra.py::test_a_void_that_meets_its_message_is_withdrawn",
        (
            Edit(
                "svc_message/adapters/ledger_cassandra/cells.py",
                '    return _LONG.pack(int.from_bytes(message_id[:6], "big") * 1000 + rank)\n',
                '    return _LONG.pack(int.from_bytes(message_id[:6], "big") * 1000 + Rank.SENT)\n',
            ),
        ),
    ),
    *GROUP_MUTATIONS,
    *SIMULATED_MUTATIONS,
)
