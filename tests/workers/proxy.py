"""What stands between workers and their server, and does to connections what networks do."""

from __future__ import annotations

import ctypes
import random
import re
import select
import socket
import struct
import threading
from contextlib import suppress
from typing import Any, Final

from django.db import connection

VARIABLES: Final = {"postgresql": "PGPORT", "mysql": "MYSQL_PORT"}
"""By the vendor: the environment variable that leads workers through a forwarder."""
# Not the READ COMMITTED with which a session begins.
COMMIT: Final = re.compile(rb"COMMIT(?!TED)")
# Of Linux: what a filter returns is how much of a packet the socket is given.
SO_ATTACH_FILTER: Final = 26
SO_DETACH_FILTER: Final = 27
NOTHING: Final = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))


class Forwarder:
    """Can be absent, can cut all connections, and can let everything disappear."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._open: list[socket.socket] = []
        self._is_up = False
        self._is_whole = threading.Event()
        self._is_whole.set()

    @property
    def environment(self) -> dict[str, str]:
        """With this, a worker comes through here."""
        return {VARIABLES[connection.vendor]: str(self.port)}

    def begin(self) -> None:
        self._is_up = True
        self._socket.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every connection; whoever tries again gets another one."""
        cut, self._open = self._open, []
        for one in cut:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def swallow(self) -> None:
        """Let everything disappear from now on, as a network does that is broken: no packet is
        acknowledged, no connection refused or closed."""
        self._is_whole.clear()
        # The listening one too: what is accepted from now on has its filter from it.
        for one in (self._socket, *self._open):
            with suppress(OSError):
                _deafen(one)

    def heal(self) -> None:
        """What is still being sent arrives, late."""
        for one in (self._socket, *self._open):
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        self._is_whole.set()

    @property
    def is_whole(self) -> bool:
        return self._is_whole.is_set()

    def end(self) -> None:
        self._is_up = False
        # Unlike close(), it wakes the thread that waits for the next one.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.cut()
        self._is_whole.set()

    def to_server(self, data: bytes, server: socket.socket) -> bool:
        """Pass it on; whether the connection is to go on."""
        self._is_whole.wait()
        server.sendall(data)
        return True

    def _accept(self) -> None:
        while self._is_up:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(client)
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._server) as server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client:
                        if not self.to_server(data, server):
                            client.shutdown(socket.SHUT_RDWR)
                            return
                    else:
                        self._is_whole.wait()
                        client.sendall(data)


class CuttingForwarder(Forwarder):
    """Now and then passes a statement on whose outcome the client is not told."""

    def __init__(
        self, host: str, port: int, marks: tuple[re.Pattern[bytes], ...], chance: float
    ) -> None:
        super().__init__(host, port)
        self._marks, self._chance = marks, chance
        self._random = random.Random(f"{marks}")
        self.cuts = 0

    def to_server(self, data: bytes, server: socket.socket) -> bool:
        server.sendall(data)
        if (
            not any(mark.search(data) for mark in self._marks)
            or self._random.random() > self._chance
        ):
            return True
        server.recv(65536)  # It has done what it was told to.
        self.cuts += 1
        return False


class SwallowingForwarder(Forwarder):
    """Breaks down at the worst moment: a transaction that has written `mark` holds its locks."""

    def __init__(self, host: str, port: int, mark: bytes) -> None:
        super().__init__(host, port)
        self._mark = mark
        self._marked: set[socket.socket] = set()
        self.is_armed = False

    def to_server(self, data: bytes, server: socket.socket) -> bool:
        if self.is_armed and self._mark in data:
            self._marked.add(server)
        if COMMIT.search(data) and server in self._marked:
            self.is_armed = False
            self._marked.clear()
            self.swallow()
        return super().to_server(data, server)


def place_of_the_server() -> tuple[str, int]:
    """Where the server is that this process works on."""
    settings: dict[str, Any] = connection.settings_dict
    return settings["HOST"], int(settings["PORT"])


def _deafen(one: socket.socket) -> None:
    one.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(NOTHING))
    )
