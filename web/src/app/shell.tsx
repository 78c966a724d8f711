import { Anchor, AppShell, Burger, Button, Container, Group, NavLink, SegmentedControl, Stack, Text, useMantineColorScheme } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { Link, type LinkProps, useNavigate } from "@tanstack/react-router";
import type { ReactNode } from "react";

import { logOut, me } from "@/features/session/queries";

/** Where one can go from everywhere. */
const PAGES = [
  { to: "/models", label: "Models" },
] as const satisfies readonly { to: LinkProps["to"]; label: string }[];
const SCHEMES = [
  { value: "light", label: "Light" },
  { value: "dark", label: "Dark" },
  { value: "auto", label: "Auto" },
] as const;

/** What stands around every page: where one can go, for whoever is logged in. */
export function Shell({ children }: { children: ReactNode }) {
  const caller = useQuery({ ...me(), enabled: false }); // pages ask; this shows what they have learned
  const [open, { toggle, close }] = useDisclosure(false);
  const inside = caller.data !== undefined;
  return (
    <AppShell
      header={{ height: 56 }}
      navbar={{ width: 220, breakpoint: "sm", collapsed: { mobile: !open || !inside, desktop: !inside } }}
      padding="md"
    >
      <AppShell.Header>
        <Group h="100%" px="md" justify="space-between" wrap="nowrap">
          <Group wrap="nowrap">
            {inside ? <Burger opened={open} onClick={toggle} hiddenFrom="sm" size="sm" aria-label="Where to go" aria-expanded={open} /> : null}
            <Anchor fw={700} size="lg" underline="never" renderRoot={(props) => <Link to="/" {...props} />}>
              Modelkeep
            </Anchor>
          </Group>
          <Scheme />
        </Group>
      </AppShell.Header>
      {inside ? (
        <AppShell.Navbar p="md">
          <Stack justify="space-between" h="100%">
            <nav aria-label="Pages">
              {PAGES.map(({ to, label }) => (
                <NavLink
                  key={to}
                  label={label}
                  onClick={close}
                  renderRoot={(props) => <Link to={to} activeProps={{ "data-active": true }} {...props} />}
                />
              ))}
              <NavLink label="API" component="a" href="/docs" />
            </nav>
            <Person name={caller.data.user.display_name || caller.data.user.name} />
          </Stack>
        </AppShell.Navbar>
      ) : null}
      <AppShell.Main>
        <Container size="lg" px={0}>
          {children}
        </Container>
      </AppShell.Main>
    </AppShell>
  );
}

function Person({ name }: { name: string }) {
  const navigate = useNavigate();
  const leave = async () => {
    try {
      await logOut();
    } finally {
      await navigate({ to: "/login", reloadDocument: true }); // nothing of what was seen stays in memory
    }
  };
  return (
    <Group justify="space-between" wrap="nowrap">
      <Text size="sm" truncate title={name}>
        {name}
      </Text>
      <Button size="compact-sm" variant="subtle" onClick={() => void leave()}>
        Log out
      </Button>
    </Group>
  );
}

function Scheme() {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  return (
    <SegmentedControl size="xs" aria-label="Colours" data={[...SCHEMES]} value={colorScheme} onChange={setColorScheme} />
  );
}
