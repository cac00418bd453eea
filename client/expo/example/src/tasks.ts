import { useCallback, useState } from 'react';

import { problem } from './words';

/** Does what a person asks for, one thing at a time. `error` says why the last one failed. */
export function useTask() {
  const [isBusy, setIsBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const run = useCallback(async (work: () => Promise<unknown>): Promise<void> => {
    setIsBusy(true);
    setError(null);
    try {
      await work();
    } catch (cause) {
      setError(problem(cause));
    }
    setIsBusy(false);
  }, []);
  return { isBusy, error, run };
}
