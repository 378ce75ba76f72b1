"""YAML text as plain data, with a key given twice refused."""

from collections.abc import Hashable
from typing import Any

import yaml


def load_document(text: str) -> object:
    """Return what a YAML text says, as plain data.

    Raises:
        yaml.YAMLError: it is not valid, or gives a key twice.
    """
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader


class _StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice, which YAML would quietly let win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping",
                    node.start_mark,
                    "a key is a mapping itself: put quotes around {{…}}",
                    key_node.start_mark,
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping",
                    node.start_mark,
                    f"{key!r} stands there twice",
                    key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# A bare `=`, as in `comparator: =`, has a tag of its own in YAML 1.1; here it is just text.
yaml.add_constructor(
    "tag:yaml.org,2002:value", yaml.SafeLoader.construct_yaml_str, Loader=_StrictLoader
)
