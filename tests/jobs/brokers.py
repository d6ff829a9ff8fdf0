"""The brokers that tests may use: always the one in memory; RabbitMQ and Redis where the environment names them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import dramatiq
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import dq_name, xq_name

from jobs.brokers import MEMORY, open_broker

AMQP, REDIS = os.environ.get("COFFER_TEST_AMQP_URL"), os.environ.get("COFFER_TEST_REDIS_URL")
FAR = [
    pytest.param(AMQP, id="rabbitmq", marks=pytest.mark.skipif(not AMQP, reason="COFFER_TEST_AMQP_URL is not set")),
    pytest.param(REDIS, id="redis", marks=pytest.mark.skipif(not REDIS, reason="COFFER_TEST_REDIS_URL is not set")),
]
ALL = [pytest.param(MEMORY, id="memory"), *FAR]


@contextmanager
def fresh_queue(url: str) -> Iterator[str]:
    """The name of a queue that nobody else uses; it is gone afterwards."""
    name = f"coffer-test-{uuid4().hex[:12]}"
    try:
        yield name
    finally:
        broker = open_broker(url, queue=name)
        _forget(broker, name)
        broker.close()


def _forget(broker: dramatiq.Broker, name: str) -> None:
    if isinstance(broker, RabbitmqBroker):
        for each in (name, dq_name(name), xq_name(name)):
            broker.channel.queue_delete(each)
    elif isinstance(broker, RedisBroker):
        for key in broker.client.scan_iter(f"{name}*"):
            broker.client.delete(key)
