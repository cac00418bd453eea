import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { Page } from 'playwright-core';

import { send, twoWindows, until, windowWith } from './windows.mts';

test('in a language that is written from right to left, own messages are on the left', async () => {
  const gus = await windowWith('Tina', 'Gus', { locale: 'ar' });
  await send(gus, 'مرحبا');
  await until(gus, 'مرحبا');
  const message = (await gus.getByTestId('message').boundingBox())!;
  const button = (await gus.getByRole('button', { name: 'Send', exact: true }).boundingBox())!;
  assert.ok(message.x < 40 && button.x < 40, `message at ${message.x}, button at ${button.x}`);
});

test('text that is twice as large is shown whole on each screen', async () => {
  const [tina, gus] = await twoWindows('Tina', 'Gus');
  await send(gus, 'Donaudampfschifffahrtsgesellschaftskapitän');
  await tina.getByRole('link', { name: 'Gus, 1 unread' }).waitFor();
  await tina.addInitScript(() => {
    // Before the app is drawn, as a setting of the browser is.
    document.addEventListener('readystatechange', () => (document.documentElement.style.fontSize = '32px'));
  });
  await tina.reload();
  await tina.getByRole('link', { name: 'Gus, 1 unread' }).click();
  await until(tina, 'Donau');
  await assertFits(tina);
  await tina.getByRole('button', { name: 'Details' }).click();
  await tina.getByRole('radio', { name: 'Always' }).waitFor();
  await assertFits(tina);
  await tina.goto(new URL('/settings', tina.url()).href);
  await tina.getByRole('radio', { name: 'Name and message' }).waitFor();
  await assertFits(tina);
});

test('in dark mode, text is light on a dark ground', async () => {
  const gus = await windowWith('Tina', 'Gus', { colorScheme: 'dark' });
  const input = gus.getByLabel('Message', { exact: true });
  const [text, ground] = await input.evaluate((element) => {
    const style = getComputedStyle(element);
    return [style.color, style.backgroundColor].map((color) => Number(/\d+/.exec(color)![0]));
  });
  assert.ok(text! > 200 && ground! < 60, `red of the text ${text}, of the ground ${ground}`);
});

test('the line to write in grows with its lines, up to a limit, and shrinks again', async () => {
  const gus = await windowWith('Tina', 'Gus');
  const input = gus.getByLabel('Message', { exact: true });
  const heightOf = async (text: string) => {
    await input.fill(text);
    return (await input.boundingBox())!.height;
  };
  const line = await heightOf('One');
  const lines = await heightOf('One\nTwo\nThree');
  const most = await heightOf('A line\n'.repeat(30));
  assert.ok(lines > line + 20 && most > lines && most < 200, `${line}, ${lines} and ${most} pixels high`);
  assert.ok((await heightOf('Donaudampfschifffahrtsgesellschaftskapitän'.repeat(2))) > line);
  await assertFits(gus);
  assert.equal(await heightOf(''), line);
});

/** No text or button reaches beyond the window. */
async function assertFits(page: Page): Promise<void> {
  const outside = await page.evaluate(() =>
    Array.from(document.querySelectorAll('[dir=auto], [role=button], [role=radio], textarea'))
      .filter((element) => element.checkVisibility() && element.getBoundingClientRect().width > 0)
      .filter((element) => {
        const { left, right } = element.getBoundingClientRect();
        return left < 0 || right > window.innerWidth + 0.5;
      })
      .map((element) => element.textContent),
  );
  assert.deepEqual(outside, []);
}
