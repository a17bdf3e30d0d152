"""Live JSON documents, fresh every second, for tens of thousands of clients."""

__version__ = "0.1.0"
