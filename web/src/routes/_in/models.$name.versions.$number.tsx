import { createFileRoute, notFound } from "@tanstack/react-router";

import { version } from "@/features/models/queries";
import { OneVersion } from "@/features/models/version";

export const Route = createFileRoute("/_in/models/$name/versions/$number")({
  params: {
    parse: ({ name, number }) => ({ name, number: counted(number) }),
    stringify: ({ name, number }) => ({ name, number: String(number) }),
  },
  loader: ({ context, params: { name, number } }) => context.queries.prefetchQuery(version(name, number)),
  component: Page,
});

function Page() {
  return <OneVersion {...Route.useParams()} />;
}

function counted(said: string): number {
  if (!/^[1-9]\d{0,8}$/.test(said)) {
    throw notFound();
  }
  return Number(said);
}
