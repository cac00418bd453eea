// Waiting: for a signal or a time, and between attempts.

/** Wakes one loop. A signal that is set while nobody waits is kept. */
export class Signal {
  #isSet = false;
  #wake: (() => void) | null = null;

  set(): void {
    this.#isSet = true;
    this.#wake?.();
  }

  clear(): void {
    this.#isSet = false;
  }

  /** Waits until it is set, or the time is over. null: until it is set. */
  async wait(seconds: number | null = null): Promise<void> {
    if (this.#isSet) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (seconds !== null) timer = setTimeout(resolve, seconds * 1000);
    });
    clearTimeout(timer);
    this.#wake = null;
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
 * Seconds to wait after this many failed attempts in a row: doubling up to `cap`, less up to a half by chance.
 *
 * Without chance, all clients would come back at once after an outage.
 */
export function backoff(attempts: number, base: number, cap: number): number {
  return Math.min(cap, base * 2 ** Math.min(attempts - 1, 30)) * (0.5 + Math.random() / 2);
}
