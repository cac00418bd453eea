// The part of expo-task-manager that chat-push-client/expo uses.

import type { TaskManagerTaskExecutor } from 'expo-task-manager';
import { phone } from './expo-notifications.ts';

const tasks = new Map<string, TaskManagerTaskExecutor<any>>();

export function defineTask<T>(taskName: string, task: TaskManagerTaskExecutor<T>): void {
  tasks.set(taskName, task);
}

/** A push without a text arrives: the system runs the registered task. */
export async function pushInBackground(data: object): Promise<void> {
  for (const taskName of phone.tasks) {
    const executionInfo = { eventId: '', taskName };
    const payload = { notification: null, data: { dataString: JSON.stringify(data) } };
    await tasks.get(taskName)?.({ data: payload, error: null, executionInfo });
  }
}
