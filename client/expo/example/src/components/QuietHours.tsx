import type { QuietHours as Hours } from 'chat-push-client';
import { useState } from 'react';
import { View } from 'react-native';

import { Button } from './Button';
import { Choice } from './Choice';
import { Field } from './Field';

interface Props {
  readonly hours: Hours | null;
  readonly disabled: boolean;
  readonly onChange: (hours: Hours | null) => void;
}

/** When notifications are quiet, every day, in the time zone of this device. */
export function QuietHours({ hours, disabled, onChange }: Props) {
  const [from, setFrom] = useState(hours?.from ?? '22:00');
  const [until, setUntil] = useState(hours?.until ?? '07:00');
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const isChanged = hours !== null && (from !== hours.from || until !== hours.until);
  return (
    <>
      <Choice
        label="Quiet hours"
        options={[
          [false, 'Off'],
          [true, 'On'],
        ]}
        value={hours !== null}
        disabled={disabled}
        onChange={(isOn) => onChange(isOn ? { zone, from, until } : null)}
      />
      {hours && (
        <View style={{ flexDirection: 'row', flexWrap: 'wrap', alignItems: 'flex-end', gap: 12 }}>
          <Field label="From" value={from} onChangeText={setFrom} inputMode="numeric" />
          <Field label="Until" value={until} onChangeText={setUntil} inputMode="numeric" />
          {isChanged && <Button label="Save hours" disabled={disabled} onPress={() => onChange({ zone, from, until })} />}
        </View>
      )}
    </>
  );
}
