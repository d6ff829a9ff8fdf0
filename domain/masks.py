"""Masks that show a little of a personal value to whom it is not open; imports no edge and no row, as jobs mask too.

What is shown never has more than 40 % of the value's letters and digits, and its length tells nothing of the rest.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Final, TypeVar, cast

import phonenumbers

from domain.name_search import is_cjk
from tenants.documents import Mask

T = TypeVar("T")

DOTS: Final = "•••"


def apply(mask: Mask, value: T | None) -> T | None:
    """Return what a viewer at level MASKED sees.

    Never raises: a malformed string gives `•••`, a value of another type under a mask for strings gives None.
    """
    if mask is Mask.KEEP or value is None:
        return value
    # A mask of a string is a string, which mypy can't see through T.
    return cast("T | None", _MASKS[mask](value)) if isinstance(value, str) else None


def is_mask_of(mask: Mask, shown: object, current: object) -> bool:
    """Tell whether writing `shown` would put the mask of `current` in its place.

    False where both are equal, as under KEEP: that write destroys nothing. None is the mask of a value under NOTHING.
    """
    masked = apply(mask, current)
    # Before any normalising, whose cost grows with the square of a hostile text's combining marks.
    if isinstance(shown, str) and isinstance(masked, str) and len(shown) > 4 * len(masked) + 16:
        return False
    if current is None or _comparable(shown) == _comparable(current):
        return False
    return _comparable(shown) == _comparable(masked)


def _comparable(value: object) -> object:
    return unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else value


def _mask_name(value: str) -> str:
    words = _capital_words(value)
    if not words:
        return DOTS
    if is_cjk(words[0]):
        return _grapheme(words[0]) + "**"
    # First and last only: one initial per word would tell how long the name is.
    ends = words if len(words) == 1 else [words[0], words[-1]]
    return " ".join(f"{_grapheme(word)}." for word in ends)


def _mask_email(value: str) -> str:
    parts = _EMAIL.fullmatch(value)
    if parts is None:
        return DOTS
    return f"{_grapheme(parts['local'])}***@{_grapheme(parts['domain'])}***.{parts['label']}"


def _mask_phone(value: str) -> str:
    if not _E164.fullmatch(value):
        return DOTS
    # No calling code begins another (ITU-T E.164), so at most one of the three is known.
    code = next((value[1:end] for end in (4, 3, 2) if value[1:end] in _CALLING_CODES), None)
    return f"+{code} ••• •••{value[-2:]}" if code else DOTS


def _mask_last2(value: str) -> str:
    return "•••••••" + "".join(filter(str.isalnum, value))[-2:]


_EMAIL = re.compile(r"(?P<local>[^\s@]+)@(?P<domain>[^\s@.][^\s@]*)\.(?P<label>[^\W_][\w-]{0,62})")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_CALLING_CODES = frozenset(map(str, phonenumbers.COUNTRY_CODE_TO_REGION_CODE))
_BREAKS = re.compile(r"[\s\-\u2010-\u2015]+")


def _capital_words(value: str) -> list[str]:
    """Return the words from their first letter on, without particles (`van`, `de la`) unless all are in lower case."""
    words = [word for word in map(_from_first_letter, _BREAKS.split(value)) if word]
    return [word for word in words if not word.islower()] or words


def _from_first_letter(word: str) -> str:
    start = next((place for place, character in enumerate(word) if character.isalnum()), len(word))
    return word[start:]


def _grapheme(text: str) -> str:
    # A letter needs its marks to be itself; three are more than any script writes, and a thousand would flood the page.
    end = 1
    while end < min(len(text), 4) and unicodedata.category(text[end])[0] == "M":
        end += 1
    return text[:end]


def _capped(mask: Callable[[str], str]) -> Callable[[str], str]:
    def masked(value: str) -> str:
        normal = unicodedata.normalize("NFC", value)
        shown = mask(normal)
        return shown if _count(shown) <= 0.4 * _count(normal) else DOTS

    return masked


def _count(text: str) -> int:
    return sum(map(str.isalnum, text))


def _mask_whole(value: str) -> str:
    return DOTS


def _mask_to_nothing(value: str) -> None:
    return None


_MASKS: Final[dict[Mask, Callable[[str], str | None]]] = {
    Mask.NAME: _capped(_mask_name),
    Mask.EMAIL: _capped(_mask_email),
    Mask.PHONE: _capped(_mask_phone),
    Mask.LAST2: _capped(_mask_last2),
    Mask.ADDRESS_LINE: _mask_whole,
    Mask.TEXT: _mask_whole,
    Mask.NOTHING: _mask_to_nothing,
}
