import { useChat, useConversations } from 'chat-push-client/react';
import { router, useLocalSearchParams } from 'expo-router';

import { block, mute, setSound, unmute, useChoices } from '../../../choices';
import { Button } from '../../../components/Button';
import { Choice } from '../../../components/Choice';
import { Notice } from '../../../components/Notice';
import { Page } from '../../../components/Page';
import { when } from '../../../words';

const MUTES = [
  ['off', 'Off'],
  ['1', '1 hour'],
  ['8', '8 hours'],
  ['always', 'Always'],
] as const;

/** What holds for one conversation. */
export default function Details() {
  const { id } = useLocalSearchParams<{ id: string }>();
  const chat = useChat();
  const conversation = useConversations().conversations.find((each) => each.id === id);
  const { choices, error, isBusy, change } = useChoices();
  if (!conversation) return <Page title="">{null}</Page>;

  const leaveAfter = (work: () => Promise<unknown>) =>
    change(async () => {
      await work();
      router.dismissTo('/');
    });
  const muted = choices?.muted.find((each) => each.room_id === id);
  return (
    <Page title={conversation.partner.displayName ?? ''}>
      {error && <Notice isError text={error} />}
      {choices && (
        <>
          <Choice
            label={muted?.until ? `Muted until ${when(new Date(muted.until))}` : 'Mute'}
            options={MUTES}
            value={muted ? (muted.until ? null : 'always') : 'off'}
            disabled={isBusy}
            onChange={(hours) =>
              change(() => (hours === 'off' ? unmute(id) : mute(id, hours === 'always' ? null : Number(hours))))
            }
          />
          <Choice<'none' | null>
            label="Sound"
            options={[
              [null, 'Default'],
              ['none', 'None'],
            ]}
            value={choices.sounds[id] === 'none' ? 'none' : null}
            disabled={isBusy}
            onChange={(sound) => change(() => setSound(id, sound))}
          />
        </>
      )}
      <Button kind="plain" label="Archive" disabled={isBusy} onPress={() => leaveAfter(() => chat.archive(id))} />
      <Button
        kind="danger"
        label={`Block ${conversation.partner.displayName ?? ''}`}
        disabled={isBusy}
        onPress={() => leaveAfter(() => block(chat, conversation.partner.id))}
      />
    </Page>
  );
}
