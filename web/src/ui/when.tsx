import { Text } from "@mantine/core";

import { ago, exactly } from "@/lib/values";

/** A moment: from now, and exactly to whoever points at it. */
export function When({ at }: { at: string }) {
  return (
    <Text component="time" inherit dateTime={at} title={exactly(at)}>
      {ago(at)}
    </Text>
  );
}
