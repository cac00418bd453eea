// The chat client of this app.

import { ChatClient, openDatabase } from 'chat-push-client';
import { deviceId, expoApp } from 'chat-push-client/expo';
import { addNetworkStateListener } from 'expo-network';
import * as SQLite from 'expo-sqlite';
import { Platform } from 'react-native';

import { apiUrl, publishableKey, supabaseUrl } from './config';
import { supabase } from './supabase';

/** The client, when its database is open. */
export const opening = open();

async function open(): Promise<ChatClient> {
  return ChatClient.open({
    supabaseUrl,
    publishableKey,
    auth: supabase.auth,
    database: await openDatabase(SQLite.openDatabaseAsync, 'chat.db'),
    app: expoApp({ network }),
    // A browser is no device for pushes, and has no SecureStore.
    ...(Platform.OS !== 'web' && { apiUrl, deviceId: await deviceId() }),
  });
}

function network(changed: (isConnected: boolean) => void): () => void {
  const listener = addNetworkStateListener(({ isConnected }) => changed(isConnected === true));
  return () => listener.remove();
}
