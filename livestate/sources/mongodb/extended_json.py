"""Writing a MongoDB document as JSON.

Keys keep the order they are stored in. The top-level `_id` is left out, since it names the document in the store and is
not part of its content. The types of BSON that JSON does not have are written like this:

- An ObjectId is its hex string, a date is RFC 3339 in UTC, binary data is base64, and a UUID is its text.
- A Decimal128 is a string. Most JSON parsers would round a number to a double, and decimals are used where that must
  not happen.
- An Int64 is a number. It is exact here, but JavaScript rounds it from 2**53.
- NaN and the infinities are null, as in JavaScript's JSON.stringify.
- All others (regular expression, timestamp, code, DBRef, MinKey, MaxKey, dates beyond the year 9999) take the form of
  MongoDB's relaxed extended JSON, `{"$timestamp": …}`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from bson import json_util
from bson.binary import Binary, UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId

#: The options to decode documents with for `to_json`.
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)


def _convert(value: Any) -> Any:
    """Convert a BSON type that msgspec does not know into one that it does."""
    if isinstance(value, ObjectId):
        return str(value)
    if isinstance(value, Decimal128):
        try:
            return str(value)
        except ArithmeticError:
            raise ValueError("a Decimal128 with more than 34 digits") from None
    if isinstance(value, Int64):
        return int(value)
    if isinstance(value, Binary):
        return bytes(value)
    return json_util.default(value, json_util.RELAXED_JSON_OPTIONS)


_encoder = msgspec.json.Encoder(enc_hook=_convert)


def to_json(document: Mapping[str, Any]) -> bytes:
    """Return a decoded BSON document as compact UTF-8 JSON, in the form that the module's docstring describes.

    :raises ValueError: when the bits of a value are not valid for its type.
    """
    return _encoder.encode(document)
