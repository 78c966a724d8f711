import { Anchor, AppShell, Container, Group, SegmentedControl, useMantineColorScheme } from "@mantine/core";
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";

const SCHEMES = [
  { value: "light", label: "Light" },
  { value: "dark", label: "Dark" },
  { value: "auto", label: "Auto" },
] as const;

/** What stands around every page. */
export function Shell({ children }: { children: ReactNode }) {
  return (
    <AppShell header={{ height: 56 }} padding="md">
      <AppShell.Header>
        <Group h="100%" px="md" justify="space-between" wrap="nowrap">
          <Anchor fw={700} size="lg" underline="never" renderRoot={(props) => <Link to="/" {...props} />}>
            Modelkeep
          </Anchor>
          <Scheme />
        </Group>
      </AppShell.Header>
      <AppShell.Main>
        <Container size="lg" px={0}>
          {children}
        </Container>
      </AppShell.Main>
    </AppShell>
  );
}

function Scheme() {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  return (
    <SegmentedControl size="xs" aria-label="Colours" data={[...SCHEMES]} value={colorScheme} onChange={setColorScheme} />
  );
}
