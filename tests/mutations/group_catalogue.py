"""The repairs of groups that are taken out; the rest is as in the catalogue of all."""

from typing import Final

from tests.mutations.mutation import Mutation
from tests.mutations.tree import Edit

ACCEPT: Final = "svc_message/service/accept_group.py"
EXPAND: Final = "svc_message/service/expand.py"
WORKER: Final = "svc_message/worker/expand.py"
JOURNAL: Final = "svc_message/protocol/journal.py"
COPIES: Final = "svc_message/adapters/directory_copies.py"

MARK_PASSES_WHAT_FAILED: Final = Edit(
    JOURNAL,
    "        self._mark = max(self._mark, min(bound, min(self._begun, default=bound)))\n",
    "        self._mark = max(self._mark, bound)\n",
)

GROUP_MUTATIONS: Final = (
    Mutation(
        "rewritten-entry",
        "A message to a group that is written again gets another entry in the journal.",
        "late_group_commit",
        (
            Edit(
                ACCEPT,
                "                entries.append(_entry(message, outcome))\n",
                "                if outcome.verdict is Verdict.STORED:\n"
                "                    entries.append(_entry(message, outcome))\n",
            ),
        ),
    ),
    Mutation(
        "adoption",
        "Another process expands what a dead one has accepted.",
        "ledger_dies_expanding",
        (
            Edit(
                WORKER,
                "                if orphan.shard != self._shard:\n",
                "                if orphan.shard < 0:\n",
            ),
        ),
    ),
    Mutation(
        "failed-again",
        "What could not be expanded is expanded later.",
        "expansion_fails_once",
        (Edit(WORKER, "            self.add(list(left.values()))\n", ""),),
    ),
    Mutation(
        "poison",
        "Put aside is only what cannot be decoded, and not what a store does not take at the moment.",
        "adopter_fails_once",
        (
            Edit(
                WORKER,
                "            expanded = await adoption.expand([entry for entry in page if isinstance(entry, Entry)])\n",
                "            from svc_message.model.group import Undecodable\n\n"
                "            expanded = await adoption.expand([entry for entry in page if isinstance(entry, Entry)])\n"
                "            failed = [entry for entry in page if entry.position not in adoption.settled]\n"
                "            adoption._failure = None\n"
                "            await self._journal.park(\n"
                "                orphan.shard, [Undecodable(entry.position, 'not expanded') for entry in failed]\n"
                "            )\n",
            ),
        ),
    ),
    Mutation(
        "low-water",
        "The mark of a shard never passes an entry that is not done.",
        "expansion_fails_for_long",
        (MARK_PASSES_WHAT_FAILED,),
    ),
    Mutation(
        "behind-the-mark",
        "Whoever adopts a shard begins H before its mark.",
        "expansion_fails_for_a_while",
        (
            Edit(
                JOURNAL,
                "    return position_at(milliseconds_of(mark) - int(HORIZON_S * 1000))\n",
                "    return mark\n",
            ),
        ),
        weakened=(MARK_PASSES_WHAT_FAILED,),
    ),
    Mutation(
        "members-version",
        "A group of which a sender knows a newer version than svc_message is read through.",
        "welcome_carol",
        (
            Edit(
                ACCEPT,
                "    if not is_certain and group.version < _action(request).members_version:\n",
                "    if is_certain and group.version < _action(request).members_version:\n",
            ),
        ),
    ),
    Mutation(
        "cached-stranger",
        "Whoever is no member by the copy of a group is looked up before it is refused.",
        "carol_writes_at_once",
        (
            Edit(
                ACCEPT,
                "            if group is None or _refusal(group, candidate.request) is not None:\n",
                "            if group is None:\n",
            ),
        ),
    ),
    Mutation(
        "joined-later",
        "Whoever joins after a message was accepted does not get it.",
        "joined_before_expansion",
        (
            Edit(
                "svc_message/model/group.py",
                "        if self.latest_join <= version:\n            return self.user_ids\n        pairs = ",
                "        if self.latest_join > 0:\n            return self.user_ids\n        pairs = ",
            ),
        ),
    ),
    Mutation(
        "removed-meanwhile",
        "Whoever is removed before a message is expanded does not get it.",
        "removed_before_expansion",
        (
            Edit(EXPAND, "MAX_ROWS = 8192\n", "FIRST: Any = {}\nMAX_ROWS = 8192\n"),
            Edit(
                EXPAND,
                "            group = self._directory.cached(group_id)\n"
                "            if group is not None and group.version >= version:\n",
                "            group = FIRST.setdefault((group_id, version), self._directory.cached(group_id))\n"
                "            if group is not None and group.version >= version:\n",
            ),
        ),
    ),
    Mutation(
        "lease",
        "A copy is used only while svc_identity says that there is nothing that it does not tell.",
        "silent_directory",
        (
            Edit(
                COPIES,
                "        if self._clock.wall_ms() - self._complete_until_ms > LEASE_MS:\n            return None\n",
                "",
            ),
        ),
    ),
    Mutation(
        "newest-answer",
        "An answer that is older than a change already seen is thrown away.",
        "answer_overtaken_by_a_change",
        (Edit(COPIES, "        if copy.version < self._versions.get(name, 0):\n            return False\n", ""),),
    ),
    Mutation(
        "word-in-log",
        "The inbox of a sender says that its messages to a group came further; counts that are pushed are hints.",
        "counts_while_away",
        (
            Edit(
                "svc_message/worker/tell.py",
                "        for tell in (telling.tell_counts, telling.tell_news):\n",
                "        for tell in (telling.tell_counts,):\n",
            ),
        ),
    ),
)
