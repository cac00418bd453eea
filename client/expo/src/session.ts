// The session of the person, which the app's own Supabase client stores and renews.
//
// No decision here depends on the phone's clock, which may be hours off: a token is renewed some time after it was
// received, or when the server says that it has expired.

import type { AuthError, Session as AuthSession } from '@supabase/supabase-js';

import { NotSignedIn, RateLimited, ServerUnreachable, SessionExpired, SignInRejected } from './errors.ts';
import type { Settings } from './settings.ts';
import { Turns } from './waiting.ts';

type Auth = Settings['auth'];

/** `changed` is called when the token or the account has changed. */
export class Session {
  readonly #auth: Auth;
  readonly #account: () => string | null;
  readonly #changed: () => void;
  readonly #unsubscribe: () => void;
  #session: AuthSession | null = null;
  #receivedAt = 0;
  /** A session that cannot be renewed must not end one that has just begun. */
  readonly #turns = new Turns();
  #ended = false;

  /** `account`: whose data the local database has. A session of somebody else is not used. */
  constructor(auth: Auth, account: () => string | null, changed: () => void) {
    this.#auth = auth;
    this.#account = account;
    this.#changed = changed;
    // supabase-js waits for this callback: it must not call `auth`.
    const { data } = auth.onAuthStateChange((event, session) => {
      if (session) this.#keep(session);
      else if (event === 'SIGNED_OUT') this.forget();
    });
    this.#unsubscribe = () => data.subscription.unsubscribe();
  }

  close(): void {
    this.#unsubscribe();
  }

  /** The account whose session this is, or null. */
  get account(): string | null {
    return this.signedIn ? this.#account() : null;
  }

  /** Whether there is a session of this account, as far as is known. The server may have ended it. */
  get signedIn(): boolean {
    const account = this.#account();
    // After a start without a network, supabase-js cannot say more than that nobody has signed out.
    return account !== null && !this.#ended && (this.#session === null || this.#session.user.id === account);
  }

  /** The access token, or null if it is not known. */
  get current(): string | null {
    return this.signedIn ? (this.#session?.access_token ?? null) : null;
  }

  /** The access token. Throws NotSignedIn, SessionExpired and ServerUnreachable. */
  async token(): Promise<string> {
    if (!this.signedIn) throw new NotSignedIn('nobody is signed in: call signIn');
    if (!this.#session) await this.load();
    if (this.current === null) throw new SessionExpired();
    return this.current;
  }

  /** Reads the session that the app's client has stored. Returns its user, or null. Throws ServerUnreachable. */
  load(): Promise<string | null> {
    return this.#turns.take(async () => {
      const { data, error } = await this.#auth.getSession();
      throwIfTemporary(error);
      if (data.session) this.#keep(data.session);
      else this.forget();
      return data.session?.user.id ?? null;
    });
  }

  /** Signs in. Returns the id of the person. Throws SignInRejected, RateLimited and ServerUnreachable. */
  signIn(email: string, password: string): Promise<string> {
    return this.#turns.take(async () => {
      const { data, error } = await this.#auth.signInWithPassword({ email, password });
      if (!error) {
        this.#keep(data.session);
        return data.user.id;
      }
      if (error.status === 429) throw new RateLimited(60);
      throwIfTemporary(error);
      throw new SignInRejected(error.code ?? String(error.status), error.message);
    });
  }

  /** Ends the session on this device. Without the server, only the stored one. Throws ServerUnreachable. */
  async signOut(): Promise<void> {
    const { error } = await this.#auth.signOut({ scope: 'local' });
    this.forget();
    throwIfTemporary(error);
  }

  /** Renews the session if 9 tenths of its life are over, by the clock that runs faster: one may stop in sleep. */
  async renewIfOld(): Promise<void> {
    const session = this.#session;
    if (session && Date.now() - this.#receivedAt > 900 * session.expires_in) await this.renew(session.access_token);
  }

  /**
   * Renews the session, unless another caller has done so since the token `rejected`.
   *
   * Throws SessionExpired if the server does not renew it, and ServerUnreachable.
   */
  renew(rejected: string): Promise<void> {
    return this.#turns.take(async () => {
      if (this.current !== null && this.current !== rejected) return;
      const { data, error } = await this.#auth.refreshSession();
      throwIfTemporary(error);
      if (data.session) {
        this.#keep(data.session);
        return;
      }
      this.forget();
      throw new SessionExpired({ cause: error });
    });
  }

  /**
   * Makes a request with the token. If it throws SessionExpired, because the server does not accept the token any more, the
   * session is renewed, and the request made once more.
   */
  async using<T>(request: (token: string) => Promise<T>): Promise<T> {
    const token = await this.token();
    try {
      return await request(token);
    } catch (error) {
      if (!(error instanceof SessionExpired)) throw error;
      await this.renew(token);
      return request(await this.token());
    }
  }

  /** Stops the use of the session, which has ended. */
  forget(): void {
    if (this.#ended) return;
    this.#session = null;
    this.#ended = true;
    this.#changed();
  }

  #keep(session: AuthSession): void {
    const isNew = session.access_token !== this.#session?.access_token;
    this.#session = session;
    this.#ended = false;
    if (!isNew) return;
    this.#receivedAt = Date.now();
    this.#changed();
  }
}

/** Throws ServerUnreachable for an error after which the same request may succeed. */
function throwIfTemporary(error: AuthError | null): void {
  const { name = '', status = 0 } = error ?? {};
  // Unknown: of something between the phone and the server, such as a page of a proxy.
  if (status === 429 || status >= 500 || /^Auth(RetryableFetch|Unknown)Error$/.test(name)) throw new ServerUnreachable('Supabase Auth gave no answer', { cause: error });
}
