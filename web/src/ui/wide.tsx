import { Table } from "@mantine/core";
import type { ReactNode } from "react";

/** A table that scrolls within itself where the screen is narrower than it can be; by the keyboard, too. */
export function Wide({ label, least, children }: { label: string; least: number; children: ReactNode }) {
  return (
    <Table.ScrollContainer minWidth={least} type="native" role="region" aria-label={label} tabIndex={0}>
      {children}
    </Table.ScrollContainer>
  );
}
