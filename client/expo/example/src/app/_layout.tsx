import { Stack } from 'expo-router';
import { View } from 'react-native';
import { SafeAreaProvider } from 'react-native-safe-area-context';

import { SignedIn } from '../client';
import { direction } from '../direction';
import { useTheme } from '../theme';

/** A link opens its screen above the list of conversations. */
export const unstable_settings = { anchor: 'index' };

export default function Layout() {
  const { colors, headerText } = useTheme();
  return (
    <View style={{ flex: 1 }} {...direction}>
      <SafeAreaProvider>
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
      </SafeAreaProvider>
    </View>
  );
}
