// A document for React, and components that only call a hook.

import type { ReactElement, ReactNode } from 'react';

// Without its types: they bring those of Node.js, which hide what React Native does not have.
const { Window } = (await import('happy-dom' as string)) as {
  Window: new () => { document: Document; Event: typeof Event; MouseEvent: typeof MouseEvent; KeyboardEvent: typeof KeyboardEvent };
};
const window = new Window();
Object.assign(globalThis, { window, document: window.document });
// happy-dom lays nothing out: `layOut` says that it has.
let layOut: () => void = () => undefined;
const observed = new Set<Element>();
Object.assign(window, {
  ResizeObserver: class {
    constructor(changed: (entries: { target: Element }[]) => void) {
      layOut = () => changed([...observed].map((target) => ({ target })));
    }
    observe(target: Element) {
      observed.add(target);
    }
    unobserve(target: Element) {
      observed.delete(target);
    }
  },
});
for (const name of ['HTMLElement', 'Node', 'ResizeObserver', 'ShadowRoot']) {
  Object.assign(globalThis, { [name]: (window as unknown as Record<string, unknown>)[name] });
}

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

export type Touch = 'press' | 'long press' | 'right click';

export interface Drawn {
  /** Resolves when the text of the screen matches. */
  until(pattern: RegExp): Promise<void>;
  /** The titles of all buttons. A message is none. */
  buttons(): string[];
  /** What a screen reader reads of each message. */
  labels(): string[];
  /** The addresses of all images. */
  images(): string[];
  input(): { readonly value: string; readonly className: string };
  type(text: string): Promise<void>;
  press(title: string): Promise<void>;
  pressEnter(shiftKey: boolean): Promise<void>;
  /** Does something with what a screen reader reads like this. */
  touch(label: RegExp, how: Touch): Promise<void>;
  /** Each element has got its place. */
  layOut(): Promise<void>;
  unmount(): Promise<void>;
}

/** Draws an element below a ChatProvider with this client. */
export async function draw(client: ChatClient, element: ReactElement): Promise<Drawn> {
  const container = window.document.createElement('div');
  window.document.body.append(container);
  const root = createRoot(container);
  await settled(() => root.render(createElement(ChatProvider, { client }, element)));
  const all = (selector: string) => Array.from(container.querySelectorAll<HTMLElement>(selector));
  const buttons = () => all('[role=button]:not([data-testid=message])');
  const input = () => all('textarea, input')[0] as HTMLTextAreaElement;
  const send = (target: Element, name: string) =>
    target.dispatchEvent(new window.MouseEvent(name, { bubbles: true, button: 0 }));
  const event = (target: Element, ...names: string[]) =>
    settled(() => {
      for (const name of names) send(target, name);
    });
  return {
    until: async (pattern) => {
      while (!pattern.test(container.textContent ?? '')) await new Promise((resolve) => setTimeout(resolve, 5));
    },
    buttons: () => buttons().map(({ textContent }) => textContent ?? ''),
    labels: () => all('[aria-label]').map((each) => each.getAttribute('aria-label') ?? ''),
    input,
    type: (text) =>
      settled(() => {
        // React hears of a value only if it was set below its own setter.
        const { set } = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(input()), 'value') ?? {};
        set?.call(input(), text);
        input().dispatchEvent(new window.Event('input', { bubbles: true }));
      }),
    press: (title) => event(found(buttons(), ({ textContent }) => textContent === title), 'mousedown', 'mouseup', 'click'),
    pressEnter: (shiftKey) =>
      settled(() => input().dispatchEvent(new window.KeyboardEvent('keydown', { key: 'Enter', shiftKey, bubbles: true, cancelable: true }))),
    images: () => all('img').map((each) => each.getAttribute('src') ?? ''),
    touch: async (label, how) => {
      const target = found(all('[aria-label]'), (each) => label.test(each.getAttribute('aria-label') ?? ''));
      if (how === 'press') await event(target, 'mousedown', 'mouseup', 'click');
      else if (how === 'right click') await event(target, 'contextmenu');
      else {
        await event(target, 'mousedown');
        await new Promise((resolve) => setTimeout(resolve, 600)); // how long a long press takes
        await event(target, 'mouseup');
      }
    },
    layOut: () => settled(layOut),
    unmount: async () => {
      await settled(() => root.unmount());
      container.remove();
    },
  };
}

function found<T>(items: readonly T[], holds: (item: T) => boolean): T {
  const item = items.find(holds);
  if (!item) throw new Error('this is not on the screen');
  return item;
}
