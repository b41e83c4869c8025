"""The machine's clock and randomness."""

from chappe.runtime.clock import system_seams


def test_monotonic_time_never_falls_and_wall_time_is_in_milliseconds() -> None:
    clock = system_seams().clock
    first = clock.monotonic_s()

    assert clock.monotonic_s() >= first
    assert 1_700_000_000_000 < clock.wall_ms() < 10_000_000_000_000


def test_random_values_have_their_shape() -> None:
    randomness = system_seams().randomness

    assert len(randomness.token(16)) == 16
    assert 0 < randomness.nonzero_u64() < 2**64
    assert 1.0 <= randomness.uniform(1.0, 2.0) <= 2.0
