// The part of expo-constants that docs/client/push.ts uses.

const id = process.env.EAS_PROJECT_ID;

const constants: {
  expoConfig: { extra?: { eas?: { projectId?: string } } } | null;
  easConfig: { projectId?: string } | null;
} = { expoConfig: id ? { extra: { eas: { projectId: id } } } : {}, easConfig: null };

export default constants;
