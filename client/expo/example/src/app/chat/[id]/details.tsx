import { useChat, useConversations } from 'chat-push-client/react';
import { timeOf } from 'chat-push-client/react-native';
import { router, useLocalSearchParams } from 'expo-router';
import { useState } from 'react';

import { Button } from '../../../components/Button';
import { Choice } from '../../../components/Choice';
import { Notice } from '../../../components/Notice';
import { Page } from '../../../components/Page';
import { Report } from '../../../components/Report';
import { usePreferences } from '../../../preferences';

const MUTES = [
  ['off', 'Off'],
  ['1', '1 hour'],
  ['8', '8 hours'],
  ['168', '1 week'],
  ['always', 'Always'],
] as const;

/** What holds for one conversation. */
export default function Details() {
  const { id } = useLocalSearchParams<{ id: string }>();
  const chat = useChat();
  const conversation = useConversations().conversations.find((each) => each.id === id);
  const { preferences, error, isBusy, change } = usePreferences();
  const [isReporting, setIsReporting] = useState(false);
  if (!conversation) return <Page title="">{null}</Page>;

  const name = conversation.partner.displayName ?? '';
  const leaveAfter = (work: () => Promise<unknown>) =>
    change(async () => {
      await work();
      router.dismissTo('/');
    });
  const mutedUntil = preferences?.muted[id]; // null: until it is unmuted
  return (
    <Page title={name}>
      {error && <Notice isError text={error} />}
      {preferences && (
        <>
          <Choice
            label={mutedUntil ? `Muted until ${timeOf(mutedUntil)}` : 'Mute'}
            options={MUTES}
            value={mutedUntil === undefined ? 'off' : mutedUntil === null ? 'always' : null}
            disabled={isBusy}
            onChange={(hours) =>
              change((choices) =>
                hours === 'off' ? choices.unmuteConversation(id) : choices.muteConversation(id, inHours(hours)),
              )
            }
          />
          <Choice<'none' | null>
            label="Sound"
            options={[
              [null, 'Default'],
              ['none', 'None'],
            ]}
            value={preferences.sounds[id] === 'none' ? 'none' : null}
            disabled={isBusy}
            onChange={(sound) => change((choices) => choices.setConversationSound(id, sound))}
          />
        </>
      )}
      <Button kind="plain" label="Archive" disabled={isBusy} onPress={() => leaveAfter(() => chat.archive(id))} />
      <Button
        kind="danger"
        label={`Block ${name}`}
        disabled={isBusy}
        onPress={() => leaveAfter(() => chat.choices.blockUser(conversation.partner.id))}
      />
      {isReporting ? (
        <Report
          report={(reason) => chat.choices.reportUser(conversation.partner.id, reason)}
          onClose={() => setIsReporting(false)}
        />
      ) : (
        <Button kind="danger" label={`Report ${name}`} onPress={() => setIsReporting(true)} />
      )}
    </Page>
  );
}

function inHours(hours: string | null): Date | null {
  return hours === null || hours === 'always' ? null : new Date(Date.now() + Number(hours) * 3_600_000);
}
