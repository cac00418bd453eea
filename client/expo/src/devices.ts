// This device: its registration for pushes over the HTTP API, and the heartbeats that say what is on its screen.

import { RateLimited, Rejected, ServerFailed, ServerUnreachable, SessionExpired } from './errors.ts';
import type { Parts } from './parts.ts';
import { Turns, type Signal } from './waiting.ts';

/**
 * `pushEnvironment`: of a token of APNs; sandbox for a development build. `appVersion` is shown to operators. `locale`:
 * the language of its pushes, as a BCP 47 tag; by default, that of the phone.
 */
export interface Device {
  readonly pushToken: string;
  readonly platform: 'ios' | 'android' | 'web';
  readonly pushProvider?: 'expo' | 'fcm' | 'apns';
  readonly pushEnvironment?: 'production' | 'sandbox';
  readonly appVersion?: string;
  readonly locale?: string;
}

/** `apiUrl`: undefined if the project has no HTTP API, so no pushes. */
export class Devices {
  readonly #parts: Parts;
  readonly #http: typeof fetch;
  readonly #apiUrl: string | undefined;
  readonly #changed: Signal;
  #onScreen: string | null = null;
  #foreground = false;
  readonly #reports = new Turns();

  constructor(parts: Parts, http: typeof fetch, apiUrl: string | undefined) {
    this.#parts = parts;
    this.#http = http;
    this.#apiUrl = apiUrl?.replace(/\/+$/, '');
    this.#changed = parts.life.signal();
  }

  /** See ChatClient.registerDevice. */
  register(device: Device): Promise<void> {
    const { pushToken, platform, pushProvider = 'expo', pushEnvironment, appVersion, locale } = device;
    return this.#call('POST', '/api/push/register', {
      device_id: this.#parts.store.deviceId,
      platform,
      push_token: pushToken,
      push_provider: pushProvider,
      push_environment: pushEnvironment, // JSON leaves out what is undefined
      app_version: appVersion,
      locale: locale ?? Intl.DateTimeFormat().resolvedOptions().locale,
    });
  }

  /** Removes the registration of this device. Throws what `register` throws. */
  unregister(): Promise<void> {
    return this.#call('DELETE', `/api/push/unregister?device_id=${encodeURIComponent(this.#parts.store.deviceId)}`);
  }

  /** The conversation on the screen; null in the background. */
  get onScreen(): string | null {
    return this.#foreground ? this.#onScreen : null;
  }

  /** Says which conversation is on the screen. It is reported soon. */
  lookAt(conversationId: string | null): void {
    this.#onScreen = conversationId;
    this.#changed.set();
  }

  /** Says whether the app is in the foreground. It is reported soon. */
  setForeground(foreground: boolean): void {
    this.#foreground = foreground;
    this.#changed.set();
  }

  /** Reports presence until the client is closed. The next report replaces one that is lost. */
  async run(): Promise<void> {
    const { life, server, timing } = this.#parts;
    // An app that the system starts in the background was not online.
    if (!this.isForeground()) await this.#changed.wait();
    while (!life.isClosed()) {
      if (server.session.signedIn) await this.report();
      if (!life.isClosed()) await this.#changed.wait(this.isForeground() ? timing.heartbeat : null);
    }
  }

  /** Reports presence as it is now, after a report that runs. It does not throw. */
  report(): Promise<void> {
    return this.#reports
      .take(() => this.#report())
      .catch((error: unknown) => this.#parts.failed('presence was not reported', error));
  }

  /** Whether the app is in the foreground. A method, because the answer may be another one after each `await`. */
  isForeground(): boolean {
    return this.#foreground;
  }

  async #report(): Promise<void> {
    const { store, server } = this.#parts;
    const online = this.#foreground;
    const shown = online ? this.#onScreen : null;
    try {
      await server.rpc('report_presence', {
        p_device_id: store.deviceId,
        p_state: online ? 'online' : 'offline',
        p_conversation_id: shown,
      });
    } catch (error) {
      if (!(error instanceof Rejected && error.code === '22023') || store.me === null) throw error;
      // A device that is not registered reports for the person as a whole.
      await server.reportPresenceOfPerson(store.me, online, shown);
    }
  }

  #call(method: string, path: string, body: object | null = null): Promise<void> {
    return this.#parts.server.session.using(async (token) => {
      if (!this.#apiUrl) throw new Rejected('no_api_url', 'apiUrl is not set to the output ApiUrl of the stack');
      const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' };
      let answer: Response;
      try {
        answer = await this.#http(`${this.#apiUrl}${path}`, { method, headers, body: body && JSON.stringify(body) });
      } catch (error) {
        throw new ServerUnreachable('the HTTP API gave no answer', { cause: error });
      }
      // A network that asks to log in answers with a page of its own.
      if (!answer.ok || answer.headers.get('Content-Type')?.includes('html')) throw await errorOf(answer);
    });
  }
}

/** What an error of the API means. One of a proxy or a gateway has another shape, and is named by its status. */
async function errorOf(answer: Response): Promise<Error> {
  const { status } = answer;
  if (status === 401) return new SessionExpired();
  if (status === 429) return new RateLimited(Number(answer.headers.get('Retry-After')) || 10);
  const body = (await answer.json().catch(() => null)) as {
    error?: { code?: string; message?: string; fields?: { field: string; message: string }[] };
  } | null;
  const { code = `http_${status}`, message = 'the HTTP API failed', fields } = body?.error ?? {};
  const why = fields?.map((each) => `${each.field}: ${each.message}`).join('; ') ?? message;
  return status < 400 || status >= 500 ? new ServerFailed(`${why} (${code})`) : new Rejected(code, why);
}
