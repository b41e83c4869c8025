"""How many receipts one write takes on."""

MOST = 512
TARGET_S = 1.0
"""A write that takes longer is cut: one position ages with all of it, and what is too old has to be written again."""


class Portion:
    """As many of what waits as the store writes in a second, as the latest writes have shown.

    Taken on together, what has piled up while a store was slow could take longer than a position may be old, would come
    back, and would go on to do so: clients send again what is not answered.
    """

    def __init__(self) -> None:
        self.size = MOST

    def note(self, count: int, took_s: float) -> None:
        """Learns how long a write of so many took."""
        if took_s > TARGET_S:
            self.size = max(1, int(count * TARGET_S / took_s))
        elif count >= self.size and took_s < TARGET_S / 2:
            self.size = min(2 * self.size, MOST)
