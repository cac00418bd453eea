// The part of expo-constants that chat-push-client/expo uses.

import type * as Expo from 'expo-constants';

const id = process.env['EAS_PROJECT_ID'];

export const ExecutionEnvironment = {
  StoreClient: 'storeClient' as Expo.ExecutionEnvironment.StoreClient,
  Standalone: 'standalone' as Expo.ExecutionEnvironment.Standalone,
};

export default {
  expoConfig: { name: 'Chat', slug: 'chat', extra: { eas: { projectId: id } } },
  easConfig: null,
  executionEnvironment:
    process.env['PHONE'] === 'Expo Go' ? ExecutionEnvironment.StoreClient : ExecutionEnvironment.Standalone,
};
