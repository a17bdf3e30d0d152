"""A MongoDB document as JSON.

Keys are in the order they are stored in, without the top-level `_id`, which names the document in the store
and is no part of its content. ObjectId is its hex string, a date is RFC 3339 in UTC, binary data is base64 and a UUID
its text. Decimal128 is a string: as a JSON number most readers would round it to a double, and decimals are stored
where that must not be. Int64 is a number, exact here, though JavaScript rounds it from 2**53. NaN and the infinities,
which JSON has not, are null, as in JavaScript's JSON.stringify. The rest (regular expression, timestamp, code, DBRef,
MinKey, MaxKey, dates beyond the year 9999) takes the form of MongoDB's relaxed extended JSON, `{"$timestamp": …}`.
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

#: How documents are to be decoded for `to_json`.
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)


def _plain(value: Any) -> Any:
    """Give what msgspec can write for a BSON type that it does not know."""
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


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def to_json(document: Mapping[str, Any]) -> bytes:
    """Write a decoded BSON document as compact UTF-8 JSON, as this module's docstring says.

    :raises ValueError: it holds bits that stand for no value of their type.
    """
    return _encoder.encode(document)
