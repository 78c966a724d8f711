import { createFileRoute } from "@tanstack/react-router";

import { Compare, type Two } from "@/features/models/compare";
import { versions } from "@/features/models/queries";

export const Route = createFileRoute("/_in/models/$name/compare")({
  validateSearch: (said: Record<string, unknown>): Two => ({ a: counted(said["a"]), b: counted(said["b"]) }),
  loader: ({ context: { queries }, params: { name } }) => queries.prefetchInfiniteQuery(versions(name)),
  component: Page,
});

function Page() {
  const navigate = Route.useNavigate();
  return <Compare {...Route.useParams()} {...Route.useSearch()} onTwo={(two) => void navigate({ search: two, replace: true })} />;
}

function counted(said: unknown): number | undefined {
  return typeof said === "number" && Number.isInteger(said) && said > 0 && said < 2 ** 31 ? said : undefined;
}
