"""The broker, which only wakes workers: a message names a tenant and a job, and a lost one costs a moment.

RabbitMQ, Redis, or a queue in this process. The ledger is the truth, so there are no retries and no results here.
"""

import ssl
from collections.abc import Callable
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import dramatiq
import pika
import redis
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker

from tenants.jobs import JobId
from tenants.viewers import TenantId

QUEUE = "coffer"
MEMORY = "memory:"
_PATIENCE = 5  # seconds that one act on a socket may take
_WAKE = "wake"


def open_broker(url: str, *, queue: str = QUEUE, ca_file: str | None = None) -> dramatiq.Broker:
    """`url` is ``amqp(s)://``, ``redis(s)://`` or ``memory:``; nothing is connected yet.

    `queue` names the queue, and the keys in Redis, so that several installations share a server. `ca_file` is what the
    server's certificate is verified by; None: the system's. Raises ValueError for another kind of address.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("amqp", "amqps"):
        broker: dramatiq.Broker = _rabbitmq(url, ca_file)
    elif scheme in ("redis", "rediss"):
        broker = _redis(url, queue, ca_file)
    elif url == MEMORY:
        broker = StubBroker(middleware=[])
    else:
        raise ValueError("a broker's address begins with amqp, amqps, redis, rediss, or is memory:")
    return broker


def wake_by(
    broker: dramatiq.Broker, queue: str, wake: Callable[[TenantId, JobId], None]
) -> Callable[[TenantId, JobId], object]:
    """Declare on this broker what a message does; returns what sends one."""

    def told(tenant: str, job: str) -> None:
        wake(TenantId(UUID(tenant)), JobId(UUID(job)))

    actor = dramatiq.actor(broker=broker, actor_name=_WAKE, queue_name=queue)(told)
    return lambda tenant, job: actor.send(str(tenant), str(job))


def reach(broker: dramatiq.Broker) -> None:
    """Blocks; raises what the broker's own client raises where it does not answer."""
    if isinstance(broker, RabbitmqBroker):
        broker.connection  # noqa: B018  # connects on first use
    elif isinstance(broker, RedisBroker):
        broker.client.ping()


def close_broker(broker: dramatiq.Broker) -> None:
    """Within some seconds, even where the broker no longer answers its goodbye."""
    closing = Thread(target=broker.close, name="broker closing", daemon=True)
    closing.start()
    closing.join(_PATIENCE)


def _rabbitmq(url: str, ca_file: str | None) -> RabbitmqBroker:
    # confirmed, so that a message to a queue that has gone is noticed and the queue made again
    broker = RabbitmqBroker(url=url, middleware=[], confirm_delivery=True)
    parameters: Any = broker.parameters
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = _PATIENCE
    if urlsplit(url).scheme == "amqps":
        context = ssl.create_default_context(cafile=ca_file)
        parameters.ssl_options = pika.SSLOptions(context, parameters.host)
    return broker


def _redis(url: str, queue: str, ca_file: str | None) -> RedisBroker:
    tls: dict[str, Any] = {}
    if urlsplit(url).scheme == "rediss":
        tls = {"ssl_cert_reqs": "required", "ssl_check_hostname": True, "ssl_ca_certs": ca_file}
    client = redis.Redis.from_url(
        url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE, health_check_interval=30, **tls
    )
    return RedisBroker(client=client, middleware=[], namespace=queue)  # type: ignore[no-untyped-call]  # untyped there
