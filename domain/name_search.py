"""Finding people by the beginnings of their names: the keys that stand in the index, and what a query matches.

Each name and query is taken as words without case, diacritics and punctuation; Chinese, Japanese and Korean names are
found by their first one or two characters. Imports nothing of ours but the normalisers' bounds.
"""

import re
import unicodedata

from domain.normalise import MOST_IN_LINE


def name_key(text: str) -> str:
    """Return all letters and digits in one word, case-folded and without diacritics: `Jean-Luc Łoś` is `jeanluclos`."""
    return unicodedata.normalize("NFC", "".join(_words(text)))


def name_prefixes(text: str) -> list[str]:
    """Return the keys to index: 3 and 6 characters (CJK 1 and 2) of the whole name and each word, all of a shorter one.

    They are at most 16: of a name of more than 7 words, the first 4 and the last 3 count.
    """
    keys = [prefix for word in _indexed_words(text) for prefix in _stored_prefixes(word)]
    return list(dict.fromkeys(keys))


def prefix_lookup(query: str) -> str | None:
    """Return the one stored key to look up: of the query's most telling word; None if the query has no letter or digit.

    A name found by it may still not match; ask `matches_prefix`.
    """
    words = _words(query)
    return _stored_prefixes(_most_telling(words))[-1] if words else None


def matches_prefix(name: str, query: str) -> bool:
    """Tell whether each word of the query, in any order, begins a word of the name, or the name written as one word.

    A query too short for the index (`Li`) matches only a word or name that is exactly so. A name that matches has
    `prefix_lookup(query)` among its `name_prefixes`.
    """
    asked, present = _words(query), _indexed_words(name)
    if not asked or not present:
        return False
    key = _most_telling(asked)
    if not any(_begins(word, key) for word in present):
        return False
    return all(any(word.startswith(other) for word in present) for other in asked if other != key)


def is_cjk(text: str) -> bool:
    """Tell whether the text begins with a Han, kana, bopomofo or Hangul character, of which one or two are a name."""
    return _CJK.match(text) is not None


_CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3040-\u318f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f\U0001aff0-\U0001b16f\U00020000-\U0003ffff]"
)
# A middle dot parts names in Chinese, but not the two l of Catalan (Marcel·la).
_SEPARATORS = re.compile("[\\s\\-_,/\u30fb\u2010-\u2015\u2212]+|(?<!l)·|·(?!l)")
# Letters whose stroke or ligature Unicode does not decompose, as people type them without such a keyboard.
_STROKES = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)
# Modifier letters stand for apostrophes, tatweel stretches a word, accents and variation selectors name no letter.
_IGNORED = re.compile("[\u02b9-\u036f\u0640\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\U000e0100-\U000e01ef]")
# Latin, Greek, Cyrillic, and Hebrew and Arabic, whose vowel points are optional. Elsewhere marks are vowels or voicing.
_SHEDS_MARKS = re.compile(
    "[\x00-\u077f\u08a0-\u08ff\u1c80-\u1c8f\u1d00-\u1dbf\u1e00-\u1fff\u2c60-\u2c7f\ua640-\ua69f\ua720-\ua7ff\uab30-\uab6f]"
)


def _words(text: str) -> list[str]:
    # No kept name is longer, and an endless query must not cost more than a name.
    folded = _folded(text[: 4 * MOST_IN_LINE])
    words = (unicodedata.normalize("NFC", _letters(word)) for word in _SEPARATORS.split(folded))
    return [word for word in words if word]


def _folded(text: str) -> str:
    # Unicode 3.13, D146: folding may compose and decomposing may uncover capitals, so each is done twice.
    once = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    return _IGNORED.sub("", unicodedata.normalize("NFKD", once.casefold())).translate(_STROKES)


def _letters(word: str) -> str:
    kept: list[str] = []
    for character in word:
        is_needed_mark = kept and unicodedata.category(character)[0] == "M" and not _SHEDS_MARKS.match(kept[-1])
        if character.isalnum() or is_needed_mark:
            kept.append(character)
    return "".join(kept)


def _indexed_words(text: str) -> list[str]:
    words = _words(text)
    return list(dict.fromkeys([name_key(text), *words[:4], *words[4:][-3:]])) if words else []


def _stored_prefixes(word: str) -> list[str]:
    sizes = _sizes(word)
    return [word[:size] for size in sizes if len(word) >= size] or [word]


def _sizes(word: str) -> tuple[int, int]:
    return (1, 2) if is_cjk(word) else (3, 6)


def _most_telling(words: list[str]) -> str:
    return max(words, key=lambda word: len(word) / _sizes(word)[0])


def _begins(word: str, key: str) -> bool:
    return word.startswith(key) if len(key) >= _sizes(key)[0] else word == key
