"""The Flask peer: the document in memory, with Flask's own ETag and conditional response."""

from __future__ import annotations

import hashlib
import importlib
import os
from pathlib import Path
from typing import Any

# Imported by name so that type checking the bench does not require Flask, which only this peer needs.
flask: Any = importlib.import_module("flask")

BODY = Path(os.environ["BENCH_DOCUMENT"]).read_bytes()
ETAG = hashlib.sha256(BODY).hexdigest()[:16]

app = flask.Flask(__name__)


def state() -> Any:
    """Return the document, or 304 if the ETag matches."""
    response = flask.Response(BODY, mimetype="application/json")
    response.set_etag(ETAG)
    response.headers["Cache-Control"] = "public, max-age=1"
    return response.make_conditional(flask.request)


app.add_url_rule("/state.json", "state", state)
