import { Alert, Button, Center, Skeleton, Stack, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";

import type { Problem } from "@/api/problem";
import { Failure } from "@/ui/failure";

/** What of a list that comes page by page has to be known to show it: TanStack Query's own names. */
interface Pages<Item> {
  data: { pages: { items: Item[] }[] } | undefined;
  error: Problem | null;
  hasNextPage: boolean;
  isFetchingNextPage: boolean;
  fetchNextPage: () => unknown;
  refetch: () => unknown;
}

/** A list with its four faces: on its way, empty, failed, and there. What is there stays where more of it fails to come. */
export function PagesOf<Item>({
  list,
  empty,
  children,
}: {
  list: Pages<Item>;
  empty: ReactNode;
  children: (items: Item[]) => ReactNode;
}) {
  const items = list.data?.pages.flatMap((page) => page.items);
  if (items === undefined) {
    return list.error === null ? <Waiting rows={6} /> : <Failure error={list.error} again={() => void list.refetch()} />;
  }
  return (
    <Stack>
      {items.length === 0 ? empty : children(items)}
      {list.error === null ? null : <Failure error={list.error} again={() => void list.refetch()} />}
      {list.hasNextPage ? (
        <Center>
          <Button variant="default" loading={list.isFetchingNextPage} onClick={() => void list.fetchNextPage()}>
            Show more
          </Button>
        </Center>
      ) : null}
    </Stack>
  );
}

/** Nothing is here yet, and what to do about that. */
export function Empty({ title, children }: { title: string; children: ReactNode }) {
  return (
    <Alert variant="light" color="gray" title={title}>
      <Stack gap="sm">{children}</Stack>
    </Alert>
  );
}

export function Waiting({ rows }: { rows: number }) {
  return (
    <Stack aria-busy="true" aria-label="Loading" gap="sm">
      {Array.from({ length: rows }, (_none, row) => (
        <Skeleton key={row} height={28} />
      ))}
    </Stack>
  );
}

interface Headed {
  title: ReactNode;
  /** What the browser calls the page, where the title is no plain text. */
  name?: string;
  about?: ReactNode;
  /** What can be done there. */
  children?: ReactNode;
}

/** A page's heading, which names it for the browser, too. */
export function Heading({ title, name = typeof title === "string" ? title : undefined, about, children }: Headed) {
  return (
    <Stack gap={4} mb="md">
      <title>{name === undefined ? "Modelkeep" : `${name} · Modelkeep`}</title>
      <Title order={1} style={{ overflowWrap: "anywhere" }}>
        {title}
      </Title>
      {about === undefined ? null : <Text c="dimmed">{about}</Text>}
      {children}
    </Stack>
  );
}
