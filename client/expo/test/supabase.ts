// The Supabase client of the app in README.md.

import type { SupabaseClient } from '@supabase/supabase-js';

export declare const supabase: SupabaseClient;
