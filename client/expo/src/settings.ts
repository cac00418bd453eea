// Where the server is, and how often the client does what.

import type { SupabaseClient } from '@supabase/supabase-js';

import type { Database } from './database.ts';
import { ofEngine, type Random } from './ids.ts';

/** Times in seconds. Tests shorten them. */
export interface Timing {
  readonly requestTimeout: number;
  readonly retryBase: number; // the wait after the first failed attempt; it doubles with each
  readonly retryCap: number;
  readonly syncInterval: number; // in the foreground: what a lost event did not say arrives by then
  readonly marksDelay: number; // marks of this time are sent together
  readonly heartbeat: number; // presence of this device
  readonly typingInterval: number; // at most one typing event in this time is sent
  readonly typingTimeout: number; // a partner who sends no typing event for this time has stopped
  readonly stableConnection: number; // a connection that breaks sooner counts as a failed attempt
}

export const TIMING: Timing = {
  requestTimeout: 15,
  retryBase: 1,
  retryCap: 60,
  syncInterval: 60,
  marksDelay: 0.3,
  heartbeat: 20,
  typingInterval: 3,
  typingTimeout: 7,
  stableConnection: 10,
};

/** What the phone and its user do, as far as a client has to know it. `expoApp()` of chat-push-client/expo is one. */
export interface App {
  /** Whether the app is visible now. The system may also start it in the background, for a task of its own. */
  isActive(): boolean;
  /** Calls these with each change. Returns a function that ends it. */
  follow(changed: { active(isActive: boolean): void; network(isConnected: boolean): void }): () => void;
  /** Fills the bytes from a secure source, where the JavaScript engine has no crypto.getRandomValues. */
  readonly random?: Random;
}

/**
 * `auth`: `supabase.auth` of the app's own client, which stores and renews the session. `database`: an open database
 * for one account, such as `await openDatabase(SQLite.openDatabaseAsync, 'chat.db')`. `apiUrl`: the output ApiUrl of the stack.
 * `app`: without it, call `foreground`, `background` and `networkChanged`. `deviceId`: the id of this installation, such as
 * `await deviceId()` of chat-push-client/expo; without it, the database keeps one, which a restored backup would bring to
 * another phone. `attempts`: how often an entry of the outbox is tried that the server answers with an error of its own; 8 if not set.
 * `fetch`: of all HTTP requests. `log`: gets what went wrong, without texts and tokens; console.warn if not set.
 */
export interface Settings {
  readonly supabaseUrl: string;
  readonly publishableKey: string;
  readonly auth: SupabaseClient['auth'];
  readonly database: Database;
  readonly apiUrl?: string;
  readonly app?: App;
  readonly deviceId?: string;
  readonly attempts?: number;
  readonly timing?: Partial<Timing>;
  readonly fetch?: typeof fetch;
  readonly log?: (text: string) => void;
}

/** Throws TypeError for a setting that cannot work, with its name. Returns the source of random bytes. */
export function check(settings: Settings): Random {
  // Without types, or from a variable that was not set when the app was built.
  const given: Partial<Settings> = settings;
  const { supabaseUrl, apiUrl = supabaseUrl } = settings;
  for (const [name, value] of Object.entries<unknown>({ supabaseUrl, apiUrl })) {
    if (typeof value !== 'string' || !/^https?:\/\/./.test(value)) {
      throw new TypeError(`${name} must be a URL such as https://example.com, not ${JSON.stringify(value)}`);
    }
  }
  if (!settings.publishableKey) throw new TypeError('publishableKey is not set: see the API keys of the project');
  if (settings.publishableKey.startsWith('sb_secret_')) {
    throw new TypeError('publishableKey is a secret key. Use the key that starts with sb_publishable_');
  }
  if (!given.auth) throw new TypeError("auth is not set: pass supabase.auth of the app's client");
  if (settings.deviceId !== undefined && !/^[\w.:-]{1,200}$/.test(settings.deviceId)) {
    throw new TypeError('deviceId must be an id such as a UUID');
  }
  const random = settings.app?.random ?? ofEngine();
  if (!random) {
    throw new TypeError(
      'app is not set, and this engine has no crypto.getRandomValues: pass expoApp() of chat-push-client/expo',
    );
  }
  if (!given.database) throw new TypeError('database is not set: pass an open database of expo-sqlite');
  return random;
}
