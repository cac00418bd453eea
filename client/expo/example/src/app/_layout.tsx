import { Stack } from 'expo-router';
import { SafeAreaProvider } from 'react-native-safe-area-context';

import { SignedIn } from '../client';
import { useTheme } from '../theme';

/** A link opens its screen above the list of conversations. */
export const unstable_settings = { anchor: 'index' };

export default function Layout() {
  const { colors } = useTheme();
  return (
    <SafeAreaProvider>
      <SignedIn>
        <Stack
          screenOptions={{
            headerStyle: { backgroundColor: colors.background },
            headerTintColor: colors.link,
            headerTitleStyle: { color: colors.text },
            headerTitleAlign: 'left',
            contentStyle: { backgroundColor: colors.background },
          }}
        />
      </SignedIn>
    </SafeAreaProvider>
  );
}
