"""JSON Merge Patch (RFC 7396): what must be sent to a reader who has one state for it to have the next.

A merge patch is itself JSON. An object in it says which members change; null says that a member goes. So it cannot say
that a member becomes null, and an array is always replaced as a whole.

Values are what a JSON parser gives. Numbers may be of any type that can be compared: `1`, `1.0` and `True` are three
different values here, whatever Python says, since a client may see the difference.
"""

from typing import Any

import msgspec

#: Gives the bytes of any two values of one kind that are to be compared as a whole, arrays above all.
_bytes_of = msgspec.json.Encoder().encode


class Inexpressible(ValueError):
    """The change cannot be written as a merge patch: a member would have to become null."""


def patch(before: Any, after: Any) -> Any:
    """Give the smallest merge patch that makes `after` of `before`.

    :raises Inexpressible: there is none.
    """
    if not isinstance(after, dict):
        return after
    if not isinstance(before, dict):
        _refuse_nulls(after)
        return after
    changes: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        if name not in before or not isinstance(value, dict):
            if name not in before or not _equal(before[name], value):
                if value is None:
                    raise Inexpressible(name)
                _refuse_nulls(value)
                changes[name] = value
            continue
        change = patch(before[name], value)
        # An empty object changes nothing in an object, and makes one of anything else.
        if change or not isinstance(before[name], dict):
            changes[name] = change
    return changes


def apply(target: Any, change: Any) -> Any:
    """Give what a merge patch makes of `target`, which stays as it is (RFC 7396 section 2)."""
    if not isinstance(change, dict):
        return change
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = apply(result.get(name), value)
    return result


def _equal(one: Any, other: Any) -> bool:
    """Tell whether two values that are not both objects are the same JSON."""
    if isinstance(one, list) and isinstance(other, list):
        # Equal in Python is not enough: [1] == [True] == [1.0].
        return one == other and _bytes_of(one) == _bytes_of(other)
    return type(one) is type(other) and bool(one == other)


def _refuse_nulls(value: Any) -> None:
    """See that no member of an object, or of the objects in it, is null; inside arrays null is as good as any value.

    :raises Inexpressible: one is.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            if inner is None:
                raise Inexpressible(name)
            _refuse_nulls(inner)
