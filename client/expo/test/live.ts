// A WebSocket whose server is this file: it lets each client join any channel, and sends what a test wants to be sent.
// All clients of a test that imports it connect to it.

import type { Row } from '../src/models.ts';

type Frame = [joinRef: string | null, ref: string | null, topic: string, event: string, payload: unknown];

const open = new Set<LiveSocket>();
const joins = new Set<() => void>();

/** A client's end of a connection, as of the standard, as far as supabase-js uses it. */
class LiveSocket {
  readyState = 0;
  onopen: () => void = () => undefined;
  onmessage: (event: { data: string }) => void = () => undefined;
  onclose: (event: { code: number; reason: string; wasClean: boolean }) => void = () => undefined;
  readonly channels = new Map<string, string | null>();

  constructor() {
    queueMicrotask(() => {
      this.readyState = 1;
      open.add(this);
      this.onopen();
    });
  }

  send(data: string): void {
    const [joinRef, ref, topic, event] = JSON.parse(data) as Frame;
    if (event === 'phx_join') this.channels.set(topic, joinRef);
    this.receive([joinRef, ref, topic, 'phx_reply', { status: 'ok', response: {} }]);
    if (event === 'phx_join') for (const joined of joins) joined();
  }

  receive(frame: Frame): void {
    this.onmessage({ data: JSON.stringify(frame) });
  }

  close(): void {
    this.readyState = 3;
    open.delete(this);
    this.onclose({ code: 1000, reason: '', wasClean: true });
  }
}

Object.assign(globalThis, { WebSocket: LiveSocket });

/** Resolves when a client has joined the channel. */
export function joined(topic: string): Promise<void> {
  return new Promise((resolve) => {
    const look = () => {
      if (![...open].some(({ channels }) => channels.has(topic))) return;
      joins.delete(look);
      resolve();
    };
    joins.add(look);
    look();
  });
}

/** Sends an event of the database to all who have joined the channel. */
export function broadcast(topic: string, event: string, payload: Row): void {
  for (const socket of open) {
    const joinRef = socket.channels.get(topic);
    if (joinRef !== undefined) socket.receive([joinRef, null, topic, 'broadcast', { type: 'broadcast', event, payload }]);
  }
}

/** Tells all who have joined the channel that this person looks at its conversation. */
export function present(topic: string, userId: string): void {
  for (const socket of open) {
    const joinRef = socket.channels.get(topic);
    const payload = { [userId]: { metas: [{ phx_ref: '1' }] } };
    if (joinRef !== undefined) socket.receive([joinRef, null, topic, 'presence_state', payload]);
  }
}
