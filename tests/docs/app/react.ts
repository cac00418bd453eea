// The part of react that docs/client/usePush.ts uses: components that are mounted once, and stay.

export function useEffect(effect: () => void | (() => void), _: unknown[]): void {
  cleanUps.push(effect() ?? (() => {}));
}

/** A component is not drawn again here: what it sets goes to `states`. */
export function useState<S>(): [S | undefined, (state: S) => void] {
  return [undefined, (state) => void states.push(state)];
}

export const states: unknown[] = [];

const cleanUps: (() => void)[] = [];

/** Whatever was mounted goes. */
export function unmount(): void {
  cleanUps.splice(0).forEach((cleanUp) => cleanUp());
}
