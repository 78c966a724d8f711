import { Anchor, AppShell, Burger, Button, Container, Group, NavLink, SegmentedControl, Stack, Text, useMantineColorScheme } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useRouterState } from "@tanstack/react-router";
import { type ReactNode, useEffect, useRef } from "react";

import { PAGES } from "@/app/pages";
import { Palette, ToPalette } from "@/app/palette";
import { logOut, me } from "@/features/session/queries";

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
  const main = useFocusOnPages();
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
          <Group wrap="nowrap">
            {inside ? <ToPalette /> : null}
            <Scheme />
          </Group>
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
      {inside ? <Palette /> : null}
      <AppShell.Main ref={main} tabIndex={-1} style={{ outline: "none" }}>
        <Container size="lg" px={0}>
          {children}
        </Container>
      </AppShell.Main>
    </AppShell>
  );
}

/** Whoever goes to another page by keyboard goes on in it, and not in the list of pages: what is typed next, or heard, is its content. */
function useFocusOnPages() {
  const main = useRef<HTMLElement>(null);
  const page = useRouterState({ select: (state) => state.resolvedLocation?.pathname });
  const before = useRef(page);
  useEffect(() => {
    if (before.current !== undefined && before.current !== page && !main.current?.contains(document.activeElement)) {
      main.current?.focus({ preventScroll: true });
    }
    before.current = page;
  }, [page]);
  return main;
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
