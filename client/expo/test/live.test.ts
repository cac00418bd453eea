import { equal } from 'node:assert/strict';
import { mock, test } from 'node:test';

import { openClient, server, written } from './client.ts';
import { mount } from './dom.ts';
import { broadcast, joined, present } from './live.ts';
import { ME, PARTNER, ROOM, auth } from './phone.ts';
import type { Settings } from '../src/index.ts';
import type { Row } from '../src/models.ts';
import { useConversation } from '../src/react.ts';
import { ConversationView, TypingView } from '../src/views.ts';

const CHANNEL = `realtime:user:${ME}`;

test('a burst of 500 live events is drawn once in a frame', async () => {
  const { client } = await openClient(server(written(1)));
  await joined(CHANNEL);
  await client.sync();
  const screen = await mount(client, () => useConversation(ROOM));
  await screen.until((state) => state.messages.length === 1 && state.conversation !== null && !state.hasOlder);
  const burst = written(500);
  const last = new Promise<void>((resolve) => {
    client.subscribe((event) => {
      if (event.type === 'messageChanged' && event.message.id === burst.at(-1)?.['id']) resolve();
    });
  });
  mock.timers.enable({ apis: ['setTimeout'] });
  try {
    const before = screen.results.length;
    for (const record of burst) broadcast(CHANNEL, 'message', { operation: 'INSERT', record });
    await last;
    equal(screen.results.length, before);
    mock.timers.tick(16);
    await screen.until((state) => state.messages.length === 501);
    equal(screen.results.length, before + 1);
  } finally {
    mock.timers.reset();
  }
  await screen.unmount();
  await client.close();
});

test('an app that leaves the screen while its session is renewed does not connect', async () => {
  let [isRenewing, isJoined] = [false, false];
  let renew: () => void = () => undefined;
  const session = { access_token: 'token', expires_in: -1, user: { id: ME } };
  const answer = () => ({ data: { session }, error: null });
  const renewed = {
    ...auth(ME),
    getSession: () => Promise.resolve(answer()),
    refreshSession: () => new Promise((resolve) => ((isRenewing = true), (renew = () => resolve(answer())))),
  } as unknown as Settings['auth'];
  const { client } = await openClient(server([]), undefined, { auth: renewed });
  void joined(CHANNEL).then(() => (isJoined = true));
  while (!isRenewing) await new Promise(setImmediate);
  client.background();
  renew();
  await client.sync(); // it takes longer than a join
  equal(isJoined, false);
  client.foreground();
  while (!isJoined) await new Promise((resolve) => setImmediate(resolve, renew()));
  await client.close();
});

test('a malformed typing event of the partner is ignored', async () => {
  const { client } = await openClient(server([]));
  const topic = `realtime:room:${ROOM}`;
  const heard = new Promise<void>((resolve) => client.subscribe(({ type }) => type === 'typingChanged' && resolve()));
  await joined(CHANNEL);
  client.lookAt(ROOM);
  await joined(topic);
  for (const payload of [undefined, null, 'text', { user_id: 1 }]) broadcast(topic, 'typing', payload as Row);
  broadcast(topic, 'typing', { user_id: PARTNER, is_typing: true });
  await heard;
  await client.close();
});

test('a screen that was hidden when the partner stopped to write or left does not say that they still do it', async () => {
  const { client } = await openClient(server(written(1)));
  const topic = `realtime:room:${ROOM}`;
  await joined(CHANNEL);
  client.lookAt(ROOM);
  await joined(topic);
  await client.sync();
  const [typing, conversation] = [new TypingView(client, ROOM), new ConversationView(client, ROOM)];
  const until = async (view: { subscribe: (listener: () => void) => () => void }, holds: () => boolean) => {
    let end: () => void = () => undefined;
    await new Promise<void>((resolve) => {
      end = view.subscribe(() => holds() && resolve());
      broadcast(topic, 'typing', { user_id: PARTNER, is_typing: true });
      present(topic, PARTNER);
    });
    end();
  };
  await until(typing, () => typing.state());
  await until(conversation, () => conversation.state().isPartnerHere);
  client.lookAt(null); // as the hook of a hidden screen does
  equal(await new Promise((resolve) => client.subscribe(({ type }) => type === 'typingChanged' && resolve(type))), 'typingChanged');
  typing.subscribe(() => undefined)();
  equal(typing.state(), false);
  let end: () => void = () => undefined;
  equal(await new Promise((resolve) => (end = conversation.subscribe(() => resolve(conversation.state().isPartnerHere)))), false);
  end();
  await client.close();
});
