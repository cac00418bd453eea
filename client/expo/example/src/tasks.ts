import { useCallback, useState } from 'react';

import { problem } from './words';

/** Does what a person asks for, one thing at a time. `run` resolves with whether it was done; `error` says why the last one was not; `fail` sets it. */
export function useTask() {
  const [isBusy, setIsBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const fail = useCallback((cause: unknown) => setError(problem(cause)), []);
  const run = useCallback(async (work: () => Promise<unknown>): Promise<boolean> => {
    setIsBusy(true);
    setError(null);
    try {
      await work();
      return true;
    } catch (cause) {
      fail(cause);
      return false;
    } finally {
      setIsBusy(false);
    }
  }, [fail]);
  return { isBusy, error, fail, run };
}
