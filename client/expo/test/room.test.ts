import { deepEqual, equal, match } from 'node:assert/strict';
import { test } from 'node:test';

import type { ReactNode } from 'react';

import { openClient, server, written } from './client.ts';
import { draw } from './dom.ts';
import { ME, OTHER_ROOM, PARTNER, ROOM, auth, rowOf, type Request, type Script } from './phone.ts';
import { openDatabase } from '../conformance/sqlite.ts';
import type { Attachment, ChatClient, Message } from '../src/index.ts';
import type { Row } from '../src/models.ts';

const { createElement, Fragment, useState } = await import('react');
const { Button, KeyboardAvoidingView } = await import('react-native');
const { ChatProvider } = await import('../src/react.ts');
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

test('a press, a right click and a long press show what can be done with an own message, and nothing on that of the partner', async () => {
  const own = rowOf({ room_id: ROOM, sender_id: ME, message: 'mine' });
  const { client } = await openClient(server([own, rowOf({ room_id: ROOM, sender_id: PARTNER, message: 'theirs' })]));
  await client.sync();
  const screen = await room(client);
  await screen.until(/mine/);
  for (const how of ['press', 'right click', 'long press'] as const) {
    await screen.touch(/^theirs/, how);
    deepEqual(screen.buttons(), ['Send']);
    await screen.touch(/^mine/, how);
    deepEqual(screen.buttons().sort(), ['Cancel', 'Delete', 'Edit', 'Send']);
    await screen.press('Cancel');
    deepEqual(screen.buttons(), ['Send']);
  }
  await screen.unmount();
  await client.close();
});

test('an action of the app is offered for any message but a deleted one, and is done once', async () => {
  const deleted = rowOf({ room_id: ROOM, sender_id: PARTNER, message: '', deleted_at: new Date().toISOString() });
  const { client } = await openClient(server([deleted, rowOf({ room_id: ROOM, sender_id: PARTNER, message: 'theirs' })]));
  await client.sync();
  const reported: string[] = [];
  const actions = ({ text }: Message) => [{ title: 'Report', isDangerous: true, onPress: () => reported.push(text) }];
  const screen = await draw(client, createElement(ChatRoom, { conversationId: ROOM, actions }));
  await screen.until(/theirs.*Message deleted|Message deleted.*theirs/);
  await screen.touch(/^Message deleted/, 'press');
  deepEqual(screen.buttons(), ['Send']);
  await screen.touch(/^theirs/, 'press');
  await screen.press('Report');
  deepEqual([reported, screen.buttons()], [['theirs'], ['Send']]);
  await screen.unmount();
  await client.close();
});

test('an edit is saved or cancelled, and what was being written is there again', async () => {
  const { client, requests } = await openClient(server([rowOf({ room_id: ROOM, sender_id: ME, message: 'mine' })]));
  await client.sync();
  const screen = await room(client);
  await screen.until(/mine/);
  await screen.type('half a sentence');
  for (const [title, text] of [['Cancel', 'no'], ['Save', 'mine, too']] as const) {
    await screen.touch(/^mine/, 'press');
    await screen.press('Edit');
    equal(screen.input().value, 'mine');
    await screen.type(text);
    await screen.press(title);
    equal(screen.input().value, 'half a sentence');
  }
  await screen.until(/mine, too/);
  equal(requests.some(({ method, path }) => method === 'PATCH' && path.endsWith('/chat_messages')), true);
  await screen.unmount();
  await client.close();
});

test('what is written in one conversation does not stand in another', async () => {
  const { client } = await openClient(server([]));
  const Rooms = () => {
    const [conversationId, setConversationId] = useState(ROOM);
    const next = createElement(Button, { title: 'Next', onPress: () => setConversationId(OTHER_ROOM) });
    return createElement(ChatRoom, { conversationId, children: () => next });
  };
  const screen = await draw(client, createElement(Rooms));
  await screen.type('for the first one');
  await screen.press('Next');
  equal(screen.input().value, '');
  await screen.unmount();
  await client.close();
});

test('what one account writes does not stand in the same conversation of another account', async () => {
  const [mine, other] = [await openClient(server([])), await openClient(server([]), undefined, { auth: auth(PARTNER) })];
  const Accounts = () => {
    const [{ client }, setAccount] = useState(mine);
    const next = createElement(Button, { title: 'Next', onPress: () => setAccount(other) });
    return createElement(ChatProvider, { client }, createElement(ChatRoom, { conversationId: ROOM, children: () => next }));
  };
  const screen = await draw(mine.client, createElement(Accounts));
  await screen.type('as Gus');
  await screen.press('Next');
  equal(screen.input().value, '');
  await screen.unmount();
  await mine.client.close();
  await other.client.close();
});

test('the keyboard is avoided from where the room is in the window, below a header', async () => {
  const { client } = await openClient(server([]));
  const { prototype } = KeyboardAvoidingView;
  const [{ render }, { getBoundingClientRect }] = [prototype, HTMLElement.prototype];
  let props: typeof prototype.props = {};
  prototype.render = function () {
    props = this.props;
    return render.call(this);
  };
  HTMLElement.prototype.getBoundingClientRect = () => ({ top: 90, left: 0, width: 400, height: 670 }) as DOMRect;
  const screen = await room(client);
  await screen.layOut();
  for (let tries = 0; props.keyboardVerticalOffset !== 90 && tries < 200; tries++) await new Promise((resolve) => setTimeout(resolve, 5));
  deepEqual([props.behavior, props.keyboardVerticalOffset], ['padding', 90]);
  prototype.render = render;
  HTMLElement.prototype.getBoundingClientRect = getBoundingClientRect;
  await screen.unmount();
  await client.close();
});

test('a local database that cannot be read is told to the app, which may give another function each time', async () => {
  const database = openDatabase(':memory:');
  const { client } = await openClient(server([]), database);
  database.getAllAsync = () => Promise.reject(new Error('disk I/O error'));
  const errors: unknown[] = [];
  const App = () => {
    const [, setError] = useState<unknown>(null);
    const onError = (error: unknown) => {
      errors.push(error);
      setError(error);
    };
    return createElement(ChatRoom, { conversationId: ROOM, onError, children: ({ error }) => error && createElement('span', null, error.message) });
  };
  const screen = await draw(client, createElement(App));
  await screen.until(/disk I\/O error/);
  while (errors.length < 2) await new Promise((resolve) => setTimeout(resolve, 5)); // the list, and then its newest page
  equal(new Set(errors).size, errors.length);
  await screen.unmount();
  await client.close();
});

test('photos of the project are drawn above the text, other attachments by their word, and the app may draw them itself', async () => {
  const { client } = await openClient(server([]));
  const photo = { type: 'image', url: 'http://127.0.0.1:9/storage/v1/object/public/photos/fountain.png' };
  const spy = { type: 'image', url: 'https://example.com/storage/v1/object/public/photos/fountain.png' }; // would learn who reads it
  const bubble = async (text: string, attachments: Attachment[], renderContent?: () => ReactNode) => {
    const message = await client.send(ROOM, text, attachments);
    const screen = await draw(client, createElement(MessageBubble, { message, isOwn: true, renderContent }));
    const drawn = [screen.images(), screen.labels().at(0)];
    await screen.unmount();
    return drawn;
  };
  deepEqual(await bubble('', [photo]), [[photo.url], 'Photo, Sending']);
  deepEqual(await bubble('Look', [photo, photo]), [[photo.url, photo.url], 'Photo, Look, Sending']);
  deepEqual(await bubble('', [photo, { type: 'file' }]), [[photo.url], 'Photo, Attachment, Sending']);
  deepEqual(await bubble('', [spy]), [[], 'Attachment, Sending']);
  for (const other of [{ type: 'image' }, { type: 'image', url: { toString: null } }, null, 'text']) {
    deepEqual(await bubble('', [other as Attachment]), [[], 'Attachment, Sending']);
  }
  deepEqual(await bubble('', [photo], () => createElement('span', null, 'mine')), [[], 'Photo, Sending']);
  await client.close();
});

test('a message of the partner with the id of an own one is drawn once', async () => {
  const id = '11111111-1111-4111-8111-111111111111';
  const messages = [[ME, 'mine'], [PARTNER, 'theirs']].map(([sender, message]) =>
    rowOf({ room_id: ROOM, sender_id: sender, message, client_msg_id: id }),
  );
  const { client } = await openClient(server(messages));
  await client.sync();
  const screen = await room(client);
  await screen.until(/mine/);
  messages.push(rowOf({ room_id: ROOM, sender_id: PARTNER, message: 'later' }));
  await client.sync();
  await screen.until(/later/);
  deepEqual(screen.labels().filter((label) => label.startsWith('theirs')).length, 1);
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
  await screen.touch(/^long/, 'press');
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
  const screen = await draw(client, createElement(MessageBubble, { message, isOwn: true }));
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

test('a message is drawn again only when it changes', async () => {
  const { client } = await openClient(server(written(1)));
  await client.sync();
  const messages = await client.messages(ROOM);
  const drawn: string[] = [];
  const renderContent = (message: Message) => (drawn.push(message.text), null);
  const List = () => {
    const [count, setCount] = useState(0);
    const button = createElement(Button, { title: `Again ${count}`, onPress: () => setCount(count + 1) });
    return createElement(Fragment, null, createElement(MessageList, { messages, me: ME, renderContent }), button);
  };
  const screen = await draw(client, createElement(List));
  await screen.press('Again 0');
  await screen.until(/Again 1/);
  deepEqual(drawn, ['0']);
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
  const { client } = await openClient(server([rowOf({ room_id: ROOM, sender_id: ME, message: '', attachments: [{ type: 'file' }] })]));
  await client.sync();
  const screen = await room(client);
  await screen.until(/Attachment/);
  await screen.touch(/^Attachment/, 'press');
  deepEqual(screen.buttons(), ['Delete', 'Cancel', 'Send']);
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
