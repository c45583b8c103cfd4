"""Wake-ups over Redis, through django-redis: only this module knows of it.

A message says nothing, so nobody who can send one gains anything. Redis may be away, slow or empty:
hints are missing then, and workers find their work by looking.
"""

from __future__ import annotations

import logging
import select
import time
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from .calls import Seconds
from .conf import current
from .store.contract import Bell, Listener

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import PubSub

logger = logging.getLogger("django_tasksets")

# How long to wait for Redis: who enqueues waits as long.
TIMEOUT: Final[Seconds] = 0.5
# How long Redis is left alone after it has failed.
BREAK: Final[Seconds] = 10.0
# How many messages are one hint.
FLOOD: Final = 1000

_break_until = 0.0
# By the project's pool. To make one takes several times as long as to send a hint.
_clients: WeakKeyDictionary[Any, Redis] = WeakKeyDictionary()


def channel() -> str:
    """The name of the channel for hints."""
    return f"{current().REDIS_PREFIX}wake"


def publish() -> None:
    """Wake who listens, on any host. Never raises: a Redis that does not answer costs half a
    second, and is left alone for a while."""
    global _break_until
    if time.monotonic() < _break_until:
        return
    try:
        _client().publish(channel(), b"")
    except Exception as error:  # noqa: BLE001  a hint costs nobody more than the hint
        logger.warning("wake-up not sent error=%r", error)
        _break_until = time.monotonic() + BREAK


class RedisListener(Listener):
    """Waits for messages. While there is no Redis every poll interval is a hint."""

    def __init__(self) -> None:
        self._subscription: PubSub | None = None
        self._connect_at = 0.0

    def wait(self, timeout: Seconds, bell: Bell) -> bool:
        try:
            if self._subscription is None and time.monotonic() >= self._connect_at:
                self._subscribe()
            if self._subscription is not None:
                return self._hears(self._subscription, timeout, bell)
        except Exception as error:  # noqa: BLE001  as above
            logger.warning("wake-ups not heard error=%r", error)
            self.close()
            self._connect_at = time.monotonic() + BREAK
        timeout = min(timeout, current().POLL_INTERVAL)
        return not select.select([bell], [], [], timeout)[0]

    def _subscribe(self) -> None:
        self._subscription = _client().pubsub()
        self._subscription.subscribe(channel())

    def _hears(self, subscription: PubSub, timeout: Seconds, bell: Bell) -> bool:
        # That it has been subscribed is a message too: what came before was not heard.
        if _drain(subscription):
            return True
        socket: Any = subscription.connection
        readable = select.select([socket._sock, bell], [], [], timeout)[0]
        # What comes along with the first is a hint for the next wait.
        return socket._sock in readable and subscription.get_message(timeout=0) is not None

    def close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()


def _drain(subscription: PubSub) -> bool:
    """Take the messages that are there; whether there was one."""
    for number in range(FLOOD):
        if subscription.get_message(timeout=0) is None:
            return number > 0
    return True


def _client() -> Any:
    """A client of the project's Redis that does not wait for long."""
    from django_redis import get_redis_connection
    from redis import BlockingConnectionPool, Connection, ConnectionPool, Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as NotConnected
    from redis.retry import Retry

    client: Any = get_redis_connection(current().REDIS)
    pool = client.connection_pool
    # Sentinel's knows what it connects to from elsewhere: its timeouts are the project's.
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        return client
    if pool not in _clients:
        # Nobody else's waiting times, nor what redis-py notes about them for its own use.
        notes = ("orig_", "maint_notifications_")
        given = pool.connection_kwargs.items()
        options = {name: value for name, value in given if not name.startswith(notes)}
        options |= {
            "socket_timeout": TIMEOUT,
            # Once, if it was restarted since; not if it does not answer.
            "retry": Retry(NoBackoff(), 1, (NotConnected,)),
            "retry_on_error": [NotConnected],
            # The answer to one would hide the hint behind it.
            "health_check_interval": 0,
        }
        if issubclass(pool.connection_class, Connection):  # Not by a socket in the file system.
            options |= {"socket_connect_timeout": TIMEOUT, "socket_keepalive": True}
        ours = ConnectionPool(connection_class=pool.connection_class, **options)
        _clients[pool] = Redis(connection_pool=ours)
    return _clients[pool]
