"""Receive Coffer's webhooks: this file, Python 3.11 and `pip install standardwebhooks` suffice.

    WEBHOOK_SECRET=whsec_… python receiver.py [PORT]

Each message is verified before it is read, and done once, however often it comes. Put it behind TLS: Coffer sends to
https alone.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

MOST_BYTES = 1 << 20
webhook = Webhook(os.environ["WEBHOOK_SECRET"])
done: set[str] = set()  # a real receiver keeps the ids of a week in its database, in the transaction of its work


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", "0"))
        if length > MOST_BYTES:
            return self.answer(413)
        body = self.rfile.read(length)
        try:
            message = webhook.verify(body, dict(self.headers))
        except WebhookVerificationError:
            return self.answer(400)
        if self.headers["webhook-id"] not in done:
            self.work(message)
            done.add(self.headers["webhook-id"])
        return self.answer(204)

    def work(self, message: dict[str, Any]) -> None:
        """Be quick: Coffer waits 15 seconds for the answer. Longer work belongs in a queue of your own."""
        print(json.dumps(message), flush=True)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """What is sent is personal data: it belongs in no log."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080), Receiver)
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()
