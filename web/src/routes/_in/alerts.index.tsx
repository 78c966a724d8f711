import { createFileRoute } from "@tanstack/react-router";

import { Alerts } from "@/features/alerts/list";
import { alerts, SEVERITIES, STATES, type Wanted } from "@/features/alerts/queries";

export const Route = createFileRoute("/_in/alerts/")({
  validateSearch: (said: Record<string, unknown>): Wanted => ({
    state: STATES.find((one) => one === said["state"]),
    severity: SEVERITIES.find((one) => one === said["severity"]),
  }),
  loaderDeps: ({ search }) => search,
  loader: ({ context, deps }) => context.queries.prefetchInfiniteQuery(alerts(deps)),
  component: Page,
});

function Page() {
  const navigate = Route.useNavigate();
  return <Alerts wanted={Route.useSearch()} onWanted={(search) => void navigate({ search })} />;
}
