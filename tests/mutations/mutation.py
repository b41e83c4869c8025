"""What one line of the catalogue is."""

from typing import NamedTuple

from tests.mutations.tree import Edit


class Mutation(NamedTuple):
    """One repair, taken out."""

    name: str
    repair: str
    """What the system does while the repair is in."""
    scene: str
    """Or so many seeds of the simulation, like "40 seeds"; or a test, by its file and name, that has to fail."""
    edits: tuple[Edit, ...]
    weakened: tuple[Edit, ...] = ()
    """Other repairs that prevent the same damage: they are out with and without the edits, so that this one alone
    makes the difference."""
