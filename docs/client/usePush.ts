// Where an app with Expo Router calls push.ts: two hooks, of the root layout and of the screen of a conversation.

import { router } from 'expo-router';
import { useEffect } from 'react';

import { keepRegistered, lookAt, markRead, onTap } from './push';

const report = (error: unknown) => console.warn('push', error); // or your error reporting

//#region root
/** Call it in the root layout, where somebody is signed in. */
export function usePush(): void {
  useEffect(() => keepRegistered(report), []);
  useEffect(() => onTap(({ conversationId }) => router.push(`/chat/${conversationId}`)), []);
}
//#endregion

//#region conversation
/** Call it in the screen of a conversation; `newest` is the id of the newest message that it shows. */
export function useConversation(userId: string, conversationId: string, newest?: string): void {
  useEffect(() => lookAt(userId, conversationId), [userId, conversationId]);
  useEffect(() => {
    markRead(userId, conversationId).catch(report);
  }, [userId, conversationId, newest]);
}
//#endregion
