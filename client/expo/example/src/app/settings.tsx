import { useAccount } from '../account';
import { prefer, useChoices, type Preview } from '../choices';
import { Blocked } from '../components/Blocked';
import { Button } from '../components/Button';
import { Choice } from '../components/Choice';
import { Notice } from '../components/Notice';
import { NotificationState } from '../components/NotificationState';
import { Page } from '../components/Page';
import { QuietHours } from '../components/QuietHours';
import { useTask } from '../tasks';

/** What holds for all conversations. */
export default function Settings() {
  const { signOut } = useAccount();
  const { choices, error, isBusy, change } = useChoices();
  const leaving = useTask();
  return (
    <Page title="Settings">
      <NotificationState />
      {error && <Notice isError text={error} />}
      {choices && (
        <>
          <Choice<Preview>
            label="Notifications show"
            options={[
              ['full', 'Name and message'],
              ['name', 'Name'],
              ['none', 'Nothing'],
            ]}
            value={choices.preview}
            disabled={isBusy}
            onChange={(preview) => change(() => prefer({ preview }))}
          />
          <QuietHours
            hours={choices.quiet_hours}
            disabled={isBusy}
            onChange={(quiet_hours) => change(() => prefer({ quiet_hours }))}
          />
          {choices.quiet_hours && (
            <Choice<'silent' | 'none'>
              label="In quiet hours"
              options={[
                ['silent', 'Without a sound'],
                ['none', 'No notifications'],
              ]}
              value={choices.while_quiet}
              disabled={isBusy}
              onChange={(while_quiet) => change(() => prefer({ while_quiet }))}
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
