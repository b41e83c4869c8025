"""The address book: who is meant by a number or a name, and how a user is called."""

import re
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

from chappe.api.identity.v1 import contact_service_pb2, profile_service_pb2
from chappe.client.errors import NotConnectedError, RefusedError, UnknownPersonError
from chappe.client.methods import (
    ADD_CONTACT,
    BATCH_GET_PROFILES,
    GET_PROFILE,
    LIST_CONTACTS,
    LOOKUP_CONTACTS,
    REMOVE_CONTACT,
    Answer,
    Method,
    Question,
)
from chappe.client.store import ContactNews, LocalStore, Person
from chappe.client.views import Contact

_PHONE = re.compile(r"\+\d{7,15}")
_USER_ID = re.compile(r"[0-9a-f]{32}")
_PAGE = 1000
_LOOKUP = 500
_PROFILES = 100
_MOST_NAMES = 10
_ID_BYTES = 16

InStore = Callable[..., Awaitable[Any]]
"""Runs a function of the store in the store's thread."""


class Calling(Protocol):
    """Calls methods of services."""

    async def call(self, method: Method[Question, Answer], question: Question) -> Answer:
        """Makes one call."""
        ...


class _Remembered:
    """Whom this device remembers, with what the other processes of its profile have learned meanwhile."""

    def __init__(self, store: LocalStore, in_store: InStore, known: Iterable[Person]) -> None:
        self._store = store
        self._in_store = in_store
        self._people = {person.user_id: person for person in known}
        self._changes = 0
        self._taken: set[str] | None = None
        """How the names of contacts read, once somebody asks for it."""

    def get(self, user_id: bytes) -> Person | None:
        """Returns a person; None for one of whom nothing is remembered."""
        return self._people.get(user_id)

    def all(self) -> Mapping[bytes, Person]:
        """Returns everybody, by user id."""
        return self._people

    def name_of(self, user_id: bytes, *, is_renamed: bool = False) -> str:
        """Returns how a person is called as far as that is known; of whoever is renamed, by the user alone.

        A name that somebody chose who is no contact begins with a ~ when it reads like that of one.
        """
        person = self._people.get(user_id)
        if person is None:
            return ""
        if person.contact_name or is_renamed:
            return person.contact_name
        if self._taken is None:
            self._taken = {_reading(each.contact_name) for each in self._people.values() if each.contact_name}
        return f"~{person.profile_name}" if _reading(person.profile_name) in self._taken else person.profile_name

    async def refresh(self) -> None:
        """Reads what was remembered since, by whichever process."""
        changes: int = await self._in_store(self._store.contacts.changes)
        if changes != self._changes:
            people: list[Person] = await self._in_store(self._store.people)
            self._people, self._changes = {person.user_id: person for person in people}, changes
            self._taken = None

    async def put(self, people: list[Person]) -> None:
        """Remembers people, in place of what was known of the same users."""
        await self._in_store(self._store.remember, people)
        # Only now: what was read before it does not come behind it.
        self._people |= {person.user_id: person for person in people}
        self._taken = None


class People:
    """Finds people, and remembers them so that the budget for looking up numbers is spent once for each."""

    def __init__(
        self, calling: Calling, store: LocalStore, in_store: InStore, known: Iterable[Person], renamed: set[bytes]
    ) -> None:
        """Takes what the store knows.

        Args:
            calling: Asks the services.
            store: Remembers people.
            in_store: Runs its functions.
            known: Whom it remembers.
            renamed: Whose profile has changed since; whoever was asked for is taken out.
        """
        self._renamed = renamed
        self._calling = calling
        self._store = store
        self._in_store = in_store
        self._remembered = _Remembered(store, in_store, known)
        self._is_listed = False
        """Whether this process has read the whole address book."""

    async def resolve(self, person: str | bytes) -> bytes:
        """Returns the user id of a person.

        Args:
            person: A phone number, the name of a contact, a user id as bytes or as 32 hex digits.

        Raises:
            UnknownPersonError: Nobody is meant, or more than one.
        """
        if isinstance(person, bytes):
            if len(person) != _ID_BYTES:
                raise UnknownPersonError(f"a user id has 16 bytes, and this has {len(person)}")
            return person
        text = person.strip()
        if _USER_ID.fullmatch(text):
            return bytes.fromhex(text)
        if not text:
            raise UnknownPersonError("nobody is named; write the name of a contact, or +number")
        if _PHONE.fullmatch(text):
            return await self._by_number(text)
        await self._read_changes()
        return self.known(text) or await self._by_fresh_name(text)

    async def find(self, name: str) -> bytes:
        """Returns the user whom the own address book calls so; empty when it calls nobody so.

        Raises:
            UnknownPersonError: More than one is meant.
        """
        await self._read_changes()
        user_id = self.known(name)
        if not user_id and not self._is_listed:
            await self.list()
            user_id = self.known(name)
        return user_id

    async def some_names(self) -> str:
        """Returns how some of the contacts are called, to help whoever has mistyped one."""
        contacts = await self.list()
        return ", ".join(sorted(contact.name for contact in contacts if contact.name)[:_MOST_NAMES]) or "nobody"

    async def name_of(self, user_id: bytes) -> str:
        """Returns how a user is called: by the user, else by itself, else by its number.

        Who calls itself like a contact of the user gets a ~ before that name.
        """
        if name := self._remembered.name_of(user_id, is_renamed=user_id in self._renamed):
            return name
        try:
            request = profile_service_pb2.GetProfileRequest(user_id=user_id)
            profile = (await self._calling.call(GET_PROFILE, request)).profile
        except (RefusedError, NotConnectedError):
            return self._remembered.name_of(user_id) or _last_resort(user_id, self._remembered.get(user_id))
        await self._remembered.refresh()
        await self._remember([_with_profile(self._remembered.get(user_id), profile)])
        self._renamed.discard(user_id)
        return self._remembered.name_of(user_id) or _last_resort(user_id, self._remembered.get(user_id))

    async def names_of(self, user_ids: Iterable[bytes]) -> dict[bytes, str]:
        """Returns how users are called, like `name_of`, with as few questions as possible."""
        wanted = dict.fromkeys(user_ids)
        unknown = [
            user_id for user_id in wanted if not self._remembered.name_of(user_id, is_renamed=user_id in self._renamed)
        ]
        for start in range(0, len(unknown), _PROFILES):
            part = unknown[start : start + _PROFILES]
            request = profile_service_pb2.BatchGetProfilesRequest(user_ids=part)
            with suppress(NotConnectedError):
                profiles = (await self._calling.call(BATCH_GET_PROFILES, request)).profiles
                await self._remembered.refresh()
                await self._remember(
                    _with_profile(self._remembered.get(each.user_id), each) for each in profiles if each.profile_name
                )
                self._renamed.difference_update(part)
        return {
            user_id: self._remembered.name_of(user_id) or _last_resort(user_id, self._remembered.get(user_id))
            for user_id in wanted
        }

    async def list(self) -> list[Contact]:
        """Returns the contacts by phone number."""
        news: ContactNews | None = await self._in_store(self._store.contacts.unread)
        found: list[Contact] = []
        token = ""
        while True:
            request = contact_service_pb2.ListContactsRequest(page_size=_PAGE, page_token=token)
            page = await self._calling.call(LIST_CONTACTS, request)
            found += [_contact(contact) for contact in page.contacts]
            token = page.next_page_token
            if not token:
                await self._remembered.refresh()
                await self._remember(_named(self._remembered.all(), found))
                self._is_listed = True
                if news is not None:
                    await self._in_store(self._store.contacts.mark_read, news)
                return found

    async def add(self, phone_number: str, name: str = "") -> Contact:
        """Adds a person, or renames one.

        Raises:
            RefusedError: The number is not one, it is one's own, or the address book is full.
        """
        request = contact_service_pb2.AddContactRequest(phone_number=phone_number, contact_name=name)
        contact = _contact((await self._calling.call(ADD_CONTACT, request)).contact)
        if contact.user_id:
            await self._remembered.refresh()
            await self._remember([_with_contact(self._remembered.get(contact.user_id), contact)])
        return contact

    async def remove(self, phone_number: str) -> None:
        """Removes a person from the address book.

        Raises:
            RefusedError: The person is not in it.
        """
        await self._calling.call(REMOVE_CONTACT, contact_service_pb2.RemoveContactRequest(phone_number=phone_number))
        await self._remembered.refresh()
        gone = [person for person in self._remembered.all().values() if person.phone_number == phone_number]
        await self._remember(person._replace(contact_name="") for person in gone)

    async def look_up(self, phone_numbers: Iterable[str]) -> dict[str, bytes]:
        """Returns the users of those numbers that have an account; every number counts against a daily budget.

        Raises:
            RefusedError: The budget is used up, or a number is not one.
        """
        numbers = list(phone_numbers)
        found: dict[str, bytes] = {}
        for start in range(0, len(numbers), _LOOKUP):
            part = numbers[start : start + _LOOKUP]
            request = contact_service_pb2.LookupContactsRequest(phone_numbers=part)
            answer = await self._calling.call(LOOKUP_CONTACTS, request)
            found |= {number: user for number, user in zip(part, answer.user_ids, strict=False) if user}
        await self._remembered.refresh()
        await self._remember(
            (self._remembered.get(user) or Person(user, "", ""))._replace(phone_number=number)
            for number, user in found.items()
        )
        return found

    async def _by_number(self, number: str) -> bytes:
        for person in self._remembered.all().values():
            if person.phone_number == number:
                return person.user_id
        found = await self.look_up([number])
        if number not in found:
            raise UnknownPersonError(f"{number} has no account here")
        return found[number]

    def known(self, name: str) -> bytes:
        """Returns the user whom this device remembers under a contact's name; empty when there is none.

        Raises:
            UnknownPersonError: More than one is meant.
        """
        # Whom the user calls nothing is remembered, too, and answers to no name.
        folded = name.strip().casefold()
        everybody = self._remembered.all().values()
        found = [person for person in everybody if folded and person.contact_name.casefold() == folded]
        if len(found) > 1:
            numbers = ", ".join(person.phone_number or person.user_id.hex() for person in found)
            raise UnknownPersonError(f"{name!r} may be any of {numbers}; use the number")
        return found[0].user_id if found else b""

    async def _by_fresh_name(self, name: str) -> bytes:
        names = await self.some_names()
        user_id = self.known(name)
        if not user_id:
            raise UnknownPersonError(f"{name!r} is no contact with an account (contacts: {names}); use +number")
        return user_id

    async def _read_changes(self) -> None:
        """Learns how another device or process has changed the address book: a name may mean somebody else."""
        if await self._in_store(self._store.contacts.unread) is not None:
            # Without an answer, what this device remembers has to do.
            with suppress(RefusedError, NotConnectedError):
                await self.list()
        await self._remembered.refresh()

    async def _remember(self, people: Iterable[Person]) -> None:
        known, renamed = self._remembered, self._renamed
        new = [person for person in people if known.get(person.user_id) != person or person.user_id in renamed]
        if new:
            await known.put(new)


def _contact(contact: contact_service_pb2.Contact) -> Contact:
    return Contact(phone_number=contact.phone_number, name=contact.contact_name, user_id=contact.user_id)


def _named(people: Mapping[bytes, Person], contacts: Iterable[Contact]) -> Iterator[Person]:
    """Yields people as the whole address book calls them: whoever is in it no more is called nothing."""
    named = {contact.user_id: contact for contact in contacts if contact.user_id}
    for user_id, contact in named.items():
        yield _with_contact(people.get(user_id), contact)
    for user_id, person in people.items():
        if user_id not in named and person.contact_name:
            yield person._replace(contact_name="")


def _with_contact(person: Person | None, contact: Contact) -> Person:
    known = person or Person(contact.user_id, "", "")
    return known._replace(phone_number=contact.phone_number, contact_name=contact.name)


def _reading(name: str) -> str:
    """Returns a name as people read it: without its case, blanks, and characters that nobody sees."""
    letters = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in letters if not letter.isspace() and unicodedata.category(letter) != "Cf")


def _last_resort(user_id: bytes, person: Person | None) -> str:
    return (person.phone_number if person is not None else "") or user_id.hex()


def _with_profile(person: Person | None, profile: profile_service_pb2.Profile) -> Person:
    return (person or Person(profile.user_id, "", ""))._replace(profile_name=profile.profile_name)
