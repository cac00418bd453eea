// Baseline: what a hand-written Edge Function does for each webhook, with supabase-js and expo-server-sdk.
//
// The messages of a batch are handled in parallel, like concurrent requests of one process.
// The protocol of standard input and output is that of sequential.py.

import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

const options = { "supabase-url": { type: "string" }, "secret-key": { type: "string" }, "expo-url": { type: "string" } };
const { values } = parseArgs({ options: { ...options, help: { type: "boolean" } } });
if (values.help || Object.keys(options).some((name) => !values[name])) {
  console.log("usage: node bench/baselines/node.mjs --supabase-url URL --secret-key KEY --expo-url URL");
  process.exit(values.help ? 0 : 2);
}

process.env.EXPO_BASE_URL = values["expo-url"]; // the SDK reads it when it is imported
const { Expo } = await import("expo-server-sdk");
const { createClient } = await import("@supabase/supabase-js");
const supabase = createClient(values["supabase-url"], values["secret-key"], { auth: { persistSession: false } });
const expo = new Expo();

function rows({ data, error }) {
  if (error) throw error;
  return data;
}

async function handle(message) {
  const { recipient_id: recipient, room_id: room } = message;
  const presence = rows(
    await supabase
      .from("user_presence")
      .select("is_online, current_conversation_id")
      .eq("user_id", recipient)
      .maybeSingle(),
  );
  if (presence?.is_online && presence?.current_conversation_id === room) return;
  const [devices, sender, rooms] = (
    await Promise.all([
      supabase.from("user_devices").select("push_token").eq("user_id", recipient).eq("is_active", true),
      supabase.from("users").select("display_name").eq("id", message.sender_id).single(),
      supabase
        .from("chat_rooms")
        .select("user1_id, unread_count_user1, unread_count_user2")
        .or(`user1_id.eq.${recipient},user2_id.eq.${recipient}`),
    ])
  ).map(rows);
  const badge = rooms.reduce(
    (total, { user1_id, unread_count_user1, unread_count_user2 }) =>
      total + (user1_id === recipient ? unread_count_user1 : unread_count_user2),
    0,
  );
  const notifications = devices
    .filter(({ push_token }) => Expo.isExpoPushToken(push_token))
    .map(({ push_token }) => ({
      to: push_token,
      title: sender.display_name,
      body: message.message,
      data: { conversationId: room, messageId: message.id, senderId: message.sender_id, type: "chat_message" },
      sound: "default",
      badge,
      channelId: "chat-messages",
    }));
  for (const chunk of expo.chunkPushNotifications(notifications)) {
    for (const ticket of await expo.sendPushNotificationsAsync(chunk)) {
      if (ticket.status === "error") throw new Error(ticket.message);
    }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  await Promise.all(JSON.parse(line).map(handle));
  console.log("done");
}
