"""Make the file names in the URLs of sources absolute.

twistd changes its working directory (`--rundir`) after livestate has started, and a source may read its files at any
time. So names are resolved once, when the options are read: against the directory in which livestate was started, also
at a reload.
"""

import dataclasses
import os
from urllib.parse import quote, unquote

from livestate.config.settings import Settings

#: The parameters that name files, of any kind of source that has its own parameters, in lower case.
_FILE_PARAMETERS = frozenset({"cafile", "certfile", "keyfile", "tlscafile", "tlscertificatekeyfile"})


def with_absolute_sources(settings: Settings) -> Settings:
    """Return settings whose sources do not depend on the working directory."""
    documents = (
        dataclasses.replace(document, source=absolute_source(document.source)) for document in settings.documents
    )
    return dataclasses.replace(settings, documents=tuple(documents))


def absolute_source(url: str) -> str:
    """Return the URL of a source with absolute file names, as seen from the working directory."""
    scheme, colon, rest = url.partition(":")
    if scheme.lower() == "file":
        relative = rest and rest[0] not in "/?#"
        return f"{scheme}:{_prefix()}{rest}" if relative else url
    if scheme.lower() in ("http", "https"):
        return url  # its query belongs to the server
    before, mark, query = rest.partition("?")
    query, number_sign, fragment = query.partition("#")
    parameters = "&".join(map(_absolute_parameter, query.split("&")))
    return f"{scheme}{colon}{before}{mark}{parameters}{number_sign}{fragment}"


def _absolute_parameter(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if name.lower() not in _FILE_PARAMETERS or not value or os.path.isabs(unquote(value)):
        return pair
    return f"{name}{equals}{_prefix()}{value}"


def _prefix() -> str:
    """Return the working directory as the beginning of a path in a URL."""
    return quote(os.getcwdb().rstrip(b"/") + b"/")
