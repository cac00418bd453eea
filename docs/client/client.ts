// The chat of your app, and its pushes. The entry of the app imports it.

import { ChatClient, openDatabase } from 'chat-push-client';
import { Push, deviceId, expoApp } from 'chat-push-client/expo';
import * as Network from 'expo-network';
import * as SQLite from 'expo-sqlite';

import { supabase } from './supabase'; // your app's Supabase client

async function open(): Promise<ChatClient> {
  return ChatClient.open({
    supabaseUrl: process.env.EXPO_PUBLIC_SUPABASE_URL!,
    publishableKey: process.env.EXPO_PUBLIC_SUPABASE_PUBLISHABLE_KEY!,
    apiUrl: process.env.EXPO_PUBLIC_CHAT_PUSH_URL!, // the output ApiUrl of the stack
    auth: supabase.auth, // stores and renews the session
    database: await openDatabase(SQLite.openDatabaseAsync, 'chat.db'),
    deviceId: await deviceId(),
    app: expoApp({
      network: (changed) => {
        const listener = Network.addNetworkStateListener(({ isConnected }) => changed(isConnected === true));
        return () => listener.remove();
      },
    }),
  });
}

export const opening = open();
export const push = new Push(opening);
