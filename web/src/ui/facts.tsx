import { Paper, SimpleGrid, Text } from "@mantine/core";
import type { ReactNode } from "react";

/** Single things to know, side by side. */
export function Facts({ children }: { children: ReactNode }) {
  return <SimpleGrid cols={{ base: 2, sm: 3, md: 4 }}>{children}</SimpleGrid>;
}

export function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <Paper withBorder p="sm">
      <Text size="xs" c="dimmed">
        {name}
      </Text>
      <Text component="div" fw={600} style={{ overflowWrap: "anywhere" }}>
        {children}
      </Text>
    </Paper>
  );
}
