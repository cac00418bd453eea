// A chat room of plain React Native, whole or in parts. It works in any app that has a ChatProvider.

import { memo, useCallback, useEffect, useRef, useState } from 'react';
import type { ComponentRef, ReactElement, ReactNode } from 'react';
import { AppState, FlatList, Image, KeyboardAvoidingView, Platform, Pressable, StyleSheet, Text, TextInput, View, useColorScheme } from 'react-native';
import type { TextInputKeyPressEvent } from 'react-native';

import { useKept, useLatest, type Kept } from './hooks.ts';
import type { Message, Status } from './models.ts';
import { useChat, useConversation, useTyping } from './react.ts';
import type { ConversationState } from './react.ts';

/** The texts of a chat room, in the language of the person. */
export interface Words {
  readonly statuses: Readonly<Record<Status, string>>;
  readonly write: string;
  readonly send: string;
  readonly save: string;
  readonly edit: string;
  readonly delete: string;
  readonly retry: string;
  readonly discard: string;
  readonly cancel: string;
  readonly deleted: string;
  readonly edited: string;
  readonly photo: string;
  readonly attachment: string;
  readonly typing: (name: string) => string;
  readonly empty: string;
}

export const ENGLISH: Words = {
  statuses: { pending: 'Sending', failed: 'Not sent', sent: 'Sent', delivered: 'Delivered', read: 'Read' },
  write: 'Message',
  send: 'Send',
  save: 'Save',
  edit: 'Edit',
  delete: 'Delete',
  retry: 'Try again',
  discard: 'Discard',
  cancel: 'Cancel',
  deleted: 'Message deleted',
  edited: 'edited',
  photo: 'Photo',
  attachment: 'Attachment',
  typing: (name) => `${name} is typing…`,
  empty: 'No messages yet',
};

export interface Colors {
  readonly background: string;
  readonly own: string;
  readonly ownText: string;
  readonly other: string;
  readonly otherText: string;
  readonly quiet: string;
  readonly accent: string;
  readonly problem: string;
}

// Each text has a contrast of at least 4.5 to 1 on its background.
export const LIGHT: Colors = {
  background: '#ffffff', own: '#1f5fd0', ownText: '#ffffff', other: '#e9ebef', otherText: '#16181d', quiet: '#5b6270', accent: '#1f5fd0', problem: '#b3261e',
};
export const DARK: Colors = {
  background: '#101216', own: '#2f6fe0', ownText: '#ffffff', other: '#262a32', otherText: '#eef0f4', quiet: '#a3abba', accent: '#8ab4ff', problem: '#ff8a80',
};

/** What the parts of a chat room share. `words` and `colors` replace the defaults: English, and those of the color scheme. */
export interface Look {
  readonly words?: Words;
  readonly colors?: Colors;
}

/** What can be done with a message: a button below it, and an action of screen readers. */
export interface MessageAction {
  readonly title: string;
  readonly isDangerous?: boolean;
  readonly onPress: () => void;
}

/** What can be done with this message. */
export type MessageActions = (message: Message) => readonly MessageAction[];

type Action = 'edit' | 'delete' | 'retry' | 'discard';
type Cancel = Omit<MessageAction, 'onPress'> & Partial<MessageAction>;

/** As of ChatRoom. */
export type ChatRoomProps = Look & {
  readonly conversationId: string;
  readonly isOnScreen?: boolean;
  readonly actions?: MessageActions;
  readonly renderContent?: (message: Message) => ReactNode;
  readonly children?: (state: ConversationState) => ReactNode;
  readonly beforeInput?: ReactNode;
  readonly onError?: (error: unknown) => void;
};

/**
 * A conversation: its messages, and the line to write in. A press on a message shows what can be done with it.
 *
 * It marks what is on the screen as read while the app is visible. `isOnScreen`: as of useConversation. `actions`: of your own, such
 * as to report a message, for each that is not deleted. `renderContent` draws the content of a message; null: its photos and its
 * text. When one of these two is another function, all messages are drawn again. `children` draws what stands between the messages and the text
 * input. `beforeInput` stands before that, such as a button for a photo. `onError` gets what the person should know, such as a full
 * disk.
 */
export function ChatRoom(props: ChatRoomProps): ReactElement {
  // What is written in one conversation never stands in another, nor what one account writes in that of another.
  return <OneRoom key={`${useChat().userId} ${props.conversationId}`} {...props} />;
}

function OneRoom(props: ChatRoomProps): ReactElement {
  const { conversationId, isOnScreen = true, actions, children, onError = console.warn, words = ENGLISH } = props;
  const chat = useChat();
  const colors = useColors(props);
  const state = useConversation(conversationId, { isOnScreen });
  const { isPartnerTyping, typing } = useTyping(conversationId);
  const [edited, setEdited] = useState<Message | null>(null);
  const [top, setTop] = useState(0);
  const room = useRef<ComponentRef<typeof View>>(null);
  const { conversation, messages, error } = state;
  const fail = useLatest(onError);
  useReadMark(messages, { isOnScreen, onError: fail });
  useEffect(() => {
    if (error) fail(error);
  }, [error, fail]);

  const allActions = useCallback(
    (message: Message) => {
      const { id, senderId, text, status, deletedAt, serverTimestamp } = message;
      const isFailed = status === 'failed';
      const names = [
        isFailed && 'retry',
        isFailed && 'discard',
        text && !(isFailed && serverTimestamp) && 'edit',
        !isFailed && !deletedAt && 'delete',
      ] as const;
      const act = (name: Action) => ({
        title: words[name],
        isDangerous: name.startsWith('d'), // delete, discard
        onPress: () => (name === 'edit' ? setEdited(message) : void chat[name](id).catch(fail)),
      });
      return [
        ...(senderId === chat.userId ? names.filter((name) => !!name).map(act) : []),
        ...(deletedAt ? [] : (actions?.(message) ?? [])),
      ];
    },
    [chat, words, actions, fail],
  );
  const submit = async (write: Promise<unknown>) => {
    typing(false);
    try {
      await write;
      return true;
    } catch (cause) {
      fail(cause);
      return false;
    }
  };
  // Android does not resize the window for the keyboard where apps are drawn edge to edge, as all are from Android 16 on: so there is a
  // behavior on both platforms, which adds nothing to a window that was resized. KeyboardAvoidingView takes its place in its parent for
  // that in the window. So it is measured what is above the room, such as a header.
  return (
    <View
      ref={room}
      style={[styles.fill, { backgroundColor: colors.background }]}
      onLayout={() => room.current?.measureInWindow((_x, y) => setTop(y))}
    >
      <KeyboardAvoidingView style={styles.fill} behavior="padding" keyboardVerticalOffset={top}>
        <MessageList {...props} {...state} me={chat.userId} onEnd={state.loadOlder} actions={allActions} />
        {children?.(state)}
        <Text style={[styles.typing, { color: colors.quiet }]} accessibilityLiveRegion="polite">
          {isPartnerTyping ? words.typing(conversation?.partner.displayName ?? '…') : ''}
        </Text>
        <Composer {...props} isHidden={edited !== null} onSubmit={(text) => submit(chat.send(conversationId, text))} onType={typing} />
        {edited && (
          <Composer
            key={edited.id}
            {...props}
            initial={edited.text}
            beforeInput={null}
            onSubmit={(text) => submit(chat.edit(edited.id, text).then(() => setEdited(null)))}
            onType={typing}
            onCancel={() => setEdited(null)}
          />
        )}
      </KeyboardAvoidingView>
    </View>
  );
}

/**
 * Marks the messages as read that are on the screen while the app is visible.
 *
 * A message that is not sent, or has failed, stays at the bottom: the newest one of the server is marked.
 */
export function useReadMark(
  messages: readonly Message[],
  { isOnScreen = true, onError = console.warn }: { readonly isOnScreen?: boolean; readonly onError?: (error: unknown) => void } = {},
): void {
  const chat = useChat();
  const isActive = useKept(visible);
  const fail = useLatest(onError);
  const newest = messages.find(({ serverTimestamp }) => serverTimestamp !== null)?.id;
  useEffect(() => {
    if (isOnScreen && isActive && newest !== undefined) chat.markRead(newest).catch(fail);
  }, [chat, isOnScreen, isActive, newest, fail]);
}

/** The messages, newest at the bottom. `me`: whose messages are own ones. `onEnd`: the oldest came on the screen. */
export function MessageList(
  props: Look & {
    readonly messages: readonly Message[];
    readonly me: string | null;
    readonly isLoaded?: boolean;
    readonly onEnd?: () => Promise<void>;
    readonly actions?: MessageActions | undefined;
    readonly renderContent?: ((message: Message) => ReactNode) | undefined;
  },
): ReactElement {
  const { messages, me, isLoaded = true, onEnd, actions, renderContent, words = ENGLISH } = props;
  const colors = useColors(props);
  const [opened, setOpened] = useState<string | null>(null);
  if (!messages.length) {
    return (
      <View style={[styles.fill, styles.empty]}>
        <Text style={{ color: colors.quiet }}>{isLoaded ? words.empty : ''}</Text>
      </View>
    );
  }
  return (
    <FlatList
      inverted
      keyboardShouldPersistTaps="handled" // or the first press would only close the keyboard
      style={styles.fill}
      data={messages}
      keyExtractor={keyOf}
      extraData={opened}
      onEndReached={() => void onEnd?.()}
      renderItem={({ item }) => (
        <MessageBubble
          message={item}
          isOwn={item.senderId === me}
          isOpen={opened === item.id}
          words={words}
          colors={colors}
          onOpen={setOpened}
          actions={actions}
          renderContent={renderContent}
        />
      )}
    />
  );
}

/**
 * A message. It is drawn again only when it changes. A message with actions is opened and closed by a press, by `onOpen`. `isOpen`:
 * with their buttons, and with the reason why it was not sent.
 */
export const MessageBubble = memo(function MessageBubble(
  props: Look & {
    readonly message: Message;
    readonly isOwn: boolean;
    readonly isOpen?: boolean;
    readonly onOpen?: (messageId: string | null) => void;
    readonly actions?: MessageActions | undefined;
    readonly renderContent?: ((message: Message) => ReactNode) | undefined;
  },
): ReactElement {
  const { message, isOwn, isOpen = false, onOpen, renderContent, words = ENGLISH } = props;
  const chat = useChat();
  const colors = useColors(props);
  const side = isOwn ? styles.own : styles.other;
  const actions = props.actions?.(message) ?? [];
  const { serverTimestamp, editedAt, deletedAt, status, error } = message;
  const notes = [serverTimestamp && timeOf(serverTimestamp), editedAt && !deletedAt && words.edited, isOwn && words.statuses[status]]
    .filter(Boolean)
    .join(' · ');
  const photos = message.attachments.flatMap(({ type, url }) => (type === 'image' && typeof url === 'string' && chat.isStored(url) ? [url] : []));
  const text = deletedAt ? words.deleted : message.text || (message.attachments.length > photos.length ? words.attachment : '');
  const open = (isOpened: boolean) => onOpen?.(isOpened ? message.id : null);
  const onContextMenu = (event: Event) => {
    event.preventDefault();
    open(true);
  };
  return (
    <View style={[styles.row, side]}>
      <Pressable
        testID="message"
        style={[styles.within, side]}
        aria-label={[photos.length && words.photo, text, notes].filter(Boolean).join(', ')}
        accessibilityActions={actions.map(({ title }) => ({ name: title, label: title }))}
        onAccessibilityAction={({ nativeEvent }) => actions.find(({ title }) => title === nativeEvent.actionName)?.onPress()}
        {...(actions.length
          ? { role: 'button', 'aria-expanded': isOpen, onPress: () => open(!isOpen), onLongPress: () => open(true), onContextMenu }
          : {})}
      >
        <View style={[styles.within, styles.bubble, { backgroundColor: isOwn ? colors.own : colors.other }]}>
          {(!deletedAt && renderContent?.(message)) || (
            <>
              {photos.map((uri, index) => (
                <Image key={index} style={styles.photo} source={{ uri }} aria-label={words.photo} />
              ))}
              {text !== '' && (
                <Text style={[styles.text, { color: isOwn ? colors.ownText : colors.otherText }, deletedAt && styles.deleted]}>{text}</Text>
              )}
            </>
          )}
        </View>
        <Text style={[styles.notes, { color: status === 'failed' ? colors.problem : colors.quiet }]}>{notes}</Text>
      </Pressable>
      {isOpen && error && <Text style={[styles.notes, { color: colors.problem }]}>{error}</Text>}
      {isOpen && (
        <View style={styles.actions}>
          {[...actions, { title: words.cancel }].map(({ title, isDangerous, onPress }: Cancel) => (
            <Choice
              key={title}
              title={title}
              color={isDangerous ? colors.problem : onPress ? colors.accent : colors.quiet}
              onPress={() => {
                open(false);
                onPress?.();
              }}
            />
          ))}
        </View>
      )}
    </View>
  );
});

/**
 * The line to write in. In a browser, Enter sends, and Shift and Enter begin a line. `onSubmit` resolves with whether the text may
 * go. `isHidden`: not drawn, but its text is kept. `onCancel`: for an edit.
 */
export function Composer(
  props: Look & {
    readonly initial?: string;
    readonly isHidden?: boolean;
    readonly beforeInput?: ReactNode;
    readonly onSubmit: (text: string) => Promise<boolean>;
    readonly onType?: (isTyping?: boolean) => void;
    readonly onCancel?: () => void;
  },
): ReactElement {
  const { initial = '', isHidden, beforeInput, onSubmit, onType, onCancel, words = ENGLISH } = props;
  const colors = useColors(props);
  const [text, setText] = useState(initial);
  const isEmpty = !text.trim();
  const submit = () => {
    if (isEmpty) return;
    setText('');
    void onSubmit(text.trim()).then((isDone) => {
      if (!isDone) setText((now) => now || text); // what was written meanwhile stays
    });
  };
  if (isHidden) return <></>;
  return (
    <View style={styles.composer}>
      {beforeInput}
      <TextInput
        style={[styles.input, { color: colors.otherText, backgroundColor: colors.other }]}
        multiline
        {...(Platform.OS === 'web' ? { numberOfLines: 1, onKeyPress: onEnter(submit) } : {})} // a textarea has two lines
        autoFocus={initial !== ''}
        value={text}
        placeholder={words.write}
        placeholderTextColor={colors.quiet}
        aria-label={onCancel ? words.edit : words.write}
        onChangeText={(next) => {
          setText(next);
          onType?.(next.length > 0);
        }}
      />
      {onCancel && <Choice title={words.cancel} color={colors.quiet} onPress={onCancel} />}
      <Choice title={onCancel ? words.save : words.send} color={isEmpty ? colors.quiet : colors.accent} disabled={isEmpty} onPress={submit} />
    </View>
  );
}

interface Key {
  readonly key: string;
  readonly shiftKey?: boolean;
  readonly isComposing?: boolean;
  readonly keyCode?: number;
}

/**
 * In browsers, a press of a key also tells whether Shift is down, and whether Enter only ends a word of an input method. Safari
 * tells the latter by the code 229.
 */
function onEnter(submit: () => void): (event: TextInputKeyPressEvent) => void {
  return (event) => {
    const { key, shiftKey, isComposing, keyCode } = event.nativeEvent as Key;
    if (key !== 'Enter' || shiftKey || isComposing || keyCode === 229) return;
    event.preventDefault();
    submit();
  };
}

interface Button {
  readonly title: string;
  readonly color: string;
  readonly disabled?: boolean;
  readonly onPress: () => void;
}

function Choice({ title, color, ...props }: Button): ReactElement {
  return (
    <Pressable style={styles.choice} role="button" {...props}>
      <Text style={[styles.text, { color }]}>{title}</Text>
    </Pressable>
  );
}

function useColors({ colors }: Look): Colors {
  const scheme = useColorScheme();
  return colors ?? (scheme === 'dark' ? DARK : LIGHT);
}

/** Whether the app is visible: messages that arrive in the background are not read. */
const visible: Kept<boolean> = {
  state: () => AppState.currentState === 'active',
  subscribe: (listener) => {
    const changes = AppState.addEventListener('change', listener);
    return () => changes.remove();
  },
};

/** The time of a day, and the date of another day. */
export function timeOf(time: Date): string {
  return time.toDateString() === new Date().toDateString()
    ? time.toLocaleTimeString([], { hour: 'numeric', minute: '2-digit' })
    : time.toLocaleDateString([], { day: 'numeric', month: 'short' });
}

/** A font size. On phones the system makes it larger; in browsers it must be a part of that of the page. */
function sizeOf(size: number): number {
  return Platform.OS === 'web' ? (`${size / 16}rem` as unknown as number) : size;
}

/** The same before and after a message is sent, so that it keeps its place in the list. */
function keyOf({ senderId, clientMsgId, id }: Message): string {
  return senderId + (clientMsgId ?? id); // another person may send the same clientMsgId
}

// start and end, not left and right: in Arabic and Hebrew the own messages are on the left.
const styles = StyleSheet.create({
  fill: { flex: 1 },
  empty: { alignItems: 'center', justifyContent: 'center' },
  row: { maxWidth: '85%', marginHorizontal: 12, marginVertical: 4 },
  own: { alignSelf: 'flex-end', alignItems: 'flex-end' },
  other: { alignSelf: 'flex-start', alignItems: 'flex-start' },
  // A word may be longer than a line. In a browser, the text of a button could not be selected.
  within: { maxWidth: '100%', ...(Platform.OS === 'web' ? { userSelect: 'text' } : {}) },
  bubble: { borderRadius: 18, paddingHorizontal: 14, paddingVertical: 8, gap: 6 },
  photo: { width: 220, maxWidth: '100%', aspectRatio: 4 / 3, borderRadius: 10 },
  text: { fontSize: sizeOf(16) },
  deleted: { fontStyle: 'italic' },
  notes: { fontSize: sizeOf(12), marginTop: 2 },
  actions: { flexDirection: 'row', flexWrap: 'wrap' },
  typing: { minHeight: 20, fontSize: sizeOf(13), marginHorizontal: 16 },
  composer: { flexDirection: 'row', alignItems: 'flex-end', padding: 8 },
  input: {
    flex: 1,
    minWidth: 0,
    minHeight: 44,
    maxHeight: 140,
    borderRadius: 22,
    paddingHorizontal: 16,
    paddingVertical: 11,
    fontSize: sizeOf(16),
    ...(Platform.OS === 'web' ? { fieldSizing: 'content' } : {}), // grows with its lines; a browser without it scrolls
  },
  choice: { minHeight: 44, minWidth: 44, paddingHorizontal: 12, alignItems: 'center', justifyContent: 'center' },
});
