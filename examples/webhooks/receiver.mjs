// Receive Coffer's webhooks: this file, Node 20 and `npm install standardwebhooks` suffice.
//
//     WEBHOOK_SECRET=whsec_… node receiver.mjs [PORT]
//
// Each message is verified before it is read, and done once, however often it comes. Put it behind TLS: Coffer sends to
// https alone.

import { createServer } from "node:http";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const MOST_BYTES = 1 << 20;
const webhook = new Webhook(process.env.WEBHOOK_SECRET);
const done = new Set(); // a real receiver keeps the ids of a week in its database, in the transaction of its work

// Be quick: Coffer waits 15 seconds for the answer. Longer work belongs in a queue of your own.
const work = (message) => console.log(JSON.stringify(message));

const read = async (request) => {
  const parts = [];
  let length = 0;
  for await (const part of request) {
    length += part.length;
    if (length > MOST_BYTES) return null;
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
};

const server = createServer(async (request, response) => {
  const body = await read(request);
  if (body === null) return response.writeHead(413).end();
  try {
    const message = webhook.verify(body, request.headers);
    const id = request.headers["webhook-id"];
    if (!done.has(id)) {
      work(message);
      done.add(id);
    }
    return response.writeHead(204).end();
  } catch (error) {
    return response.writeHead(error instanceof WebhookVerificationError ? 400 : 500).end();
  }
});

server.listen(Number(process.argv[2] ?? 8080), "127.0.0.1", () => {
  console.log(`listening on ${server.address().port}`);
});
