// What the parts of a client share.

import { ChatError } from './errors.ts';
import type { ChatEvent } from './events.ts';
import type { Server } from './server.ts';
import type { Timing } from './settings.ts';
import type { Store } from './store.ts';
import { Signal } from './waiting.ts';

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

  /** A signal that also wakes its loop when the client is closed. */
  signal(): Signal {
    const signal = new Signal();
    this.#signals.add(signal);
    return signal;
  }

  close(): void {
    this.#closed = true;
    for (const signal of this.#signals) signal.set();
  }
}

type Log = (text: string) => void;

/** The `log` of the app, or that of the console. One that throws ends nothing. */
export function logOf(log: Log | undefined): Log {
  return (text) => {
    try {
      (log ?? console.warn)(text);
    } catch {
      // There is nobody else to tell.
    }
  };
}

/** An error for a log. Errors of others may quote what they were about. */
export function reasonOf(error: unknown): string {
  if (error instanceof ChatError) return error.message;
  return error instanceof Error ? error.name : typeof error;
}
