// What README.md uses of Expo, whose packages are not installed here.

declare module 'expo-sqlite' {
  export function openDatabaseAsync(name: string): Promise<import('../src/database.ts').Database>;
}
