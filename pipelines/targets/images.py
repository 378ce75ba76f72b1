"""Which images a service takes, and how many."""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.chat.example import DroppedError, Message

_DATA_URL = re.compile(r"data:image/([a-z0-9.+-]+);base64,")


@dataclass(frozen=True, slots=True)
class ImageRules:
    """What a service says about images; they come from the user in all of them.

    Attributes:
        formats: the part behind `image/` of a data URL.
        max_images: of one row; None where there is no limit.
        max_bytes: of one decoded image.
        links: whether https URLs are taken as well.
    """

    formats: frozenset[str]
    max_images: int | None
    max_bytes: int | None
    links: bool


def check_images(messages: Iterable[Message], rules: ImageRules) -> int:
    """Return how many images there are, or raise a DroppedError for the first that is refused."""
    images = 0
    for message in messages:
        if not isinstance(message["content"], list):
            continue
        urls = [part["image_url"]["url"] for part in message["content"] if "image_url" in part]
        if urls and message["role"] != "user":
            raise DroppedError("unsupported_content", f"image_url of {message['role']}")
        for url in urls:
            _check(url, rules)
        images += len(urls)
    if rules.max_images is not None and images > rules.max_images:
        raise DroppedError("over_limit", f"{images} images")
    return images


def _check(url: str, rules: ImageRules) -> None:
    if rules.links and url.startswith(("https://", "http://")):
        return
    found = _DATA_URL.match(url)
    if found is None:
        raise DroppedError("unsupported_content", "image_url without its data")
    if found[1] not in rules.formats:
        raise DroppedError("unsupported_content", f"image/{found[1]}")
    try:
        size = len(base64.b64decode(url[found.end() :], validate=True))
    except (binascii.Error, ValueError) as exc:  # not ASCII is a ValueError
        raise DroppedError("unsupported_content", "image_url that is no base64") from exc
    if rules.max_bytes is not None and size > rules.max_bytes:
        raise DroppedError("over_limit", f"an image of {size} bytes")
