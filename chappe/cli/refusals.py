"""Says in the words of the command line what a server found wrong with a field of the wire."""

from typing import Final

_INVALID: Final = "INVALID_FIELD: "
_WORDS: Final = {
    "code": "the code",
    "contact_name": "the name",
    "content": "the text",
    "description": "the text about the group",
    "expiry_s": "the time after which messages disappear",
    "group_name": "the name of the group",
    "link_code": "the code",
    "phone_number": "the number",
    "profile_name": "the name",
    "user_ids": "the list of people",
}


def in_words(refusal: str) -> str:
    """Returns a refusal with the name of its field as people know it; what is no such refusal as it is."""
    field, separator, why = refusal.removeprefix(_INVALID).partition(": ")
    word = _WORDS.get(field.rpartition(".")[2])
    if not refusal.startswith(_INVALID) or not separator or word is None:
        return refusal
    return f"{word} {why.replace('must be set', 'must not be empty')}"
