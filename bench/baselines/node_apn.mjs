// Baseline: @parse/node-apn with one connection, without a database. Protocol: see firebase.py.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import apn from "@parse/node-apn";

const service = JSON.parse(process.argv[2]);
const url = new URL(service.url);
const token = { key: service.key, keyId: service.key_id, teamId: service.team_id };
const provider = new apn.Provider({
  token,
  address: url.hostname,
  port: Number(url.port),
  ca: readFileSync(service.authority),
});

for await (const line of createInterface({ input: process.stdin })) {
  const answers = await Promise.all(
    JSON.parse(line).map(({ token, message }) => {
      const alert = { title: "Tina", body: message };
      return provider.send(new apn.Notification({ topic: service.topic, pushType: "alert", alert }), token);
    }),
  );
  const failed = answers.flatMap((answer) => answer.failed);
  if (failed.length) throw new Error(`failed: ${JSON.stringify(failed.slice(0, 3))}`);
  console.log("done");
}
