// A chat room of plain React Native, whole or in parts. It works in any app that has a ChatProvider.

import { memo, useCallback, useEffect, useMemo, useState } from 'react';
import type { ReactElement, ReactNode } from 'react';
import { AppState, FlatList, KeyboardAvoidingView, Platform, Pressable, StyleSheet, Text, TextInput, View, useColorScheme } from 'react-native';
import type { TextInputKeyPressEvent } from 'react-native';

import type { Message, Status } from './models.ts';
import { useChat, useConversation, useTyping } from './react.ts';

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

/** What an own message can be told: by a long press, or by the actions of a screen reader. */
export type Action = 'edit' | 'delete' | 'retry' | 'discard';

/**
 * A conversation: its messages, and the line to write in.
 *
 * It marks what is on the screen as read while the app is visible. `isOnScreen`: as of useConversation. `renderContent` draws
 * the content of a message, such as the images of your attachments; null: its text. `beforeInput` stands before the text input,
 * such as a button for a photo. `onError` gets what the person should know, such as a full disk.
 */
export function ChatRoom(
  props: Look & {
    readonly conversationId: string;
    readonly isOnScreen?: boolean;
    readonly renderContent?: (message: Message) => ReactNode;
    readonly beforeInput?: ReactNode;
    readonly onError?: (error: unknown) => void;
  },
): ReactElement {
  const { conversationId, isOnScreen = true, onError = console.warn, words = ENGLISH } = props;
  const chat = useChat();
  const colors = useColors(props);
  const { conversation, messages, isLoaded, loadOlder } = useConversation(conversationId, { isOnScreen });
  const { isPartnerTyping, typing } = useTyping(conversationId);
  const [edited, setEdited] = useState<Message | null>(null);
  useReadMark(messages, { isOnScreen, onError });

  const act = useCallback(
    (message: Message, action: Action) => {
      if (action === 'edit') setEdited(message);
      else chat[action](message.id).catch(onError);
    },
    [chat, onError],
  );
  const submit = async (text: string) => {
    typing(false);
    try {
      await (edited ? chat.edit(edited.id, text) : chat.send(conversationId, text));
    } catch (error) {
      onError(error);
      return false;
    }
    setEdited(null);
    return true;
  };
  return (
    <KeyboardAvoidingView
      style={[styles.room, { backgroundColor: colors.background }]}
      {...(Platform.OS === 'ios' ? { behavior: 'padding' } : {})}
    >
      <MessageList {...props} messages={messages} isLoaded={isLoaded} me={chat.userId} onEnd={loadOlder} onAction={act} />
      <Text style={[styles.typing, { color: colors.quiet }]} accessibilityLiveRegion="polite">
        {isPartnerTyping ? words.typing(conversation?.partner.displayName ?? '…') : ''}
      </Text>
      <Composer
        {...props}
        key={edited?.id ?? 'new'}
        initial={edited?.text ?? ''}
        onSubmit={submit}
        onType={typing}
        {...(edited ? { onCancel: () => setEdited(null) } : {})}
      />
    </KeyboardAvoidingView>
  );
}

/**
 * Marks the messages as read that are on the screen while the app is visible. `onError` must be the same function in each call.
 *
 * A message that is not sent, or has failed, stays at the bottom: the newest one of the server is marked.
 */
export function useReadMark(
  messages: readonly Message[],
  { isOnScreen = true, onError = console.warn }: { readonly isOnScreen?: boolean; readonly onError?: (error: unknown) => void } = {},
): void {
  const chat = useChat();
  const isActive = useIsActive();
  const newest = messages.find(({ serverTimestamp }) => serverTimestamp !== null)?.id;
  useEffect(() => {
    if (isOnScreen && isActive && newest !== undefined) chat.markRead(newest).catch(onError);
  }, [chat, isOnScreen, isActive, newest, onError]);
}

/**
 * The messages, newest at the bottom. `me`: whose messages are own ones. `onEnd`: the oldest came on the screen. `onPress`: for
 * actions of your own, also on messages of others.
 */
export function MessageList(
  props: Look & {
    readonly messages: readonly Message[];
    readonly me: string | null;
    readonly isLoaded?: boolean;
    readonly onEnd?: () => Promise<void>;
    readonly onAction?: (message: Message, action: Action) => void;
    readonly onPress?: (message: Message) => void;
    readonly renderContent?: (message: Message) => ReactNode;
  },
): ReactElement {
  const { messages, me, isLoaded = true, onEnd, onAction, onPress, renderContent, words = ENGLISH } = props;
  const colors = useColors(props);
  const [opened, setOpened] = useState<string | null>(null);
  const act = useCallback(
    (message: Message, action: Action) => {
      setOpened(null);
      onAction?.(message, action);
    },
    [onAction],
  );
  if (!messages.length) {
    return (
      <View style={styles.empty}>
        <Text style={{ color: colors.quiet }}>{isLoaded ? words.empty : ''}</Text>
      </View>
    );
  }
  return (
    <FlatList
      inverted
      keyboardShouldPersistTaps="handled" // or the first press would only close the keyboard
      style={styles.list}
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
          {...(onAction ? { onAction: act } : {})}
          {...(onPress ? { onPress } : {})}
          {...(renderContent ? { renderContent } : {})}
        />
      )}
    />
  );
}

/**
 * A message. It is drawn again only when it changes. `isOpen`: with the buttons of its actions, which a long press on an own
 * message opens by `onOpen`, and with the reason why it was not sent.
 */
export const MessageBubble = memo(function MessageBubble(
  props: Look & {
    readonly message: Message;
    readonly isOwn: boolean;
    readonly isOpen?: boolean;
    readonly onOpen?: (messageId: string | null) => void;
    readonly onAction?: (message: Message, action: Action) => void;
    readonly onPress?: (message: Message) => void;
    readonly renderContent?: (message: Message) => ReactNode;
  },
): ReactElement {
  const { message, isOwn, isOpen = false, onOpen, onAction, onPress, renderContent, words = ENGLISH } = props;
  const colors = useColors(props);
  const actions = isOwn && onAction ? actionsOf(message) : [];
  const status = isOwn ? words.statuses[message.status] : '';
  const notes = [timeOf(message), message.editedAt && !message.deletedAt ? words.edited : '', status].filter(Boolean).join(' · ');
  const text = textOf(message, words);
  const color = isOwn ? colors.ownText : colors.otherText;
  return (
    <View style={[styles.row, isOwn ? styles.own : styles.other]}>
      <Pressable
        testID="message"
        style={[styles.within, isOwn ? styles.own : styles.other]}
        accessible
        accessibilityLabel={`${text}, ${notes}`}
        accessibilityActions={actions.map((name) => ({ name, label: words[name] }))}
        onAccessibilityAction={({ nativeEvent }) => onAction?.(message, nativeEvent.actionName as Action)}
        {...(actions.length ? { onLongPress: () => onOpen?.(isOpen ? null : message.id) } : {})}
        {...(onPress && !message.deletedAt ? { accessibilityRole: 'button', onPress: () => onPress(message) } : {})}
      >
        <View style={[styles.within, styles.bubble, { backgroundColor: isOwn ? colors.own : colors.other }]}>
          {(!message.deletedAt && renderContent?.(message)) || (
            <Text style={[styles.text, { color }, message.deletedAt && styles.deleted]}>{text}</Text>
          )}
        </View>
        <Text style={[styles.notes, { color: message.status === 'failed' ? colors.problem : colors.quiet }]}>{notes}</Text>
      </Pressable>
      {isOpen && message.error && <Text style={[styles.notes, { color: colors.problem }]}>{message.error}</Text>}
      {isOpen && (
        <View style={styles.actions}>
          {actions.map((action) => (
            <Choice key={action} title={words[action]} color={colors.accent} onPress={() => onAction?.(message, action)} />
          ))}
          <Choice title={words.cancel} color={colors.quiet} onPress={() => onOpen?.(null)} />
        </View>
      )}
    </View>
  );
});

/**
 * The line to write in. In a browser, Enter sends, and Shift and Enter begin a line. `onSubmit` resolves with whether the text may
 * go. `onCancel`: for an edit.
 */
export function Composer(
  props: Look & {
    readonly initial?: string;
    readonly beforeInput?: ReactNode;
    readonly onSubmit: (text: string) => Promise<boolean>;
    readonly onType?: (isTyping?: boolean) => void;
    readonly onCancel?: () => void;
  },
): ReactElement {
  const { initial = '', beforeInput, onSubmit, onType, onCancel, words = ENGLISH } = props;
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
        accessibilityLabel={words.write}
        onChangeText={(next) => {
          setText(next);
          onType?.(next.length > 0);
        }}
      />
      {onCancel && <Choice title={words.cancel} color={colors.quiet} onPress={onCancel} />}
      <Choice title={onCancel ? words.save : words.send} color={isEmpty ? colors.quiet : colors.accent} isDisabled={isEmpty} onPress={submit} />
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

function Choice(props: { readonly title: string; readonly color: string; readonly isDisabled?: boolean; readonly onPress: () => void }): ReactElement {
  const { title, color, isDisabled = false, onPress } = props;
  return (
    <Pressable style={styles.choice} accessibilityRole="button" disabled={isDisabled} onPress={onPress}>
      <Text style={[styles.text, { color }]}>{title}</Text>
    </Pressable>
  );
}

function useColors({ colors }: Look): Colors {
  const scheme = useColorScheme();
  return useMemo(() => colors ?? (scheme === 'dark' ? DARK : LIGHT), [colors, scheme]);
}

/** Whether the app is visible: messages that arrive in the background are not read. */
function useIsActive(): boolean {
  const [isActive, setIsActive] = useState(AppState.currentState !== 'background');
  useEffect(() => {
    const listener = AppState.addEventListener('change', (state) => setIsActive(state === 'active'));
    return () => listener.remove();
  }, []);
  return isActive;
}

function actionsOf({ status, text, deletedAt, serverTimestamp }: Message): Action[] {
  if (status === 'failed') return ['retry', 'discard', ...(serverTimestamp || !text ? [] : (['edit'] as const))];
  if (deletedAt) return [];
  return text ? ['edit', 'delete'] : ['delete'];
}

function textOf({ text, deletedAt, attachments }: Message, words: Words): string {
  if (deletedAt) return words.deleted;
  return text || (attachments.length ? words.attachment : '');
}

/** The time of a day, and the date of another day. */
function timeOf({ serverTimestamp: time }: Message): string {
  if (time?.toDateString() === new Date().toDateString()) return time.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  return time?.toLocaleDateString([], { day: 'numeric', month: 'short' }) ?? '';
}

/** A font size. On phones the system makes it larger; in browsers it must be a part of that of the page. */
function sizeOf(size: number): number {
  return Platform.OS === 'web' ? (`${size / 16}rem` as unknown as number) : size;
}

/** The same before and after a message is sent, so that it keeps its place in the list. */
function keyOf({ clientMsgId, id }: Message): string {
  return clientMsgId ?? id;
}

// start and end, not left and right: in Arabic and Hebrew the own messages are on the left.
const styles = StyleSheet.create({
  room: { flex: 1 },
  list: { flex: 1 },
  empty: { flex: 1, alignItems: 'center', justifyContent: 'center' },
  row: { maxWidth: '85%', marginHorizontal: 12, marginVertical: 4 },
  own: { alignSelf: 'flex-end', alignItems: 'flex-end' },
  other: { alignSelf: 'flex-start', alignItems: 'flex-start' },
  within: { maxWidth: '100%' }, // a word may be longer than a line
  bubble: { borderRadius: 18, paddingHorizontal: 14, paddingVertical: 8 },
  text: { fontSize: sizeOf(16) },
  deleted: { fontStyle: 'italic' },
  notes: { fontSize: sizeOf(12), marginTop: 2 },
  actions: { flexDirection: 'row', flexWrap: 'wrap' },
  typing: { minHeight: 20, fontSize: sizeOf(13), marginHorizontal: 16 },
  composer: { flexDirection: 'row', alignItems: 'flex-end', padding: 8 },
  input: { flex: 1, minHeight: 44, maxHeight: 140, borderRadius: 22, paddingHorizontal: 16, paddingVertical: 11, fontSize: sizeOf(16) },
  choice: { minHeight: 44, minWidth: 44, paddingHorizontal: 12, alignItems: 'center', justifyContent: 'center' },
});
