"""Names of files, categories and columns: which split they mean, and how they are shown to people."""

from __future__ import annotations

import unicodedata

__all__ = ["list_text", "printable_name", "split_of_folder", "split_of_stem", "split_of_word"]

# One vocabulary of splits, for folders, files, arrays and the hub; in any case.
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}

FILLER_WORDS = frozenset({"set", "split", "data", "images", "image", "imgs", "img", "pictures"})

# Controls, halves of a character, and marks that turn the direction of writing.
UNPRINTABLE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})

DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable_name(name: str) -> str:
    r"""A name in which what cannot be printed is escaped.

    Args:
        name: A name, as the file system or a table has it. Bytes that are not UTF-8 are lone surrogates in it.

    Returns:
        The same name where all of it can be printed.

    Example:
        >>> printable_name("chat noir.png")
        'chat noir.png'
        >>> print(printable_name("caf\udce9.png"))
        caf\xe9.png
    """
    if name.isascii() and name.isprintable():
        return name
    return "".join(_printable_character(character) for character in name)


def _printable_character(character: str) -> str:
    if unicodedata.category(character) not in UNPRINTABLE_CATEGORIES and character not in DIRECTION_MARKS:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def list_text(names: list[str] | tuple[str, ...], limit: int = 5) -> str:
    """The first few names, and a sign that there are more."""
    return ", ".join(names[:limit]) + (" ..." if len(names) > limit else "")


def split_of_word(word: str) -> str | None:
    """The split (train, validation or test) that a word names, or None."""
    return SPLIT_WORDS.get(word.strip().lower())


def split_of_folder(name: str) -> str | None:
    """The split that the name of a folder says: `Training`, `val`, `test_images`.

    Example:
        >>> split_of_folder("Training"), split_of_folder("test-set"), split_of_folder("bullet train")
        ('train', 'test', None)
    """
    words = [word for word in _words(name) if word not in FILLER_WORDS]
    return split_of_word(words[0]) if len(words) == 1 else None


def split_of_stem(stem: str) -> str | None:
    """The split that the name of a file says: `val`, `dev-00000-of-00001`, `flowers_train`.

    Example:
        >>> split_of_stem("dev-00000-of-00001"), split_of_stem("flowers_train"), split_of_stem("flowers")
        ('validation', 'train', None)
    """
    words = _words(stem)
    while len(words) > 1 and (words[-1].isdigit() or words[-1] == "of" or len(words[-1]) >= 16):
        words.pop()  # the number of a shard, or its hash
    if not words:
        return None
    return split_of_word(words[0]) or split_of_word(words[-1])


def _words(name: str) -> list[str]:
    separated = "".join(character if character.isalnum() else " " for character in name.lower())
    return separated.split()
