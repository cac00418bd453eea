// Windows of the exported app in Chromium. Each has a storage of its own, as another phone has.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, before } from 'node:test';

import binary from '@sparticuz/chromium';
import { createClient } from '@supabase/supabase-js';
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';

import { serve } from './server.mts';

const { SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY } = process.env;
if (!SUPABASE_URL || !SUPABASE_PUBLISHABLE_KEY) throw new Error('SUPABASE_URL and SUPABASE_PUBLISHABLE_KEY are not set');

const PASSWORD = 'correct horse battery staple';
const supabase = createClient(SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY, { auth: { autoRefreshToken: false } });

const emails = new WeakMap<Page, string>();
const errors: Error[] = []; // of the app: unhandled errors and rejections
let browser: Browser;
let server: Awaited<ReturnType<typeof serve>>;

before(async () => {
  server = await serve(join(import.meta.dirname, '..', 'dist'), {
    'http://supabase.invalid': SUPABASE_URL,
    sb_publishable_placeholder: SUPABASE_PUBLISHABLE_KEY,
  });
  const hasBinary = process.platform === 'linux' && process.arch === 'x64';
  browser = await chromium.launch(
    hasBinary ? { executablePath: await binary.executablePath(), args: ['--no-sandbox'] } : { channel: 'chrome' },
  );
});

afterEach(async () => {
  await Promise.all(browser.contexts().map((context) => context.close()));
  assert.deepEqual(errors.splice(0), []);
});

after(async () => {
  await browser.close();
  server.close();
});

/** `hoursOff`: how far the clock of the phone is ahead. */
type Phone = BrowserContextOptions & { hoursOff?: number };

/** A window of a new person, at a path of the app. */
export async function windowOf(name: string, path = '/', { hoursOff = 0, ...options }: Phone = {}): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 400, height: 760 }, ...options });
  await context.addInitScript(setClock, hoursOff * 3_600_000);
  context.setDefaultTimeout(20_000);
  await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: server.url });
  const page = await context.newPage();
  page.on('pageerror', (error) => errors.push(error));
  await page.goto(server.url + path);
  await page.getByRole('button', { name: 'I am new here' }).click();
  await page.getByLabel('Name').fill(name);
  emails.set(page, newEmail());
  await fillCredentials(page, PASSWORD);
  await page.getByRole('button', { name: 'Create account' }).click();
  await page.getByLabel('Password').waitFor({ state: 'detached' });
  return page;
}

/** A window of a new person, who has opened the conversation with somebody whose phone is off. */
export async function windowWith(absent: string, name: string, phone: Phone = {}): Promise<Page> {
  const page = await windowOf(name, `/with/${await signUp(absent)}`, phone);
  await page.getByRole('heading', { name: absent }).waitFor();
  return page;
}

/** The id of a new person without a window. */
async function signUp(name: string): Promise<string> {
  const { data, error } = await supabase.auth.signUp({ email: newEmail(), password: PASSWORD });
  if (error) throw error;
  const id = data.user!.id;
  await supabase.from('users').insert({ id, display_name: name, role: 'tourist' }).throwOnError();
  return id;
}

function newEmail(): string {
  return `${crypto.randomUUID()}@example.com`;
}

/** Fills in the sign-in of the person of a window, and presses the button. */
export async function signIn(page: Page, password = PASSWORD): Promise<void> {
  await fillCredentials(page, password);
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
}

/** Runs in the window, before the app. */
function setClock(milliseconds: number): void {
  const RealDate = Date;
  globalThis.Date = class extends RealDate {
    constructor(...values: unknown[]) {
      super(...((values.length ? values : [RealDate.now() + milliseconds]) as [number]));
    }
    static override now(): number {
      return RealDate.now() + milliseconds;
    }
  } as DateConstructor;
}

async function fillCredentials(page: Page, password: string): Promise<void> {
  await page.getByLabel('E-mail').fill(emails.get(page)!);
  await page.getByLabel('Password').fill(password);
}

/** The path of the invitation of a person, who sees the list of conversations. */
export async function invitation(page: Page): Promise<string> {
  await page.getByRole('button', { name: 'Invite somebody' }).click();
  await page.getByText('Copied').waitFor();
  return new URL(await page.evaluate(() => navigator.clipboard.readText())).pathname;
}

/** Windows of two people: the first sees the list of conversations, the second has opened the conversation with the first. */
export async function twoWindows(first: string, second: string, phone: Phone = {}, guestPhone = phone): Promise<[Page, Page]> {
  const host = await windowOf(first, '/', phone);
  const guest = await windowOf(second, await invitation(host), guestPhone);
  await guest.getByRole('heading', { name: first }).waitFor();
  return [host, guest];
}

/** Writes a message into the conversation on the screen, and sends it. */
export async function send(page: Page, text: string): Promise<void> {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.getByRole('button', { name: 'Send', exact: true }).click();
}

/** Waits for a message in the conversation on the screen. `end`: what stands below its text, such as Read. */
export async function until(page: Page, text: string, end = ''): Promise<void> {
  await page.getByTestId('message').filter({ hasText: text }).filter({ hasText: end }).waitFor();
}

/** The texts of the messages on the screen, from top to bottom. */
export async function shown(page: Page): Promise<string[]> {
  const messages = await page.getByTestId('message').all();
  const found = await Promise.all(messages.map(async (each) => ({ top: (await each.boundingBox())!.y, text: await each.innerText() })));
  return found.sort((one, other) => one.top - other.top).map(({ text }) => text.split('\n')[0]!);
}
