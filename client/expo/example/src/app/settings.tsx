import { Stack } from 'expo-router';
import { View } from 'react-native';

import { useAccount } from '../client';
import { Button } from '../components/Button';

export default function Settings() {
  const { signOut } = useAccount();
  return (
    <View>
      <Stack.Screen options={{ title: 'Settings' }} />
      <Button kind="danger" label="Sign out" onPress={() => void signOut()} />
    </View>
  );
}
