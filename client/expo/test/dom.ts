// A document for React, and components that only call a hook.

import type { ReactNode } from 'react';

// Without its types: they bring those of Node.js, which hide what React Native does not have.
const { Window } = (await import('happy-dom' as string)) as {
  Window: new () => { document: { createElement(tag: string): Element } };
};
const window = new Window();
Object.assign(globalThis, { window, document: window.document });

// After the document is there: React looks for it once.
const { act, createElement, StrictMode } = await import('react');
const { createRoot } = await import('react-dom/client');
const { ChatProvider } = await import('../src/react.ts');

import type { ChatClient } from '../src/index.ts';

export interface Mounted<T> {
  /** What the hook has returned, the last one last. */
  readonly results: T[];
  /** Resolves when the hook returns what fulfils the condition. */
  until(holds: (result: T) => boolean): Promise<T>;
  /** Draws the component with another hook. */
  draw(hook: () => T): Promise<void>;
  unmount(): Promise<void>;
}

/** Draws a component that calls the hook, below a ChatProvider with this client. */
export async function mount<T>(client: ChatClient | null, hook: () => T, strict = false): Promise<Mounted<T>> {
  const results: T[] = [];
  const waiting = new Set<() => void>();
  const root = createRoot(window.document.createElement('div'));
  const draw = (use: () => T) =>
    settled(() => {
      const Caller = () => {
        results.push(current.use());
        for (const look of waiting) look();
        return null;
      };
      current.use = use;
      element ??= createElement(Caller);
      const tree: ReactNode = client ? createElement(ChatProvider, { client }, createElement(element.type)) : element;
      root.render(strict ? createElement(StrictMode, null, tree) : tree);
    });
  const current = { use: hook };
  let element: ReturnType<typeof createElement> | null = null;
  await draw(hook);
  const until = (holds: (result: T) => boolean) =>
    new Promise<T>((resolve) => {
      const look = () => {
        const found = results.at(-1);
        if (found === undefined || !holds(found)) return;
        waiting.delete(look);
        resolve(found);
      };
      waiting.add(look);
      look();
    });
  return { results, until, draw, unmount: () => settled(() => root.unmount()) };
}

/** Does something, and resolves when React has done what follows from it. */
async function settled(work: () => void): Promise<void> {
  const environment = globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean };
  environment.IS_REACT_ACT_ENVIRONMENT = true; // only now: React holds back what else changes meanwhile
  try {
    await act(async () => work());
  } finally {
    environment.IS_REACT_ACT_ENVIRONMENT = false;
  }
}
