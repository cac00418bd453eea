import 'expo-sqlite/localStorage/install'; // where phones keep the session

import { createClient } from '@supabase/supabase-js';

import { publishableKey, supabaseUrl } from './config';

export const supabase = createClient(supabaseUrl, publishableKey, { auth: { detectSessionInUrl: false } });
