"""Wake-ups over Redis: heard soon, worth nothing to who sends them, missed by nobody."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from django_tasksets import redis
from django_tasksets.redis import RedisListener, publish
from django_tasksets.store import get_store
from django_tasksets.wakeups import LocalBell, PollListener, can_wake, listen, patience, wake

if TYPE_CHECKING:
    from pytest_django.fixtures import Settings

SOON = 5.0
INTERVAL = 0.05


@pytest.fixture(autouse=True)
def _on_redis(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.TASKSETS = settings.TASKSETS | {
        "REDIS": "redis", "WAKEUPS": "redis", "POLL_INTERVAL": INTERVAL,
    }  # fmt: skip
    monkeypatch.setattr(redis, "_break_until", 0.0)


@pytest.fixture
def bell() -> LocalBell:
    return LocalBell()


@pytest.fixture
def listener(requires_redis: None, bell: LocalBell) -> Iterator[RedisListener]:
    listener = RedisListener()
    # What came before it had subscribed it has not heard: it is to look.
    assert listener.wait(SOON, bell)
    yield listener
    listener.close()


def cache_at(settings: Settings, where: int | str, name: str) -> None:
    """Let REDIS be a cache at this port, or this address."""
    where = f"redis://127.0.0.1:{where}/0" if isinstance(where, int) else where
    settings.CACHES = settings.CACHES | {name: settings.CACHES["redis"] | {"LOCATION": where}}
    settings.TASKSETS = settings.TASKSETS | {"REDIS": name}


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_what_is_published_is_heard_soon(listener: RedisListener, bell: LocalBell) -> None:
    for _ in range(5):
        timer = threading.Timer(0.02, publish)
        timer.start()
        assert listener.wait(SOON, bell)
        timer.join()
    assert not listener.wait(0.05, bell)


def test_what_came_between_two_waits_is_heard(listener: RedisListener, bell: LocalBell) -> None:
    publish()

    assert listener.wait(SOON, bell)


def test_the_bell_ends_the_wait(listener: RedisListener, bell: LocalBell) -> None:
    bell.ring()

    assert not listener.wait(SOON, bell)


def test_a_message_is_a_hint_whatever_it_says(listener: RedisListener, bell: LocalBell) -> None:
    client = redis._client()
    for message in (b"", b"\x80\x04.", b"x" * 100_000, "'; DROP TABLE x; --"):
        client.publish(redis.channel(), message)
        assert listener.wait(SOON, bell)
    # A flood is one hint, or a few.
    for _ in range(2_000):
        client.publish(redis.channel(), b"flood")
    heard = 0
    while listener.wait(0.1, bell):
        heard += 1
    assert 1 <= heard < 100


def test_another_prefix_is_another_channel(
    listener: RedisListener, bell: LocalBell, settings: Settings
) -> None:
    settings.TASKSETS = settings.TASKSETS | {"REDIS_PREFIX": "somebody-else:"}
    publish()

    assert not listener.wait(0.1, bell)


def test_the_projects_own_connections_are_left_alone(requires_redis: None) -> None:
    from django_redis import get_redis_connection

    own = get_redis_connection("redis").connection_pool
    before = dict(own.connection_kwargs)

    ours = redis._client().connection_pool

    assert ours.connection_kwargs["socket_timeout"] == redis.TIMEOUT
    assert redis._client().connection_pool is ours is not own
    assert redis._client() is redis._client()
    assert own.connection_kwargs == before


# Away


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_without_redis_every_interval_is_a_hint(
    settings: Settings, free_port: int, bell: LocalBell, caplog: pytest.LogCaptureFixture
) -> None:
    cache_at(settings, free_port, "away")
    listener = RedisListener()

    assert seconds(lambda: listener.wait(SOON, bell)) < SOON
    assert listener.wait(SOON, bell)
    bell.ring()
    assert not listener.wait(SOON, bell)
    # It is not asked each time whether it is back.
    assert caplog.text.count("wake-ups not heard") == 1


def test_who_enqueues_does_not_wait_for_redis(
    settings: Settings, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache_at(settings, free_port, "slow")
    with socket.create_server(("127.0.0.1", free_port)):  # It says nothing.
        assert seconds(publish) < 3 * redis.TIMEOUT
        assert seconds(publish) < redis.TIMEOUT / 10
    assert caplog.text.count("wake-up not sent") == 1


class Server:
    """A Redis of the test's own."""

    def __init__(self, port: int, directory: Path) -> None:
        self.socket = directory / "redis.sock"
        self._command = [
            "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
            "--dir", str(directory), "--unixsocket", str(self.socket),
        ]  # fmt: skip
        self._port = port
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.02)

    def has_listener(self) -> bool:
        with Redis(port=self._port) as client:
            ((_, count),) = client.pubsub_numsub(redis.channel())
        return bool(count)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


needs_server = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="there is no redis-server"
)


@needs_server
def test_it_may_be_behind_a_socket_in_the_file_system(
    settings: Settings, free_port: int, tmp_path: Path, bell: LocalBell
) -> None:
    server = Server(free_port, tmp_path)
    try:
        cache_at(settings, f"unix://{server.socket}", "local")
        listener = RedisListener()
        assert listener.wait(SOON, bell)
        publish()
        assert listener.wait(SOON, bell)
        assert not listener.wait(2 * INTERVAL, bell)
        listener.close()
    finally:
        server.stop()


def test_what_is_wrong_with_it_costs_nobody_more_than_the_hint(
    settings: Settings, bell: LocalBell, caplog: pytest.LogCaptureFixture
) -> None:
    # Not a cache of django-redis.
    settings.TASKSETS = settings.TASKSETS | {"REDIS": "default"}

    publish()

    assert RedisListener().wait(SOON, bell)
    assert caplog.text.count("NotImplementedError") == 2


@needs_server
def test_a_redis_that_was_restarted_is_listened_to_again(
    settings: Settings,
    free_port: int,
    tmp_path: Path,
    bell: LocalBell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis, "BREAK", 0.2)
    cache_at(settings, free_port, "restarted")
    server = Server(free_port, tmp_path)
    try:
        listener = RedisListener()
        assert listener.wait(SOON, bell)
        publish()
        assert listener.wait(SOON, bell)
        server.stop()
        assert listener.wait(SOON, bell)  # It looks, as it hears nothing.
        publish()
        server.start()
        until = time.monotonic() + SOON
        while not server.has_listener():
            assert time.monotonic() < until
            listener.wait(INTERVAL, bell)
        # The subscription is a message, which may still be unread.
        while listener.wait(INTERVAL, bell):
            assert time.monotonic() < until
        monkeypatch.setattr(redis, "_break_until", 0.0)
        publish()
        assert listener.wait(SOON, bell)
        listener.close()
    finally:
        server.stop()


# Which


@pytest.mark.parametrize(
    ("asked", "alias", "hears", "is_redis", "may_wake"),
    [
        ("auto", None, True, False, True),
        ("auto", None, False, False, False),
        ("auto", "redis", True, False, True),
        ("auto", "redis", False, True, True),
        ("notify", "redis", True, False, True),
        ("notify", "redis", False, False, False),
        ("redis", "redis", True, True, True),
        ("redis", "redis", False, True, True),
        ("off", "redis", True, False, False),
        ("off", "redis", False, False, False),
    ],
)
def test_hints_come_from_the_database_or_else_from_redis(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    alias: str | None,
    hears: bool,
    is_redis: bool,
    may_wake: bool,
) -> None:
    settings.TASKSETS = {"WAKEUPS": asked, "REDIS": alias}
    store, theirs, woken = get_store(), PollListener(), []
    changes: dict[str, Any] = {
        "hears": hears,
        "listen": lambda: theirs if hears else None,
        "can_notify": lambda: hears,
        "notify": lambda queues: woken.append("database"),
    }
    for name, value in changes.items():
        monkeypatch.setattr(store, name, value)
    monkeypatch.setattr(redis, "publish", lambda: woken.append("redis"))

    found = listen(store)
    wake(store, ["default"])

    assert isinstance(found, RedisListener) == is_redis
    assert (found is theirs) == (hears and not is_redis and asked != "off")
    assert can_wake(store) == may_wake
    assert woken == ([] if not may_wake else ["redis" if is_redis else "database"])
    assert (patience(store) > 1) == may_wake
