// Tells the server what has arrived on this device, and what the person has read. Marks wait in the local database.

import { Rejected } from './errors.ts';
import type { Parts } from './parts.ts';
import { backoff, type Signal } from './waiting.ts';

const BATCH = 500; // message ids in one call

/** Works while `run` runs. */
export class Marks {
  readonly #parts: Parts;
  readonly #changed: Signal;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#changed = parts.life.signal();
  }

  /** There may be new marks, or the server can be reached again. */
  wake(): void {
    this.#changed.set();
  }

  /** Sends marks until the client is closed. */
  async run(): Promise<void> {
    const { life, server, timing, failed } = this.#parts;
    let failures = 0;
    while (!life.isClosed()) {
      await this.#changed.wait(failures ? backoff(failures, timing) : null);
      // So that a burst of messages is one call.
      if (!failures && !life.isClosed()) await new Promise((resolve) => setTimeout(resolve, timing.marksDelay * 1000));
      this.#changed.clear();
      if (life.isClosed() || !server.session.signedIn) continue;
      try {
        await this.#send();
        failures = 0;
      } catch (error) {
        failures += 1;
        failed('marks were not sent', error);
      }
    }
  }

  async #send(): Promise<void> {
    const { store } = this.#parts;
    for (;;) {
      const arrived = await store.deliveredMarks(BATCH);
      if (!arrived.length) break;
      await this.#call('mark_messages_delivered', { p_message_ids: arrived });
      await store.removeDeliveredMarks(arrived);
    }
    for (const { conversationId, messageId } of await store.readMarks()) {
      await store.counting.take(async () => {
        await this.#call('mark_messages_read', { p_conversation_id: conversationId, p_up_to_message_id: messageId });
        await store.removeReadMark(conversationId, messageId);
      });
    }
  }

  async #call(name: string, values: Record<string, unknown>): Promise<void> {
    const { store, server, failed } = this.#parts;
    try {
      await server.rpc(name, { p_user_id: store.me, p_device_id: store.deviceId, ...values });
    } catch (error) {
      if (!(error instanceof Rejected)) throw error;
      failed('the server rejected marks', error); // such as of a message that was deleted for good since
    }
  }
}
