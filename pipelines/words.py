"""Counts as people read them."""


def say_count(number: int, noun: str, nouns: str = "") -> str:
    """Return a whole number and its noun: `1 window`, `2,000 windows`, `3 batches`.

    Args:
        number: how many.
        noun: of one.
        nouns: of several; by default with an `s` at the end.
    """
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"
