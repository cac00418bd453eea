import assert from 'node:assert/strict';
import { test } from 'node:test';

import { send, shown, twoWindows, until, windowWith } from './windows.mts';

// Red, 1 by 1 pixel.
const PHOTO = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC',
  'base64',
);

test('a message is sent, delivered and read while two windows chat', async () => {
  const [tina, gus] = await twoWindows('Tina', 'Gus');
  await send(gus, 'Hello Tina');
  await until(gus, 'Hello Tina', 'Delivered');
  await tina.getByRole('link', { name: 'Gus, 1 unread' }).click();
  await until(tina, 'Hello Tina');
  await until(gus, 'Hello Tina', 'Read');
  await send(tina, 'Hello Gus');
  await until(gus, 'Hello Gus');
});

test('a message that is written offline is pending, is sent when the network is back, and is there after a reload', async () => {
  const [tina, gus] = await twoWindows('Tina', 'Gus');
  await send(gus, 'Hello Tina');
  await tina.getByRole('link', { name: 'Gus, 1 unread' }).click();
  await until(tina, 'Hello Tina');
  await gus.context().setOffline(true);
  await gus.getByRole('status').filter({ hasText: 'No connection' }).waitFor();
  await send(gus, 'From the tunnel');
  await until(gus, 'From the tunnel', 'Sending');
  await gus.context().setOffline(false);
  await until(tina, 'From the tunnel');
  await until(gus, 'From the tunnel', 'Read');
  await gus.reload();
  await until(gus, 'From the tunnel', 'Read');
});

test('messages of phones whose clocks are hours off are shown in the order of the server', async () => {
  const [tina, gus] = await twoWindows('Tina', 'Gus', { hoursOff: -5 }, { hoursOff: 3 });
  await send(gus, 'first');
  await tina.getByRole('link', { name: 'Gus, 1 unread' }).click();
  await until(tina, 'first');
  await send(tina, 'second');
  await until(gus, 'second');
  await send(gus, 'third');
  await until(tina, 'third');
  await until(gus, 'third', 'Read');
  for (const page of [tina, gus]) assert.deepEqual(await shown(page), ['first', 'second', 'third']);
});

test('an edit and a deletion reach the other window', async () => {
  const [tina, gus] = await twoWindows('Tina', 'Gus');
  await send(gus, 'At the fontain');
  await tina.getByRole('link', { name: 'Gus, 1 unread' }).click();
  await gus.getByTestId('message').click();
  await gus.getByRole('button', { name: 'Edit' }).click();
  await gus.getByRole('textbox', { name: 'Edit' }).fill('At the fountain');
  await gus.getByRole('button', { name: 'Save' }).click();
  await until(tina, 'At the fountain', 'Edited');
  await gus.getByTestId('message').click();
  await gus.getByRole('button', { name: 'Delete' }).click();
  await until(tina, 'Deleted');
  await until(gus, 'Deleted');
});

test('Enter, Space and a right click on a message show what can be done with it, and its text can be selected', async () => {
  const gus = await windowWith('Tina', 'Gus');
  await send(gus, 'Hello Tina');
  await until(gus, 'Hello Tina', 'Sent');
  const message = gus.getByTestId('message');
  for (const open of [() => message.press('Enter'), () => message.press('Space'), () => message.click({ button: 'right' })]) {
    await open();
    await gus.getByRole('button', { name: 'Delete' }).waitFor();
    await gus.getByRole('button', { name: 'Cancel' }).click();
    await gus.getByRole('button', { name: 'Delete' }).waitFor({ state: 'detached' });
  }
  const { x, y, width, height } = (await message.getByText('Hello Tina').boundingBox())!;
  await gus.mouse.move(x + 1, y + height / 2);
  await gus.mouse.down();
  await gus.mouse.move(x + width - 1, y + height / 2, { steps: 5 });
  await gus.mouse.up();
  assert.equal(await gus.evaluate(() => getSelection()?.toString()), 'Hello Tina');
});

test('a person sees that the other one types, and is in the chat', async () => {
  const [tina, gus] = await twoWindows('Tina', 'Gus');
  await send(gus, 'Hello Tina');
  await tina.getByRole('link', { name: 'Gus, 1 unread' }).click();
  await tina.getByText('In this chat').waitFor();
  await gus.getByText('In this chat').waitFor();
  await gus.getByLabel('Message', { exact: true }).pressSequentially('Hm');
  await tina.getByText('Gus is typing…').waitFor();
  await send(gus, 'Hm');
  await until(tina, 'Hm');
  await tina.getByText('In this chat').waitFor();
});

test('a photo is uploaded, sent, and shown in the other window', async () => {
  const [tina, gus] = await twoWindows('Tina', 'Gus');
  let upload: () => void = () => undefined;
  const released = new Promise<void>((resolve) => (upload = resolve));
  await gus.route('**/storage/v1/object/**', (route) => released.then(() => route.continue()));
  const uploading = gus.waitForRequest('**/storage/v1/object/**');
  const choosing = gus.waitForEvent('filechooser');
  await gus.getByRole('button', { name: 'Send a photo' }).click();
  await (await choosing).setFiles({ name: 'fountain.png', mimeType: 'image/png', buffer: PHOTO });
  await uploading;
  await gus.getByRole('button', { name: 'Send a photo', disabled: true }).waitFor(); // a second press would send another photo
  upload();
  await tina.getByRole('link', { name: 'Gus, 1 unread' }).click();
  await tina.getByAltText('Photo').evaluate((image: HTMLImageElement) => image.decode());
});

test('a message that the server rejects is not sent, and can be tried again', async () => {
  const [tina, gus] = await twoWindows('Tina', 'Gus');
  const rejection = { status: 403, json: { code: '42501', message: 'new row violates a policy' } };
  await gus.route('**/rest/v1/chat_messages?*', (route) => route.fulfill(rejection));
  await send(gus, 'Hello Tina');
  await until(gus, 'Hello Tina', 'Not sent');
  await gus.unrouteAll();
  await gus.getByTestId('message').click();
  await gus.getByRole('button', { name: 'Try again' }).click();
  await until(gus, 'Hello Tina', 'Delivered');
  await tina.getByRole('link', { name: 'Gus, 1 unread' }).waitFor();
});
