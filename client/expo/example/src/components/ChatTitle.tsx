import { Text, View } from 'react-native';

import { start } from '../direction';
import { HEADER_SCALE, themed } from '../theme';

interface Props {
  readonly name: string;
  readonly isHere: boolean;
}

/** The name of the partner, and whether they look at this conversation. */
export function ChatTitle({ name, isHere }: Props) {
  const styles = useStyles();
  return (
    <View>
      <Text role="heading" style={styles.name} numberOfLines={1} maxFontSizeMultiplier={HEADER_SCALE}>
        {name}
      </Text>
      {isHere && (
        <Text role="status" style={styles.state} maxFontSizeMultiplier={HEADER_SCALE}>
          In this chat
        </Text>
      )}
    </View>
  );
}

const useStyles = themed(({ colors, headerText }) => ({
  name: { color: colors.text, fontSize: headerText(18), fontWeight: '600', textAlign: start },
  state: { color: colors.muted, fontSize: headerText(13), textAlign: start },
}));
