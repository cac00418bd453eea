// Hooks for React. They show what the client's local database has; what changes is `useChat()`, the client itself.

import { createContext, createElement, useCallback, useContext, useEffect, useMemo } from 'react';
import type { ReactElement, ReactNode } from 'react';

import type { ChatClient } from './client.ts';
import { useKept } from './hooks.ts';
import { ConversationView, ConversationsView, TypingView } from './views.ts';
import type { ConversationState, ConversationsState } from './views.ts';

export type { ConversationState, ConversationsState } from './views.ts';

const Context = createContext<ChatClient | null>(null);

// The conversations whose screens are mounted, the one on top last. A screen may be left after the next one is opened.
const screens = new WeakMap<ChatClient, string[]>();

/** Gives the hooks below it their client. Another account has another client, and may be mounted beside it. */
export function ChatProvider(props: { readonly client: ChatClient; readonly children?: ReactNode }): ReactElement {
  return createElement(Context.Provider, { value: props.client }, props.children);
}

/** The client of the ChatProvider. Throws Error without one. */
export function useChat(): ChatClient {
  const client = useContext(Context);
  if (!client) throw new Error('this hook needs a <ChatProvider client={…}> above it');
  return client;
}

/** All conversations, newest first. It is drawn again when one changes. */
export function useConversations(): ConversationsState {
  const client = useChat();
  return useKept(useMemo(() => new ConversationsView(client), [client]));
}

/**
 * A conversation, with its newest messages, and `loadOlder` to page back.
 *
 * While it is mounted, the conversation is on the screen: for presence, typing, and pushes that need no sound.
 * `isOnScreen` is false for a screen below another one of a stack, such as `useIsFocused()` of React Navigation.
 */
export function useConversation(
  conversationId: string,
  { isOnScreen = true }: { readonly isOnScreen?: boolean } = {},
): ConversationState & { readonly loadOlder: () => Promise<void> } {
  const client = useChat();
  const view = useMemo(() => new ConversationView(client, conversationId), [client, conversationId]);
  useEffect(() => (isOnScreen ? show(client, conversationId) : undefined), [client, conversationId, isOnScreen]);
  const state = useKept(view);
  return useMemo(() => ({ ...state, loadOlder: view.loadOlder }), [state, view]);
}

/** Whether the partner types, and `typing` to say that this person does: call it at each key; few events are sent. */
export function useTyping(conversationId: string): {
  readonly isPartnerTyping: boolean;
  readonly typing: (isTyping?: boolean) => void;
} {
  const client = useChat();
  const view = useMemo(() => new TypingView(client, conversationId), [client, conversationId]);
  const isPartnerTyping = useKept(view);
  const typing = useCallback((isTyping?: boolean) => client.typing(isTyping), [client]);
  return useMemo(() => ({ isPartnerTyping, typing }), [isPartnerTyping, typing]);
}

/** Puts a conversation on the screen. Returns a function that takes it off. */
function show(client: ChatClient, conversationId: string): () => void {
  const stack = screens.get(client) ?? [];
  screens.set(client, stack);
  stack.push(conversationId);
  client.lookAt(conversationId);
  return () => {
    stack.splice(stack.lastIndexOf(conversationId), 1);
    client.lookAt(stack.at(-1) ?? null);
  };
}
