import { Stack, type ErrorBoundaryProps } from 'expo-router';
import { Suspense } from 'react';
import { View } from 'react-native';
import { SafeAreaProvider } from 'react-native-safe-area-context';

import { SignedIn } from '../account';
import { Centered } from '../components/Centered';
import { direction } from '../direction';
import { useTheme } from '../theme';
import { problem } from '../words';

/** A link opens its screen above the list of conversations. */
export const unstable_settings = { anchor: 'index' };

/** Shows what went wrong, such as that another window of the browser has the database open. */
export function ErrorBoundary({ error }: ErrorBoundaryProps) {
  return <Centered title="The chat cannot be shown" text={problem(error)} />;
}

export default function Layout() {
  const { colors, headerText } = useTheme();
  return (
    <View style={{ flex: 1 }} {...direction}>
      <SafeAreaProvider>
        <Suspense fallback={<Centered isBusy title="Opening your chats…" />}>
          <SignedIn>
            <Stack
              screenOptions={{
                headerStyle: { backgroundColor: colors.background },
                headerTintColor: colors.link,
                headerTitleStyle: { color: colors.text, fontSize: headerText(18), fontWeight: '600' },
                headerShadowVisible: false,
                headerTitleAlign: 'left',
                contentStyle: { backgroundColor: colors.background },
              }}
            />
          </SignedIn>
        </Suspense>
      </SafeAreaProvider>
    </View>
  );
}
