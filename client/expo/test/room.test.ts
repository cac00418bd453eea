import { deepEqual, equal, match } from 'node:assert/strict';
import { test } from 'node:test';

import { openClient, server, written } from './client.ts';
import { draw } from './dom.ts';
import { ME, PARTNER, ROOM, rowOf, type Request, type Script } from './phone.ts';
import type { ChatClient, Message } from '../src/index.ts';
import type { Row } from '../src/models.ts';

const { createElement, useCallback, useState } = await import('react');
const { ChatRoom, Composer, DARK, ENGLISH, LIGHT, MessageBubble, MessageList } = await import('../src/room.tsx');

/** A server that rejects each message. */
const rejecting = (answers: Script): Script => (request) =>
  request.method === 'POST' && request.path.endsWith('/chat_messages') ? [400, { code: '22001', message: 'too long' }] : answers(request);

const room = (client: ChatClient) => draw(client, createElement(ChatRoom, { conversationId: ROOM, words: ENGLISH }));

test('a chat room shows the messages, sends what is written, and shows how far it is', async () => {
  const { client } = await openClient(server(written(2)));
  await client.sync();
  const screen = await room(client);
  await screen.until(/1/);
  await screen.type('Hello');
  await screen.press('Send');
  await screen.until(/Hello.*Sent/);
  equal(screen.input().value, '');
  await screen.unmount();
  await client.close();
});

test('a long press on an own message offers to edit and to delete it, and on that of the partner nothing', async () => {
  const own = rowOf({ room_id: ROOM, sender_id: ME, message: 'mine' });
  const { client, requests } = await openClient(server([own, rowOf({ room_id: ROOM, sender_id: PARTNER, message: 'theirs' })]));
  await client.sync();
  const screen = await room(client);
  await screen.until(/mine/);
  deepEqual(screen.buttons(), ['Send']);
  await screen.longPress(/^theirs/);
  deepEqual(screen.buttons(), ['Send']);
  await screen.longPress(/^mine/);
  deepEqual(screen.buttons().sort(), ['Cancel', 'Delete', 'Edit', 'Send']);
  await screen.press('Edit');
  equal(screen.input().value, 'mine');
  await screen.type('mine, too');
  await screen.press('Save');
  await screen.until(/mine, too/);
  equal(requests.some(({ method, path }) => method === 'PATCH' && path.endsWith('/chat_messages')), true);
  await screen.unmount();
  await client.close();
});

test('a chat room marks the newest message of the server as read, also below a message that was rejected', async () => {
  const messages = written(1);
  const { client, requests } = await openClient(rejecting(server(messages)));
  const isMarked = async (message: Row | undefined) => {
    const holds = ({ path, body }: Request) => path.endsWith('/mark_messages_read') && body['p_up_to_message_id'] === message?.['id'];
    for (let tries = 0; !requests.some(holds) && tries < 1000; tries++) await new Promise((resolve) => setTimeout(resolve, 5));
    equal(requests.some(holds), true);
  };
  await client.sync();
  const screen = await room(client);
  await isMarked(messages[0]);
  await client.send(ROOM, 'long');
  await screen.until(/Not sent/);
  messages.push(...written(1));
  await client.sync();
  await isMarked(messages[1]);
  await screen.unmount();
  await client.close();
});

test('a message that was rejected offers to try again and to discard it', async () => {
  const { client } = await openClient(rejecting(server([])));
  await client.sync();
  const screen = await room(client);
  await client.send(ROOM, 'long');
  await screen.until(/Not sent/);
  await screen.longPress(/^long/);
  await screen.until(/too long/);
  deepEqual(screen.buttons().filter((title) => title !== 'Send' && title !== 'Cancel').sort(), ['Discard', 'Edit', 'Try again']);
  await screen.press('Discard');
  await screen.until(/No messages yet/);
  await screen.unmount();
  await client.close();
});

test('a screen reader reads a message with its time and status, and knows its actions', async () => {
  const { client } = await openClient(server([]));
  const message = await client.send(ROOM, 'Hello');
  const screen = await draw(client, createElement(MessageBubble, { message, isOwn: true, onAction: () => undefined }));
  match(screen.labels().join('\n'), /^Hello, Sending$/);
  await screen.unmount();
  await client.close();
});

test('what could not be sent stays in the composer', async () => {
  const { client } = await openClient(server([]));
  const screen = await draw(client, createElement(Composer, { onSubmit: () => Promise.resolve(false) }));
  await screen.type('keep me');
  await screen.press('Send');
  equal(screen.input().value, 'keep me');
  await screen.unmount();
  await client.close();
});

test('in a browser, Enter sends, and Shift and Enter do not', async () => {
  const { client } = await openClient(server([]));
  const sent: string[] = [];
  const onSubmit = (text: string) => Promise.resolve(sent.push(text) > 0);
  const screen = await draw(client, createElement(Composer, { onSubmit, beforeInput: createElement('span', null, 'Photo') }));
  await screen.until(/Photo/);
  await screen.pressEnter(false);
  await screen.type('Hello');
  await screen.pressEnter(true);
  deepEqual(sent, []);
  await screen.pressEnter(false);
  deepEqual(sent, ['Hello']);
  await screen.unmount();
  await client.close();
});

test('a press on any message but a deleted one is told to the app, and a message is drawn again only when it changes', async () => {
  const deleted = rowOf({ room_id: ROOM, sender_id: PARTNER, message: '', deleted_at: new Date().toISOString() });
  const theirs = rowOf({ room_id: ROOM, sender_id: PARTNER, message: 'theirs' });
  const { client } = await openClient(server([deleted, theirs]));
  await client.sync();
  const messages = await client.messages(ROOM);
  const [pressed, drawn]: [string[], string[]] = [[], []];
  const List = () => {
    const [, setCount] = useState(0);
    const onPress = useCallback((message: Message) => {
      pressed.push(message.text);
      setCount((count) => count + 1);
    }, []);
    return createElement(MessageList, { messages, me: ME, onPress, renderContent });
  };
  const renderContent = (message: Message) => (drawn.push(message.text), null);
  const screen = await draw(client, createElement(List));
  await screen.until(/theirs.*Message deleted|Message deleted.*theirs/);
  const [title = ''] = screen.buttons();
  equal(screen.buttons().length, 1);
  await screen.press(title);
  deepEqual([pressed, drawn], [['theirs'], ['theirs']]);
  await screen.unmount();
  await client.close();
});

test('a message of another day has its date', async () => {
  const [lastYear, now] = [new Date(), new Date()];
  lastYear.setFullYear(now.getFullYear() - 1);
  const rows = [lastYear, now].map((time) => rowOf({ room_id: ROOM, sender_id: PARTNER, message: 'x', server_timestamp: time.toISOString() }));
  const { client } = await openClient(server(rows));
  await client.sync();
  const screen = await draw(client, createElement(MessageList, { messages: await client.messages(ROOM), me: ME }));
  await screen.until(/x/);
  deepEqual(screen.labels().map((label) => label.includes(':')).sort(), [false, true]);
  await screen.unmount();
  await client.close();
});

test('in a browser, text is as large as the page wants it', async () => {
  const { client } = await openClient(server([]));
  const screen = await draw(client, createElement(Composer, { onSubmit: () => Promise.resolve(true) }));
  const [rule] = screen.input().className.match(/r-fontSize-\S+/) ?? [];
  const style = document.querySelector('style')?.sheet?.cssRules ?? [];
  match(Array.from(style, ({ cssText }) => cssText).find((text) => text.includes(rule ?? '?')) ?? '', /font-size: ?1rem/);
  await screen.unmount();
  await client.close();
});

test('a message without text can be deleted, but not edited', async () => {
  const { client } = await openClient(server([]));
  const message = await client.send(ROOM, '', [{ type: 'image' }]);
  const screen = await draw(client, createElement(MessageBubble, { message, isOwn: true, isOpen: true, onAction: () => undefined }));
  deepEqual(screen.buttons(), ['Delete', 'Cancel']);
  await screen.unmount();
  await client.close();
});

test('each text has a contrast of at least 4.5 to 1', () => {
  for (const { background, own, ownText, other, otherText, quiet, accent, problem } of [LIGHT, DARK]) {
    const pairs = [[ownText, own], [otherText, other], [quiet, background], [accent, background], [problem, background]];
    for (const [text, below] of pairs) equal(contrast(text ?? '', below ?? '') >= 4.5, true);
  }
});

/** https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio */
function contrast(one: string, other: string): number {
  const [low = 0, high = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

function luminance(color: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const value = parseInt(color.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
