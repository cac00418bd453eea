// Chat apps with @supabase/supabase-js that do what the lines on the standard input say, and print what they see.
import { createInterface } from "node:readline";
import { createClient } from "@supabase/supabase-js";

const bytes = (payload) => (payload instanceof ArrayBuffer ? { hex: Buffer.from(payload).toString("hex") } : payload);

/** The commands of one app. */
function app(number, { url, key, options }) {
  const client = createClient(url, key, { auth: { persistSession: false }, ...options });
  const channels = new Map();
  const print = (line) => process.stdout.write(`${JSON.stringify({ client: number, ...line })}\n`);
  return {
    print,
    close: () => void client.realtime.disconnect(), // without its result: Phoenix waits 150 ms for the close
    async sign_up({ email, password }) {
      const { data, error } = await client.auth.signUp({ email, password });
      if (error) throw error;
      await client.realtime.setAuth();
      return data.session.access_token;
    },
    async join({ topic, config, rows, presence }) {
      const channel = client.channel(topic, { config });
      channels.set(topic, channel);
      for (const filter of rows)
        channel.on("postgres_changes", filter, ({ eventType, new: record, old, ...rest }) =>
          print({ kind: "row", topic, type: eventType, new: record, old, ...rest }),
        );
      channel.on("broadcast", { event: "*" }, ({ event, payload, meta }) =>
        print({ kind: "broadcast", topic, event, payload: bytes(payload), meta }),
      );
      channel.on("system", {}, (payload) => print({ kind: "system", topic, ...payload }));
      if (presence)
        for (const event of ["sync", "join", "leave"])
          channel.on("presence", { event }, ({ key }) =>
            print({ kind: "presence", topic, event, key, state: channel.presenceState() }),
          );
      channel.subscribe((status, error) => print({ kind: "status", topic, status, error: error?.message }));
    },
    send: ({ topic, event, payload, persist }) =>
      channels.get(topic).send({ type: "broadcast", event, payload, persist }),
    send_bytes: ({ topic, event, hex, persist }) =>
      channels.get(topic).send({
        type: "broadcast",
        event,
        payload: Uint8Array.from(Buffer.from(hex, "hex")).buffer,
        persist,
      }),
    send_unjoined: ({ topic, event, payload }) => client.channel(topic).send({ type: "broadcast", event, payload }),
    http_send: ({ topic, event, payload, private: isPrivate, persist }) =>
      client.channel(topic, { config: { private: isPrivate } }).httpSend(event, payload, { persist }),
    // Without the result, which never comes if the call closes the channel.
    track: ({ topic, payload }) => void channels.get(topic).track(payload),
    untrack: ({ topic }) => channels.get(topic).untrack(),
    leave: ({ topic }) => client.removeChannel(channels.get(topic)),
    set_auth: ({ token }) => client.realtime.setAuth(token),
    heartbeat: () =>
      new Promise((resolve) => {
        client.realtime.onHeartbeat((status) => status !== "sent" && resolve(status));
        client.realtime.sendHeartbeat();
      }),
  };
}

const apps = new Map();
for await (const line of createInterface({ input: process.stdin })) {
  const { client, id, command, ...parameters } = JSON.parse(line);
  if (command === "open") {
    apps.set(client, app(client, parameters));
    continue;
  }
  const { print, ...commands } = apps.get(client);
  Promise.resolve(commands[command](parameters)).then(
    (result) => print({ kind: "result", id, result: result ?? null }),
    (error) => print({ kind: "result", id, failure: String(error) }),
  );
}
process.exit(0);
