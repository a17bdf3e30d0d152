"""Content codings, undone without livestate."""

import gzip
from collections.abc import Callable

import brotli
import zstandard

#: What undoes each content coding.
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "identity": lambda data: data,
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}
