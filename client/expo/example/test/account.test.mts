import { test } from 'node:test';

import { send, signIn, until, windowOf, windowWith } from './windows.mts';

test('a link opens its conversation after the sign-in, with the list behind it', async () => {
  const gus = await windowWith('Tina', 'Gus');
  await gus.getByLabel(/back/).click();
  await gus.getByRole('link', { name: 'Tina' }).waitFor();
});

test('a sign-out removes the chat from the device, and the next sign-in brings it back', async () => {
  const gus = await windowWith('Tina', 'Gus');
  await send(gus, 'Hello Tina');
  await until(gus, 'Hello Tina', 'Sent');
  await gus.goto(new URL('/settings', gus.url()).href);
  await gus.getByRole('button', { name: 'Sign out' }).click();
  await signIn(gus);
  await gus.getByRole('link', { name: 'Tina' }).click();
  await until(gus, 'Hello Tina', 'Sent');
});

test('a wrong password is named, and the person can try again', async () => {
  const page = await windowOf('Tina', '/settings');
  await page.getByRole('button', { name: 'Sign out' }).click();
  await signIn(page, 'incorrect horse battery staple');
  await page.getByRole('alert').filter({ hasText: 'The e-mail address or the password is wrong.' }).waitFor();
  await signIn(page);
  await page.getByText('No chats yet').waitFor();
});

test('a second window of the same browser says that the chat is open in the first', async () => {
  const first = await windowOf('Tina');
  const second = await first.context().newPage();
  await second.goto(first.url());
  await second.getByText('The chat is open in another window.').waitFor();
});
