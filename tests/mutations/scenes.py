"""What happens to a system from which a repair was taken out: each scene makes its damage visible to the checker.

On the system as it is every scene must end in silence.
A scene names its faults at exact points and takes seconds, for the services' clock leaps.
"""

from typing import Final

from svc_fanout.model import Delivery, Hint, Route
from svc_fanout.model import UserId as CarriedUser
from svc_message.adapters import dispatcher_grpc
from svc_message.adapters.item_protobuf import item_bytes, item_key
from svc_message.model import UserId
from svc_presence.model import UserId as PresentUser
from tests.mutations import group_scenes
from tests.mutations.carrier import push
from tests.mutations.faults import until
from tests.mutations.phone import Phone
from tests.mutations.stage import Engines, Scene, Stage

LATE_S: Final = 11.5
"""More than a cursor stays behind the present: what is written so late is passed."""
SOON_S: Final = 0.5
"""Far less than a write may take."""
BLOCK_BITES_S: Final = 5.0
"""More than a copy of whom somebody blocks may be old."""
VERIFIED_S: Final = 160.0
"""More than lies between two verifications of a session."""
MEMORY: Final = Engines()


async def retry_after_late_commit(stage: Stage) -> None:
    """A commit is so late that the recipient's cursor passes it, and svc_message dies before it answers."""
    alice, bob = await _late(stage, LATE_S)
    stage.clock.go_on()
    stage.store.after_commit.close()
    stage.store.before_commit.release()
    await stage.store.after_commit.arrived.wait()
    await stage.message.kill()
    await stage.message.start()
    await alice.acknowledged()
    await bob.connect(stage.edge)


async def retry_after_late_commit_on_postgres(stage: Stage) -> None:
    """The same on the real store."""
    await retry_after_late_commit(stage)


async def late_commit(stage: Stage) -> None:
    """A commit is so late that the recipient's cursor passes it."""
    alice, bob = await _late(stage, LATE_S)
    stage.clock.go_on()
    stage.store.before_commit.release()
    await alice.acknowledged()
    await bob.connect(stage.edge)


async def slow_commit(stage: Stage) -> None:
    """A commit takes a while, and the recipient reads the log meanwhile."""
    alice, bob = await _late(stage, SOON_S)
    stage.store.before_commit.release()
    await alice.acknowledged()
    stage.clock.go_on()
    await bob.connect(stage.edge)


async def overtaken_commit(stage: Stage) -> None:
    """A commit takes a while, and another message to the same recipient overtakes it and is read."""
    alice, bob, carol = await stage.people("alice", "bob", "carol")
    await stage.greet(carol, bob)
    stage.store.before_commit.close()
    alice.send(bob)
    await stage.store.before_commit.arrived.wait()
    stage.clock.stand_still()
    await stage.greet(carol, bob)
    await _read_log(stage, bob)
    stage.store.before_commit.release()
    await alice.acknowledged()
    stage.clock.go_on()
    await bob.connect(stage.edge)


async def pausing_reader(stage: Stage) -> None:
    """A reader of a log pauses after it has read, while a message is accepted whose hint gets lost."""
    alice, bob = await stage.people("alice", "bob")
    await stage.greet(alice, bob)
    await bob.hang_up()
    stage.store.after_read.close()
    await bob.dial(stage.edge)
    await stage.store.after_read.arrived.wait()
    stage.ledger.hints.losing = 1
    await alice.send_and_wait(bob)
    stage.clock.leap(LATE_S)
    cursor = bob.cursor
    stage.store.after_read.release()
    await until(lambda: bob.cursor != cursor, "bob has read his log and keeps a new cursor")
    await bob.reconnect(stage.edge)


async def ledger_dies_with_hints(stage: Stage) -> None:
    """svc_message dies with the hint of a message that it has acknowledged; its recipient is quiet and connected."""
    await _lose_a_hint(stage)
    await stage.message.kill()
    await stage.message.start()
    await stage.pass_s()


async def ledger_dies_with_an_overtaken_hint(stage: Stage) -> None:
    """svc_message dies with the hint of a message that another one overtook on its way into the log."""
    alice, bob, carol = await stage.people("alice", "bob", "carol")
    await stage.greet(alice, bob)
    await stage.grow_old()
    stage.store.before_commit.close()
    alice.send(bob)
    await stage.store.before_commit.arrived.wait()
    stage.clock.stand_still()
    await stage.greet(carol, bob)
    stage.ledger.hints.losing = 1
    stage.store.before_commit.release()
    await alice.acknowledged()
    stage.clock.go_on()
    await stage.message.kill()
    await stage.message.start()
    await stage.pass_s()


async def carrier_dies_with_hints(stage: Stage) -> None:
    """svc_fanout dies with a hint in its hands."""
    alice, bob = await stage.people("alice", "bob")
    await stage.greet(alice, bob)
    await stage.grow_old()
    stage.routes.before_locate.close()
    await alice.send_and_wait(bob)
    await stage.routes.before_locate.arrived.wait()
    await stage.fanout.kill()
    await stage.fanout.start()
    await stage.pass_s()


async def too_many_hints(stage: Stage) -> None:
    """svc_message has no room for a hint and drops it; the next one is for somebody else."""
    alice, bob, carol = await stage.people("alice", "bob", "carol")
    await stage.greet(alice, bob)
    await stage.grow_old()
    room, dispatcher_grpc.MAX_WAITING = dispatcher_grpc.MAX_WAITING, 0
    await alice.send_and_wait(bob)
    dispatcher_grpc.MAX_WAITING = room
    await alice.send_and_wait(carol)
    await stage.pass_s()


async def carrier_is_away(stage: Stage) -> None:
    """svc_fanout is restarted politely, and a message is accepted in between."""
    alice, bob = await stage.people("alice", "bob")
    await stage.greet(alice, bob)
    await stage.grow_old()
    await stage.fanout.stop()
    await alice.send_and_wait(bob)
    await stage.fanout.start()
    await stage.pass_s()


async def nobody_knows_routes(stage: Stage) -> None:
    """svc_presence does not answer, so that nobody knows where to push to."""
    alice, bob = await stage.people("alice", "bob")
    await stage.greet(alice, bob)
    await stage.grow_old()
    stage.routes.is_down = True
    await alice.send_and_wait(bob)
    await until(lambda: stage.routes.refused, "svc_presence was asked")
    await stage.pass_s()


async def a_hint_vanishes(stage: Stage) -> None:
    """A hint is lost, and nobody notices; its recipient is quiet and connected."""
    await _lose_a_hint(stage)
    await stage.pass_s(VERIFIED_S)


async def ticks_while_away(stage: Stage) -> None:
    """A message is received while its sender is away, so that no push can tell."""
    alice, bob = await stage.people("alice", "bob")
    await stage.greet(alice, bob)
    await bob.hang_up()
    await alice.send_and_wait(bob)
    await alice.hang_up()
    told = stage.store.receipts
    await bob.connect(stage.edge)
    await until(lambda: stage.store.receipts > told, "the receipt is durable")
    await alice.connect(stage.edge)


async def edge_with_stale_routes(stage: Stage) -> None:
    """An edge dies and comes back, and somebody else gets the first session that it opens."""
    (alice,) = await stage.people("alice")
    bob, carol = stage.phone("bob"), stage.phone("carol")
    await bob.connect(stage.edges[1])
    await stage.greet(alice, bob)
    await stage.edges[1].kill()
    await bob.hang_up()
    await stage.edges[1].start()
    await carol.connect(stage.edges[1])
    await alice.send_and_wait(bob)
    # The carrier has looked twice for bob once it has carried what came after.
    await stage.greet(alice, carol)
    await bob.connect(stage.edge)


async def carrier_with_a_stale_route(stage: Stage) -> None:
    """An edge dies and comes back, and a carrier pushes what was meant for a session of the one that died."""
    (alice,) = await stage.people("alice")
    bob, carol = stage.phone("bob"), stage.phone("carol")
    await bob.connect(stage.edges[1])
    await stage.greet(alice, bob)
    (located,) = await stage.routes.locate([PresentUser(bob.user_id)], [])
    await stage.edges[1].kill()
    await bob.hang_up()
    await stage.edges[1].start()
    await carol.connect(stage.edges[1])
    stage.ledger.hints.losing = 1
    await alice.send_and_wait(bob)
    lost = stage.ledger.hints.lost
    assert lost is not None
    bobs = CarriedUser(bob.user_id)
    hint = Hint(item_bytes(lost), item_key(lost), 0, (bobs,), 0, _ignore)
    route = Route(bobs, located.device_id, located.session_id, located.edge.boot_id, stage.edges[1].address)
    await push(Delivery(hint, route), stage.fanout, stage.edges[1])
    await bob.connect(stage.edge)


async def edge_with_a_late_goodbye(stage: Stage) -> None:
    """svc_presence learns late that somebody has gone, and somebody else gets the next session of the edge."""
    (alice,) = await stage.people("alice")
    bob, carol = stage.phone("bob"), stage.phone("carol")
    await bob.connect(stage.edges[1])
    await stage.greet(alice, bob)
    stage.routes.before_write.close()
    await bob.hang_up()
    await stage.routes.before_write.arrived.wait()
    # Signed in without a route, since svc_presence does not answer.
    await carol.connect(stage.edges[1])
    await alice.send_and_wait(bob)
    # The carrier is through with bob once it has carried what came after.
    stage.routes.before_write.release()
    await until(lambda: stage.routes.byes, "the goodbye was written")
    await bob.connect(stage.edge)


async def late_goodbye(stage: Stage) -> None:
    """Somebody moves to another edge, and the old one says goodbye afterwards."""
    alice, bob = await stage.people("alice", "bob")
    await stage.greet(alice, bob)
    byes = stage.routes.byes
    await bob.connect(stage.edges[1])
    # Meanwhile the old edge may notice that the session has moved, which ends it as well.
    await stage.grow_old()
    await bob.hang_up()
    await until(lambda: stage.routes.byes > byes, "the old edge said goodbye")
    await alice.send_and_wait(bob)
    await stage.pass_s()


async def unblock_and_write(stage: Stage) -> None:
    """A block is lifted and a message follows at once, before svc_message is told."""
    alice, bob = await stage.people("alice", "bob")
    await stage.greet(alice, bob)
    stage.directory.block(bob.user_id, alice.user_id)
    bob.history.note("block", whom=alice.user_id.hex())
    bobs = UserId(bob.user_id)
    await until(lambda: stage.ledger.directory.cached(bobs) is None, "svc_message has learned of the block")
    while (copy := stage.ledger.directory.cached(bobs)) is None or alice.user_id not in copy.blocked_user_ids:
        await alice.send_and_wait(bob, is_owed=False)
    # The copy may be used as long as the time stands still.
    stage.clock.stand_still()
    stage.directory.hold_changes()
    stage.directory.unblock(bob.user_id, alice.user_id)
    bob.history.note("unblock", whom=alice.user_id.hex())
    await alice.send_and_wait(bob)
    stage.clock.go_on()


async def answer_lost_over_an_unblock(stage: Stage) -> None:
    """A disk loses the answer to what a block withheld, and the same is sent again after the block is lifted."""
    alice, bob = await stage.people("alice", "bob")
    await stage.greet(alice, bob)
    stage.directory.block(bob.user_id, alice.user_id)
    bob.history.note("block", whom=alice.user_id.hex())
    await stage.live(BLOCK_BITES_S)
    stage.store.before_commit.close()
    alice.send(bob, is_owed=False)
    await stage.store.before_commit.arrived.wait()
    rows = dict(alice.store.outbox)
    stage.store.before_commit.release()
    await alice.acknowledged()
    await alice.hang_up()
    alice.forget_answers(rows)
    stage.directory.unblock(bob.user_id, alice.user_id)
    bob.history.note("unblock", whom=alice.user_id.hex())
    await alice.connect(stage.edge)
    await alice.acknowledged()
    await alice.send_and_wait(bob)


def _ignore(_items: int) -> None:
    """Takes credit back."""


SCENES: Final[dict[str, tuple[Scene, Engines]]] = {
    scene.__name__: (scene, engines)
    for scene, engines in (
        (retry_after_late_commit, MEMORY),
        (retry_after_late_commit_on_postgres, Engines(postgres=True)),
        (late_commit, MEMORY),
        (slow_commit, MEMORY),
        (overtaken_commit, MEMORY),
        (pausing_reader, MEMORY),
        (ledger_dies_with_hints, MEMORY),
        (ledger_dies_with_an_overtaken_hint, MEMORY),
        (carrier_dies_with_hints, MEMORY),
        (too_many_hints, MEMORY),
        (carrier_is_away, MEMORY),
        (nobody_knows_routes, MEMORY),
        (a_hint_vanishes, MEMORY),
        (ticks_while_away, Engines(postgres=True)),
        (edge_with_stale_routes, MEMORY),
        (carrier_with_a_stale_route, MEMORY),
        (edge_with_a_late_goodbye, MEMORY),
        (answer_lost_over_an_unblock, MEMORY),
        (late_goodbye, Engines(valkey=True)),
        (unblock_and_write, MEMORY),
        (group_scenes.late_group_commit, MEMORY),
        (group_scenes.ledger_dies_expanding, MEMORY),
        (group_scenes.expansion_fails_once, MEMORY),
        (group_scenes.adopter_fails_once, MEMORY),
        (group_scenes.expansion_fails_for_long, MEMORY),
        (group_scenes.expansion_fails_for_a_while, MEMORY),
        (group_scenes.welcome_carol, MEMORY),
        (group_scenes.carol_writes_at_once, MEMORY),
        (group_scenes.joined_before_expansion, MEMORY),
        (group_scenes.removed_before_expansion, MEMORY),
        (group_scenes.silent_directory, MEMORY),
        (group_scenes.answer_overtaken_by_a_change, MEMORY),
        (group_scenes.counts_while_away, MEMORY),
    )
}


async def _late(stage: Stage, seconds: float) -> tuple[Phone, Phone]:
    """Holds a commit of alice's for so long, in which bob reads his log and goes; then the time stands still."""
    alice, bob = await stage.people("alice", "bob")
    await stage.greet(alice, bob)
    stage.store.before_commit.close()
    alice.send(bob)
    await stage.store.before_commit.arrived.wait()
    stage.clock.stand_still()
    stage.clock.leap(seconds)
    await _read_log(stage, bob)
    return alice, bob


async def _lose_a_hint(stage: Stage) -> None:
    """Lets alice write to bob, who is quiet and connected, and loses the hint."""
    alice, bob = await stage.people("alice", "bob")
    await stage.greet(alice, bob)
    await stage.grow_old()
    stage.ledger.hints.losing = 1
    await alice.send_and_wait(bob)


async def _read_log(stage: Stage, phone: Phone) -> None:
    """Lets a phone read its log to the end, keep its new cursor, and go."""
    cursor = phone.cursor
    await phone.reconnect(stage.edge)
    await until(lambda: phone.cursor != cursor, f"{phone.name} keeps a new cursor")
    await phone.hang_up()
