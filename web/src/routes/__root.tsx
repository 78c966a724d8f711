import { Anchor, Stack, Text, Title } from "@mantine/core";
import type { QueryClient } from "@tanstack/react-query";
import { createRootRouteWithContext, Link, Outlet } from "@tanstack/react-router";

export const Route = createRootRouteWithContext<{ queries: QueryClient }>()({
  component: Outlet,
  notFoundComponent: Nothing,
});

function Nothing() {
  return (
    <Stack>
      <Title order={1}>There is no such page</Title>
      <Text>
        The address may be mistyped. <Anchor renderRoot={(props) => <Link to="/" {...props} />}>Go to the first page</Anchor>.
      </Text>
    </Stack>
  );
}
