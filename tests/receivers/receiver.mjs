// A receiver in Node: verifies each event with standardwebhooks, and answers an incoming message with an INSERT.
import http from "node:http";
import pg from "pg";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.SECRET);
const database = new pg.Pool({ host: process.env.PGHOST, user: process.env.PGUSER, database: process.env.PGDATABASE });

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let event;
  try {
    event = webhook.verify(Buffer.concat(chunks).toString("utf8"), request.headers);
  } catch {
    response.writeHead(400).end();
    return;
  }
  if (event.type === "message.received") {
    await database.query(
      "INSERT INTO shardd.jobs (reply_to, body, class, dedupe_key) VALUES ($1, $2, 'reply', $3)",
      [event.data.id, `Node heard: ${event.data.text}`, request.headers["webhook-id"]],
    );
  }
  response.writeHead(204).end();
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
