// The part of react that docs/client/usePush.ts uses: components that are mounted once, and stay.

export function useEffect(effect: () => void | (() => void), _: unknown[]): void {
  cleanUps.push(effect() ?? (() => {}));
}

const cleanUps: (() => void)[] = [];

/** Whatever was mounted goes. */
export function unmount(): void {
  cleanUps.splice(0).forEach((cleanUp) => cleanUp());
}
