import { Box, Group, Title } from "@mantine/core";
import type { ReactNode } from "react";

/** A part of a page, under its title; what can be done there stands beside it. */
export function Section({ title, actions, children }: { title: string; actions?: ReactNode; children: ReactNode }) {
  return (
    <Box component="section">
      <Group justify="space-between" mb="xs">
        <Title order={2} size="h4">
          {title}
        </Title>
        {actions}
      </Group>
      {children}
    </Box>
  );
}
