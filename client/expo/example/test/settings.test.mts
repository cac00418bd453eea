import { test } from 'node:test';

import { send, twoWindows, windowOf } from './windows.mts';

test('a choice in the settings is there after a reload', async () => {
  const page = await windowOf('Tina', '/settings');
  await page.getByRole('radio', { name: 'Name', exact: true }).click();
  await page.getByRole('radio', { name: 'Name', exact: true, checked: true }).waitFor();
  await page.getByRole('radiogroup', { name: 'Quiet hours' }).getByRole('radio', { name: 'On' }).click();
  await page.getByLabel('From').fill('21:30');
  await page.getByRole('button', { name: 'Save hours' }).click();
  await page.getByRole('button', { name: 'Save hours' }).waitFor({ state: 'detached' });
  await page.reload();
  await page.getByRole('radio', { name: 'Name', exact: true, checked: true }).waitFor();
  await page.getByLabel('From').and(page.locator('[value="21:30"]')).waitFor();
});

test('a wrong time is rejected with a sentence that says why', async () => {
  const page = await windowOf('Tina', '/settings');
  await page.getByRole('radiogroup', { name: 'Quiet hours' }).getByRole('radio', { name: 'On' }).click();
  await page.getByLabel('Until').fill('late');
  await page.getByRole('button', { name: 'Save hours' }).click();
  await page.getByRole('alert').filter({ hasText: 'until' }).waitFor();
});

test('a conversation is muted, and leaves the list while its partner is blocked', async () => {
  const [tina, gus] = await twoWindows('Tina', 'Gus');
  await send(gus, 'Hello Tina');
  await tina.getByRole('link', { name: 'Gus, 1 unread' }).click();
  await tina.getByRole('button', { name: 'Details' }).click();
  await tina.getByRole('radio', { name: 'Always' }).click();
  await tina.getByRole('radio', { name: 'Always', checked: true }).waitFor();
  await tina.getByRole('button', { name: 'Block Gus' }).click();
  await tina.getByText('No chats yet').waitFor();
  await tina.getByRole('button', { name: 'Settings' }).click();
  await tina.getByRole('button', { name: 'Unblock Gus' }).click();
  await tina.getByText('Nobody').waitFor();
  await tina.goBack();
  await tina.getByRole('link', { name: 'Gus' }).waitFor();
});

test('a message and its sender are reported with a reason', async () => {
  const [tina, gus] = await twoWindows('Tina', 'Gus');
  await send(gus, 'Buy now');
  await tina.getByRole('link', { name: 'Gus, 1 unread' }).click();
  await tina.getByTestId('message').click();
  await tina.getByRole('button', { name: 'Report' }).click();
  await tina.getByRole('radio', { name: 'Spam' }).click();
  await tina.getByText('Reported.').waitFor();
  await tina.getByRole('button', { name: 'Details' }).click();
  await tina.getByRole('button', { name: 'Report Gus' }).click();
  await tina.getByRole('radio', { name: 'Fraud' }).click();
  await tina.getByText('Reported.').last().waitFor();
});

test('a conversation that a stranger began is a request until it is accepted', async () => {
  const [tina, gus] = await twoWindows('Tina', 'Gus');
  await send(gus, 'Hello Tina');
  await tina.getByRole('link', { name: 'Gus, 1 unread' }).click();
  const request = tina.getByText('Gus is new to you.');
  await request.waitFor();
  await tina.getByRole('button', { name: 'Accept' }).click();
  await request.waitFor({ state: 'detached' });
});
