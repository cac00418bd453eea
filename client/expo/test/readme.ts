// The code of README.md, so that the compiler checks it.

import { ChatClient, openDatabase } from 'chat-push-client';
import * as SQLite from 'expo-sqlite';

import { supabase } from './supabase'; // your app's Supabase client

const chat = await ChatClient.open({
  supabaseUrl: process.env.EXPO_PUBLIC_SUPABASE_URL!,
  publishableKey: process.env.EXPO_PUBLIC_SUPABASE_PUBLISHABLE_KEY!,
  auth: supabase.auth, // stores and renews the session
  database: await openDatabase(SQLite.openDatabaseAsync, 'chat.db'),
  apiUrl: process.env.EXPO_PUBLIC_CHAT_PUSH_URL!,
});
export const unsubscribe = chat.subscribe((event) => {
  if (event.type === 'messageChanged' && event.isNew) showMessage(event.message);
});
await chat.signIn(email, password); // or chat.useSession(), after the app has signed in with supabase.auth
const conversation = await chat.openChat(partnerId);
await chat.send(conversation, 'Shall we meet at the fountain?'); // pending; events say when it is sent, delivered, read

declare const email: string;
declare const password: string;
declare const partnerId: string;
declare function showMessage(message: object): void;
