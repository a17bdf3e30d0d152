"""The set of public listeners, which a reload changes as a whole or not at all."""

from collections.abc import Callable
from pathlib import Path

from twisted.application.service import MultiService

from livestate.config.settings import Settings
from livestate.listeners.listener import Listener
from livestate.tls.certificate import Certificate


class Listeners(MultiService):
    """The listeners of `--http` and `--https`."""

    def __init__(self, make: Callable[[str, str, Path], Listener]) -> None:
        """Start with no listeners.

        :param make: returns a new Listener for an option, its strports string, and the directory that file names are
            relative to.
        """
        super().__init__()
        self._make = make
        # Later, twistd may change it.
        self._directory = Path.cwd()
        self._listeners: dict[tuple[str, str], Listener] = {}

    def all(self) -> list[Listener]:
        """Return the listeners in the order of the settings."""
        return list(self._listeners.values())

    def certificates(self) -> list[Certificate]:
        """Return the certificates of the TLS listeners."""
        return [listener.certificate for listener in self.all() if listener.certificate is not None]

    def prepare(self, settings: Settings) -> dict[tuple[str, str], Listener]:
        """Return the listeners that the settings name, reusing current ones and creating the rest.

        If this service is running, the new listeners listen already.

        :raises SettingsError: when a listener cannot be created or cannot listen. Then no new one listens.
        """
        wanted = [*(("--http", text) for text in settings.http), *(("--https", text) for text in settings.https)]
        prepared: dict[tuple[str, str], Listener] = {}
        try:
            for key in wanted:
                listener = prepared[key] = self._listeners.get(key) or self._make(*key, self._directory)
                if self.running and listener.port is None:
                    listener.listen()
        except BaseException:
            self.forget(prepared)
            raise
        return prepared

    def forget(self, prepared: dict[tuple[str, str], Listener]) -> None:
        """Close the new listeners that `prepare` returned."""
        for key, listener in prepared.items():
            if key not in self._listeners:
                listener.stopService()

    def change(self, prepared: dict[tuple[str, str], Listener]) -> None:
        """Use the listeners that `prepare` returned, and stop those that are no longer named."""
        previous, self._listeners = self._listeners, prepared
        for key, listener in previous.items():
            if key not in prepared:
                listener.disownServiceParent()
        for key, listener in prepared.items():
            if key not in previous:
                listener.setServiceParent(self)

    def close(self) -> None:
        """Stop all listeners."""
        self.change({})
