import { test } from 'node:test';

import { send, twoWindows, until } from './windows.mts';

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

test('a message that is written offline is pending, survives a reload, and is sent when the network is back', async () => {
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
