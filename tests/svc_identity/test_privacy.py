"""Who may see what of whom: all combinations, on every store, against the rule and against a table written by hand."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from svc_identity.errors import UserNotFoundError
from svc_identity.model import ChangeKind, Phone, UserId
from svc_identity.model.privacy import Audience, PrivacyAspect, Settings
from svc_identity.ports import IdentityStore
from svc_identity.protocol.privacy import Sight, audience_of, may_see
from tests.svc_identity.people import charge, new_phone, register

N, C, E = Audience.NOBODY, Audience.CONTACTS, Audience.EVERYONE
LAST_SEEN, ONLINE, PHOTO, ABOUT, GROUPS = PrivacyAspect
NOBODY = UserId(bytes(15) + b"\1")
# Whether a stranger and whether a contact sees it, by the target's audience.
SHOWN = {N: (False, False), C: (False, True), E: (True, True)}
KINDS = [
    Settings(
        last_seen=last_seen,
        online=online,
        # The other aspects take every audience, too, and not the one of last_seen.
        profile_photo=Audience(last_seen % 3 + 1),
        about=Audience((last_seen + 1) % 3 + 1),
        groups=online or last_seen,
    )
    for last_seen, online in itertools.product(Audience, [None, *Audience])
]


class Someone(NamedTuple):
    """A user and what it has set."""

    user_id: UserId
    phone: Phone
    settings: Settings


class Relation(NamedTuple):
    """What two people are to each other."""

    is_contact: bool
    has_blocked: bool
    """The viewer has blocked the target."""
    is_blocked: bool
    """The target has blocked the viewer."""


PAIRS = list(itertools.product(Audience, repeat=2))
RELATIONS = [Relation(*flags) for flags in itertools.product([False, True], repeat=3)]


def expected(aspect: PrivacyAspect, viewer: Settings, target: Settings, relation: Relation) -> bool:
    """Returns what a person would say, of tables and not of the rule."""
    if relation.has_blocked or relation.is_blocked:
        return False
    if aspect is LAST_SEEN and viewer.last_seen is N:
        return False
    if aspect is ONLINE and (viewer.online or viewer.last_seen) is N:
        return False
    shown_to = {
        LAST_SEEN: target.last_seen,
        ONLINE: target.online or target.last_seen,
        PHOTO: target.profile_photo,
        ABOUT: target.about,
        GROUPS: target.groups,
    }[aspect]
    return SHOWN[shown_to][relation.is_contact]


def combinations() -> Iterator[tuple[PrivacyAspect, Settings, Settings, Relation]]:
    return itertools.product(PrivacyAspect, KINDS, KINDS, RELATIONS)


def test_rule_says_what_the_table_says_in_all_combinations() -> None:
    wrong = [
        (aspect, viewer, target, relation)
        for aspect, viewer, target, relation in combinations()
        if may_see(aspect, Sight(viewer, target, relation.is_contact, relation.has_blocked or relation.is_blocked))
        is not expected(aspect, viewer, target, relation)
    ]

    assert wrong == []


def test_defaults_are_those_of_the_source_document() -> None:
    settings = Settings()

    assert [audience_of(settings, aspect) for aspect in PrivacyAspect] == [C, C, E, C, E]
    assert (settings.read_receipts, settings.notification_sound) == (True, "default")


async def someone(store: IdentityStore, settings: Settings) -> Someone:
    phone = new_phone()
    user_id = (await register(store, phone)).user_id
    await store.privacy.update_settings(user_id, lambda _: settings)
    return Someone(user_id, phone, settings)


async def relate(store: IdentityStore, viewer: Someone, target: Someone, relation: Relation) -> None:
    if relation.is_contact:
        await store.contacts.add_contact(target.user_id, viewer.phone, "x", charge(limit=100_000))
    if relation.has_blocked:
        await store.contacts.block(viewer.user_id, target.user_id)
    if relation.is_blocked:
        await store.contacts.block(target.user_id, viewer.user_id)


async def test_store_says_what_the_table_says_in_all_combinations(store: IdentityStore) -> None:
    targets = [await someone(store, settings) for settings in KINDS]
    pairs: list[tuple[Someone, Someone, Relation]] = []
    # Of a viewer only last_seen and online matter. Each is one thing to all targets, so that it takes fewer people.
    viewers = [Settings(), Settings(last_seen=N), Settings(last_seen=N, online=C), Settings(last_seen=E, online=N)]
    for settings, relation in itertools.product(viewers, RELATIONS):
        viewer = await someone(store, settings)
        await asyncio.gather(*(relate(store, viewer, target, relation) for target in targets))
        pairs += [(viewer, target, relation) for target in targets]

    ids = [(viewer.user_id, target.user_id) for viewer, target, _ in pairs]
    for aspect in PrivacyAspect:
        answers = await store.privacy.may_see(aspect, ids)
        assert answers == [expected(aspect, viewer.settings, target.settings, how) for viewer, target, how in pairs]


@pytest.mark.parametrize("aspect", list(PrivacyAspect))
async def test_whoever_has_set_nothing_has_the_defaults(store: IdentityStore, aspect: PrivacyAspect) -> None:
    phone = new_phone()
    ada, bob = (await register(store, phone)).user_id, (await register(store)).user_id
    await store.contacts.add_contact(bob, phone, "Ada", charge())

    answers = await store.privacy.may_see(aspect, [(ada, bob), (bob, ada), (ada, ada), (ada, NOBODY), (NOBODY, ada)])

    is_for_everyone = aspect in {PHOTO, GROUPS}
    assert answers == [True, is_for_everyone, True, False, is_for_everyone]


async def test_settings_are_kept_and_only_differences_are_changes(store: IdentityStore) -> None:
    owner = (await register(store)).user_id
    start = (await store.changes.read(None)).cursor
    profile, before = await store.privacy.profile_with_settings(owner)
    assert [profile] == await store.profiles.profiles(owner, [owner])

    def quiet(settings: Settings) -> Settings:
        return replace(settings, online=N, read_receipts=False, notification_sound="'; DROP TABLE --")

    for _ in range(2):
        await store.privacy.update_settings(owner, quiet)
    await store.privacy.update_settings(owner, lambda settings: replace(settings, groups=C))

    _, kept = await store.privacy.profile_with_settings(owner)
    page = await store.changes.read(start)
    assert before == Settings()
    assert kept == replace(quiet(Settings()), groups=C)
    assert kept.online is N
    assert [(change.kind, change.user_id) for change in page.changes] == [(ChangeKind.SETTINGS, owner)] * 2


async def test_changes_of_settings_at_once_are_all_kept(store: IdentityStore) -> None:
    owner = (await register(store)).user_id
    fields = ["last_seen", "profile_photo", "about", "groups", "online"]

    async def hide(name: str) -> None:
        hidden: dict[str, Any] = {name: N}
        await store.privacy.update_settings(owner, lambda settings: replace(settings, **hidden))

    await asyncio.gather(*map(hide, fields))

    _, kept = await store.privacy.profile_with_settings(owner)
    assert [getattr(kept, name) for name in fields] == [N] * 5


async def test_services_learn_who_gives_no_read_receipts(store: IdentityStore) -> None:
    owner, other = [(await register(store)).user_id for _ in range(2)]
    await store.privacy.update_settings(owner, lambda settings: replace(settings, read_receipts=False))

    users = await store.profiles.users([owner, other, NOBODY])

    assert [user.gives_read_receipts for user in users] == [False, True, False]


@pytest.mark.parametrize("relation", RELATIONS)
async def test_profiles_show_photo_and_text_as_their_owner_allows(store: IdentityStore, relation: Relation) -> None:
    photo = b"p" * 16
    viewer = await someone(store, Settings())
    targets = [await someone(store, replace(Settings(), profile_photo=one, about=other)) for one, other in PAIRS]
    for target in targets:
        await store.profiles.update_profile(target.user_id, None, "At the telegraph", photo)
        await relate(store, viewer, target, relation)

    seen = await store.profiles.profiles(viewer.user_id, [target.user_id for target in targets])

    assert [(profile.photo_media_id, profile.about) for profile in seen] == [
        (
            photo if expected(PHOTO, viewer.settings, target.settings, relation) else b"",
            "At the telegraph" if expected(ABOUT, viewer.settings, target.settings, relation) else "",
        )
        for target in targets
    ]
    assert {profile.profile_name for profile in seen} == {"Ada"}


async def test_photo_is_set_kept_and_taken_away(store: IdentityStore) -> None:
    owner = (await register(store)).user_id

    async def photo() -> bytes:
        return (await store.profiles.profiles(owner, [owner]))[0].photo_media_id

    await store.profiles.update_profile(owner, None, None, b"p" * 16)
    await store.profiles.update_profile(owner, "Ada", "Hello")
    kept = await photo()
    await store.profiles.update_profile(owner, None, None, b"")

    assert (kept, await photo()) == (b"p" * 16, b"")


async def test_settings_of_nobody_are_refused(store: IdentityStore) -> None:
    with pytest.raises(UserNotFoundError):
        await store.privacy.profile_with_settings(NOBODY)
    with pytest.raises(UserNotFoundError):
        await store.privacy.update_settings(NOBODY, lambda settings: settings)
