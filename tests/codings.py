"""Decoders of content codings that share no code with livestate."""

import gzip
from collections.abc import Callable

import brotli
import zstandard

#: The decoder of each content coding.
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "identity": lambda data: data,
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}
