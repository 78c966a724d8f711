import { createFileRoute } from "@tanstack/react-router";

import { Approvals } from "@/features/approvals/list";
import { type Approval, approvals, STATES } from "@/features/approvals/queries";

export const Route = createFileRoute("/_in/approvals")({
  validateSearch: (said: Record<string, unknown>): { state?: Approval["state"] | undefined } => ({
    state: STATES.find((one) => one === said["state"]),
  }),
  loaderDeps: ({ search }) => search,
  loader: ({ context, deps }) => context.queries.prefetchInfiniteQuery(approvals(deps.state)),
  component: Page,
});

function Page() {
  const navigate = Route.useNavigate();
  return <Approvals state={Route.useSearch().state} onState={(state) => void navigate({ search: { state } })} />;
}
