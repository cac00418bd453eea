// For moderators: each call of supabase-js, with all arguments. docs/operate.md says how to answer reports.

import { supabase } from './supabase'; // your app's Supabase client

type Report = {
  id: string;
  created_at: string;
  reporter_id: string | null; // null: that account was deleted
  reported_id: string;
  reported_name: string | null;
  reason: string;
  details: string | null;
  room_id: string | null;
  message_id: string | null; // null: a person was reported
  message: string | null; // the text as it was then
  attachments: unknown[] | null;
  sent_at: string | null;
  edited_at: string | null;
  resolved_at: string | null;
  resolved_by: string | null;
  resolution: 'dismissed' | 'confirmed' | 'removed' | null;
  note: string | null;
  reports_of_reported: number; // all reports of that person, resolved ones, too
  suspended_until: string | null; // 'infinity': until unsuspend
};

/** Returns a page of reports, the oldest first. `last` is the last report of the page before. */
export const reports = async (state: 'open' | 'resolved' = 'open', last?: Report): Promise<Report[]> =>
  (await supabase.rpc('list_reports', { p_state: state, p_limit: 50, p_after_id: last?.id ?? null }).throwOnError()).data;

/** `removed` also deletes the message, for both people. */
export const resolve = async (reportId: string, resolution: 'dismissed' | 'confirmed' | 'removed', note?: string) =>
  supabase.rpc('resolve_report', { p_report_id: reportId, p_resolution: resolution, p_note: note ?? null }).throwOnError();

/** Until a time, or null: until unsuspend. The person can read, but not write. */
export const suspend = async (userId: string, until: Date | null) =>
  supabase.rpc('suspend_user', { p_user_id: userId, p_until: until?.toISOString() ?? null }).throwOnError();

export const unsuspend = async (userId: string) =>
  supabase.rpc('unsuspend_user', { p_user_id: userId }).throwOnError();
