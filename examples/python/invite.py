"""Publishes one invite and prints its reply.

    pip install 'pika>=1.3,<2'
    INVITE_API_KEY=… python3 invite.py 111-000-0000 [MESSAGE_ID]
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
import uuid
from urllib.parse import quote

import pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
REQUESTS = os.environ.get("QUEUE_PREFIX", "session-invite") + ".requests"
GROUP = int(os.environ.get("INVITE_GROUP", "72"))
USER = os.environ.get("INVITE_USER", "12345")


def login_key(group: int, user: str, api_key: str, seconds: int = 600) -> str:
    """A GKEY: partnerid & partneruserid & $1$expiry$signature. The signed user is not URL-encoded."""
    expiry = str(int(time.time()) + seconds)
    mac = hmac.new(api_key.encode(), f"{group}{user}1{expiry}".encode(), hashlib.sha256)
    signature = base64.urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()
    return f"{group}&{quote(user, safe='')}&$1${expiry}${signature}"


def invite(channel, phone: str, message_id: str) -> dict:
    replies = {}
    # The consumer for replies comes before the request. RabbitMQ's direct reply-to needs no queue.

    def take(_channel, _method, properties, body):
        replies[properties.correlation_id] = body

    channel.basic_consume("amq.rabbitmq.reply-to", take, auto_ack=True)
    body = {
        "authorization": "Bearer GKEY " + login_key(GROUP, USER, os.environ["INVITE_API_KEY"]),
        "groupid": GROUP,
        "sessiontype": 1,
        "smsPhone": phone,
        "sessionParams": {"camera": "back", "resolution": "352x288"},
    }
    properties = pika.BasicProperties(
        message_id=message_id,  # the idempotency key: a repeat gets the same session and sends no second text
        correlation_id=message_id,
        reply_to="amq.rabbitmq.reply-to",
        timestamp=int(time.time()),  # an invite older than 10 minutes is not texted
        content_type="application/json",
        delivery_mode=pika.DeliveryMode.Persistent,
    )
    channel.confirm_delivery()  # from now on, a publish raises unless the broker has stored the message
    channel.basic_publish("", REQUESTS, json.dumps(body).encode(), properties, mandatory=True)
    deadline = time.monotonic() + 30
    while message_id not in replies:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no reply in 30 s; publish again with the message id {message_id} to get the outcome")
        channel.connection.process_data_events(time_limit=1)
    return json.loads(replies[message_id])


with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
    reply = invite(connection.channel(), sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else str(uuid.uuid4()))
print(json.dumps(reply, indent=2, ensure_ascii=False))
sys.exit(0 if reply["status"] == "sent" else 1)
