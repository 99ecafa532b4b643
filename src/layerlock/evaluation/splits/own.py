"""The splits that a data set comes with: folders or lists called train, val or test."""

from __future__ import annotations

import os
import re

ROLES = {"train": "train|training", "validation": "validation|validate|valid|val", "test": "test|testing"}
"""what a split may be called: a folder exactly so, a list so or with something before it, `k700_val.csv`"""
LISTS = (".csv", ".jsonl", ".parquet", ".txt", ".json")
"""endings of lists; of several lists of one split the first is read"""


def own_splits(data: str) -> dict[str, str]:
    """The path of each split by its role; `data` itself as the training split where there are not at least two.

    A list goes before a folder of the same name, which holds its videos.
    """
    paths: dict[str, tuple[int, str]] = {}
    for name in sorted(os.listdir(data)) if os.path.isdir(data) else ():
        path = os.path.join(data, name)
        for role, words in ROLES.items():
            rank = _rank(path, name, words)
            if rank is not None and (role not in paths or rank < paths[role][0]):
                paths[role] = (rank, path)
    if "train" not in paths or len(paths) < 2:
        return {"train": data}
    return {role: path for role, (_, path) in paths.items()}


def _rank(path: str, name: str, words: str) -> int | None:
    """How soon an entry is taken for a split of these names, None where it is not."""
    stem, ending = os.path.splitext(name.lower())
    if os.path.isdir(path):
        return len(LISTS) if re.fullmatch(words, name.lower()) else None
    return LISTS.index(ending) if ending in LISTS and re.fullmatch(f"(.*[-_.])?({words})", stem) else None
