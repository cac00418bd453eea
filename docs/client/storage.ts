// The local database of an app without expo-sqlite: SQLite in JavaScript, with AsyncStorage as its disk.

import AsyncStorage from '@react-native-async-storage/async-storage';
import { openDatabase, type Database } from 'chat-push-client';
import { inAsyncStorage } from 'chat-push-client/async-storage';
import initSqlJs from 'sql.js/dist/sql-asm.js';

/** For the setting `database` of the client. */
export function openChatDatabase(): Promise<Database> {
  return openDatabase(inAsyncStorage(AsyncStorage, initSqlJs), 'chat');
}
