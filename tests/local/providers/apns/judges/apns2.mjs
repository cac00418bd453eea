// Sends notifications with apns2, one call of `sendMany` after the other. Reads its orders as JSON from the first
// argument, and prints the results as JSON.
import { ApnsClient, Notification } from "apns2";

const { host, key: signingKey, keyId, teamId: team, topic: defaultTopic, calls } = JSON.parse(process.argv[2]);

const client = new ApnsClient({ host, team, keyId, signingKey, defaultTopic });
const results = [];
for (const { tokens, options } of calls) {
  const answers = await client.sendMany(tokens.map((token) => new Notification(token, options)));
  results.push(
    answers.map(({ error }) => (error ? { status: error.statusCode, response: error.response, error: error.message } : {})),
  );
}
await client.destroy();
console.log(JSON.stringify(results));
