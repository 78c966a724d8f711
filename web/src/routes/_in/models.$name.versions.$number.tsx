import { createFileRoute, notFound } from "@tanstack/react-router";

import { model, version } from "@/features/models/queries";
import { type Tab, TABS } from "@/features/models/tabs";
import { OneVersion } from "@/features/models/version";

export const Route = createFileRoute("/_in/models/$name/versions/$number")({
  params: {
    parse: ({ name, number }) => ({ name, number: counted(number) }),
    stringify: ({ name, number }) => ({ name, number: String(number) }),
  },
  validateSearch: (said: Record<string, unknown>): { tab?: Tab | undefined } => ({
    tab: TABS.find((known) => known !== "overview" && known === said["tab"]),
  }),
  loader: ({ context: { queries }, params: { name, number } }) =>
    Promise.all([queries.prefetchQuery(version(name, number)), queries.prefetchQuery(model(name))]),
  component: Page,
});

function Page() {
  const { tab = "overview" } = Route.useSearch();
  const navigate = Route.useNavigate();
  const onTab = (next: Tab) => void navigate({ search: { tab: next === "overview" ? undefined : next }, replace: true });
  return <OneVersion {...Route.useParams()} tab={tab} onTab={onTab} />;
}

function counted(said: string): number {
  if (!/^[1-9]\d{0,8}$/.test(said)) {
    throw notFound();
  }
  return Number(said);
}
