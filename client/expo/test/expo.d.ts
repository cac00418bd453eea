// What the README and the guide use of expo-sqlite, which is not installed here: it is 76 MB. The example app has its types.

declare module 'expo-sqlite' {
  export function openDatabaseAsync(name: string): Promise<import('../src/database.ts').Database>;
}
