import type { Preview } from 'chat-push-client';

import { useAccount } from '../account';
import { Blocked } from '../components/Blocked';
import { Button } from '../components/Button';
import { Choice } from '../components/Choice';
import { Notice } from '../components/Notice';
import { NotificationState } from '../components/NotificationState';
import { Page } from '../components/Page';
import { QuietHours } from '../components/QuietHours';
import { usePreferences } from '../preferences';
import { useTask } from '../tasks';

/** What holds for all conversations. */
export default function Settings() {
  const { signOut } = useAccount();
  const { preferences, error, isBusy, change } = usePreferences();
  const leaving = useTask();
  return (
    <Page title="Settings">
      <NotificationState />
      {error && <Notice isError text={error} />}
      {preferences && (
        <>
          <Choice<Preview>
            label="Notifications show"
            options={[
              ['full', 'Name and message'],
              ['name', 'Name'],
              ['none', 'Nothing'],
            ]}
            value={preferences.preview}
            disabled={isBusy}
            onChange={(preview) => change((choices) => choices.setNotificationPreferences({ preview }))}
          />
          <QuietHours
            hours={preferences.quietHours}
            disabled={isBusy}
            onChange={(quietHours) => change((choices) => choices.setNotificationPreferences({ quietHours }))}
          />
          {preferences.quietHours && (
            <Choice<'silent' | 'none'>
              label="In quiet hours"
              options={[
                ['silent', 'Without a sound'],
                ['none', 'No notifications'],
              ]}
              value={preferences.whileQuiet}
              disabled={isBusy}
              onChange={(whileQuiet) => change((choices) => choices.setNotificationPreferences({ whileQuiet }))}
            />
          )}
          <Blocked />
        </>
      )}
      {leaving.error && <Notice isError text={leaving.error} />}
      <Button kind="danger" label="Sign out" disabled={leaving.isBusy} onPress={() => void leaving.run(signOut)} />
    </Page>
  );
}
