"""Names of files, folders and columns: which split they mean."""

from __future__ import annotations

from collections.abc import Iterable

from vaelab.core.console import shown

__all__ = [
    "MAX_NAME_SHOWN",
    "SPLIT_WORDS",
    "agree",
    "list_text",
    "split_of_folder",
    "split_of_stem",
    "split_of_word",
    "splits_of_siblings",
]

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


MAX_NAME_SHOWN = 60  # characters of each name in a list


def list_text(names: Iterable[object], limit: int = 5) -> str:
    """The first few names as messages show them, and a sign that there are more.

    Example:
        >>> list_text(["cat", "dog", "cow"], 2)
        'cat, dog ...'
    """
    names = list(names)
    return ", ".join(shown(name, MAX_NAME_SHOWN) for name in names[:limit]) + (" ..." if len(names) > limit else "")


def agree(count: int, singular: str, plural: str) -> str:
    """The form of a verb that goes with a count.

    Example:
        >>> agree(1, "is", "are"), agree(2, "is", "are")
        ('is', 'are')
    """
    return singular if count == 1 else plural


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


def splits_of_siblings(names: Iterable[str]) -> dict[str, str]:
    """The splits that folders beside each other say: alone, or all with the same words around them.

    Args:
        names: The names of the folders.

    Returns:
        The split of each folder that says one.

    Example:
        >>> splits_of_siblings(["seg_train", "seg_test"])
        {'seg_test': 'test', 'seg_train': 'train'}
        >>> splits_of_siblings(["red_train", "blue_test"])
        {}
    """
    names = sorted(names)
    splits = {name: split for name in names if (split := split_of_folder(name)) is not None}
    if splits or len(names) < 2:
        return splits
    for position in (-1, 0):
        splits, others = {}, set()
        for name in names:
            words = _words(name) or [""]
            split = split_of_word(words.pop(position))
            others.add(tuple(words))
            if split is not None:
                splits[name] = split
        if len(splits) == len(names) and len(others) == 1 and len(set(splits.values())) > 1:
            return splits
    return {}


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
