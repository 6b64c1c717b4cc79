// Publishes one invite and prints its reply.
//
//     npm install
//     INVITE_API_KEY=… node invite.js 111-000-0000 [MESSAGE_ID]

import { createHmac, randomUUID } from "node:crypto";
import amqp from "amqplib";

const { AMQP_URL = "amqp://guest:guest@127.0.0.1:5672/%2f", QUEUE_PREFIX = "session-invite" } = process.env;
const { INVITE_API_KEY, INVITE_GROUP = "72", INVITE_USER = "12345" } = process.env;
const [phone, messageId = randomUUID()] = process.argv.slice(2);

/** A GKEY: partnerid & partneruserid & $1$expiry$signature. The signed user is not URL-encoded. */
function loginKey(group, user, apiKey, seconds = 600) {
  const expiry = Math.floor(Date.now() / 1000) + seconds;
  const signature = createHmac("sha256", apiKey).update(`${group}${user}1${expiry}`).digest("base64url");
  return `${group}&${encodeURIComponent(user)}&$1$${expiry}$${signature}`;
}

const connection = await amqp.connect(AMQP_URL);
const channel = await connection.createConfirmChannel();
// The reply queue comes before the request. It is exclusive, so it is deleted with the connection.
const { queue: replyTo } = await channel.assertQueue("", { exclusive: true });
const reply = new Promise((resolve, reject) => {
  const late = `no reply in 30 s; publish again with the message id ${messageId} to get the outcome`;
  setTimeout(() => reject(new Error(late)), 30_000).unref();
  // The broker returns a mandatory message that no queue takes.
  channel.on("return", () => reject(new Error(`there is no queue ${QUEUE_PREFIX}.requests; is a worker running?`)));
  channel.consume(replyTo, (message) => {
    if (message?.properties.correlationId === messageId) resolve(JSON.parse(message.content));
  }, { noAck: true });
});

const body = {
  authorization: `Bearer GKEY ${loginKey(INVITE_GROUP, INVITE_USER, INVITE_API_KEY)}`,
  groupid: Number(INVITE_GROUP),
  sessiontype: 1,
  smsPhone: phone,
  sessionParams: { camera: "back", resolution: "352x288" },
};
channel.sendToQueue(`${QUEUE_PREFIX}.requests`, Buffer.from(JSON.stringify(body)), {
  messageId, // the idempotency key: a repeat gets the same session and sends no second text
  correlationId: messageId,
  replyTo,
  timestamp: Math.floor(Date.now() / 1000), // an invite older than 10 minutes is not texted
  contentType: "application/json",
  persistent: true,
  mandatory: true,
});
await channel.waitForConfirms(); // throws unless the broker has stored the message

const outcome = await reply;
console.log(JSON.stringify(outcome, null, 2));
await connection.close();
process.exitCode = outcome.status === "sent" ? 0 : 1;
