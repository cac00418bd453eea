import { PushUnavailable, type PushUnavailableReason } from 'chat-push-client/expo';
import { Linking } from 'react-native';

import { useAccount } from '../account';
import { problem } from '../words';
import { Notice } from './Notice';

const REASONS: Record<PushUnavailableReason, string> = {
  not_asked: 'This phone shows no notifications yet.',
  denied: 'Notifications are off in the settings of the phone.',
  simulator: 'Simulators get no notifications. Use a real phone.',
  expo_go: 'Expo Go gets no notifications of this app. Use a build of your own.',
  no_project_id: 'This build has no project id: run eas init, and build again.',
  missing_module: 'This build lacks a part that notifications need. Build the app again.',
  no_token: 'This phone got no address for notifications. Is it online?',
  web: 'Browsers get no notifications of this app.',
};

/** Whether this phone gets notifications; if not, why, and what the person can do. */
export function NotificationState() {
  const { isRegistered, error, ask } = useAccount();
  if (isRegistered) return <Notice text="This phone shows notifications." />;
  if (!error) return null;
  if (!(error instanceof PushUnavailable)) return <Notice isError text={problem(error)} actions={{ 'Try again': () => void ask() }} />;
  const actions =
    error.reason === 'not_asked'
      ? { 'Turn on': () => void ask() }
      : error.reason === 'denied'
        ? { 'Open settings': () => void Linking.openSettings() }
        : {};
  return <Notice text={REASONS[error.reason]} actions={actions} />;
}
