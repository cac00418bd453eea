// Waiting: for a signal or a time, and between attempts.

import type { Timing } from './settings.ts';

/** Wakes one loop. A signal that is set while nobody waits is kept. */
export class Signal {
  #isSet = false;
  #wake = (): void => undefined;

  set(): void {
    this.#isSet = true;
    this.#wake();
  }

  clear(): void {
    this.#isSet = false;
  }

  /** Waits until it is set, or the time is over, and clears it. null: until it is set. */
  async wait(seconds: number | null = null): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      if (this.#isSet) resolve();
      this.#wake = resolve;
      if (seconds !== null) timer = setTimeout(resolve, seconds * 1000);
    });
    clearTimeout(timer);
    this.clear();
  }
}

/** Does one thing after the other. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Does `work` when all before it has ended. Returns what it returns, and throws what it throws. */
  take<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined); // the caller gets the error
    return result;
  }
}

/**
 * Seconds to wait after this many failed attempts in a row: doubling up to a limit, less up to a half by chance.
 *
 * Without chance, all clients would come back at once after an outage.
 */
export function backoff(attempts: number, { retryBase, retryCap }: Timing): number {
  return Math.min(retryCap, retryBase * 2 ** Math.min(attempts - 1, 30)) * (0.5 + Math.random() / 2);
}
