"""A receiver in Python: verifies each event with standardwebhooks, and answers an incoming message with an INSERT."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, HTTPServer

import psycopg
from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["SECRET"])


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            event = webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
        except WebhookVerificationError:
            self.answer(400)
            return
        if event["type"] == "message.received":
            with psycopg.connect(os.environ["DSN"]) as connection:
                connection.execute(
                    "INSERT INTO shardd.jobs (reply_to, body, class, dedupe_key) VALUES (%s, %s, 'reply', %s)",
                    (event["data"]["id"], f"Python heard: {event['data']['text']}", self.headers["webhook-id"]),
                )
        self.answer(204)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()


server = HTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_address[1], flush=True)  # noqa: T201 - the test reads it
server.serve_forever()
