// The part of react that docs/client/usePush.ts uses: components that are mounted once and not drawn again.

export function useEffect(effect: () => void | (() => void)): void {
  cleanUps.push(effect() ?? (() => {}));
}

/** Each state that a component sets goes to `states`. */
export function useState<S>(): [S | undefined, (state: S) => void] {
  return [undefined, (state) => void states.push(state)];
}

export const states: unknown[] = [];

const cleanUps: (() => void)[] = [];

/** Unmounts all components. */
export function unmount(): void {
  cleanUps.splice(0).forEach((cleanUp) => cleanUp());
}
