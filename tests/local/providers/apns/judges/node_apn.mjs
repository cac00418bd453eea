// Sends notifications with @parse/node-apn, one call of `send` after the other. Reads its orders as JSON from the first
// argument, and prints the results as JSON.
import apn from "@parse/node-apn";

const { host, port, ca, key, keyId, teamId, topic, calls } = JSON.parse(process.argv[2]);

const provider = new apn.Provider({ token: { key, keyId, teamId }, address: host, port, ca, requestTimeout: 3000 });
const results = [];
for (const { tokens, fields } of calls) {
  const { sent, failed } = await provider.send(new apn.Notification({ topic, ...fields }), tokens);
  results.push({
    sent: sent.map(({ device }) => device),
    failed: failed.map(({ device, status, response, error }) => ({ device, status, response, error: error?.message })),
  });
}
provider.shutdown();
console.log(JSON.stringify(results));
