"""The repairs that seeds of the simulation miss once they are taken out, whatever happens around them."""

from typing import Final

from tests.mutations.mutation import Mutation
from tests.mutations.tree import Edit

RULES: Final = "svc_message/protocol/__init__.py"
SIFT: Final = "svc_message/service/sift.py"
ACCEPT: Final = "svc_message/service/accept.py"

SIMULATED_MUTATIONS: Final = (
    Mutation(
        "any-horizon",
        "A cursor stays behind the present by more than a write may take, whatever delays there are.",
        "40 seeds",
        (Edit(RULES, "HORIZON_S = 10.0\n", "HORIZON_S = 0.0\n"),),
    ),
    Mutation(
        "any-found-row",
        "A retry completes what it finds, wherever a write was torn or came late.",
        "40 seeds",
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
)
