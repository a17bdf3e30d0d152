"""One live JSON document, fresh every second, for tens of thousands of readers."""

__version__ = "0.1.0"
