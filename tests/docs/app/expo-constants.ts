// The part of expo-constants that docs/client/push.ts uses.

const id = process.env.EAS_PROJECT_ID;

export default { expoConfig: { name: 'Chat', slug: 'chat', extra: { eas: { projectId: id } } }, easConfig: null };
