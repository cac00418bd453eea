// What a person chose, as screens show it. The server keeps it, because it decides which push is sent.

import type { Choices, NotificationPreferences } from 'chat-push-client';
import { useChat } from 'chat-push-client/react';
import { useCallback, useEffect, useState } from 'react';

import { supabase } from './supabase';
import { useTask } from './tasks';

/** The preferences, and `change` to call one of `chat.choices`: it reads the preferences again. null: not read yet. */
export function usePreferences() {
  const { choices } = useChat();
  const [preferences, setPreferences] = useState<NotificationPreferences | null>(null);
  const { error, isBusy, run } = useTask();
  const read = useCallback(async () => setPreferences(await choices.myNotificationPreferences()), [choices]);
  useEffect(() => void run(read), [run, read]);
  const change = (call: (choices: Choices) => Promise<unknown>) =>
    void run(async () => {
      await call(choices);
      await read();
    });
  return { preferences, error, isBusy, change };
}

interface Blocked {
  readonly id: string;
  readonly name: string;
}

/** The blocked people, and `unblock`, which brings their conversation back. */
export function useBlocked() {
  const { choices } = useChat();
  const [blocked, setBlocked] = useState<readonly Blocked[]>([]);
  const { error, isBusy, run } = useTask();
  const read = useCallback(async () => {
    const ids = (await choices.blockedUsers()).map(({ userId }) => userId);
    const { data } = await supabase.from('users').select('id, display_name').in('id', ids).throwOnError();
    const names = new Map(data.map((person) => [person.id, person.display_name]));
    setBlocked(ids.map((id) => ({ id, name: names.get(id) ?? 'Somebody' })));
  }, [choices]);
  useEffect(() => void run(read), [run, read]);
  const unblock = (userId: string) =>
    void run(async () => {
      await choices.unblockUser(userId);
      await read();
    });
  return { blocked, error, isBusy, unblock };
}
