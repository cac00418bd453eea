// What the parts of a client share.

import type { ChatEvent } from './events.ts';
import type { Server } from './server.ts';
import type { Timing } from './settings.ts';
import type { Store } from './store.ts';
import type { Signal } from './waiting.ts';

/** `failed` says what went wrong in the background: to the app if it must act, else to the log. It never throws. */
export interface Parts {
  readonly store: Store;
  readonly server: Server;
  readonly timing: Timing;
  readonly attempts: number;
  readonly emit: (event: ChatEvent) => void;
  readonly failed: (what: string, error: unknown) => void;
  readonly life: Life;
}

/** Whether the client is open. Loops end when it is closed: each signal that one waits for is in `signals`. */
export class Life {
  readonly #signals = new Set<Signal>();
  #closed = false;

  /** Whether the client is closed. A method, because the answer may be another one after each `await`. */
  isClosed(): boolean {
    return this.#closed;
  }

  /** Wakes this signal when the client is closed. */
  wakes<T extends Signal>(signal: T): T {
    this.#signals.add(signal);
    return signal;
  }

  close(): void {
    this.#closed = true;
    for (const signal of this.#signals) signal.set();
  }
}
