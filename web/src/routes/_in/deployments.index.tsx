import { createFileRoute } from "@tanstack/react-router";

import { Deployments } from "@/features/deployments/list";
import { deployments } from "@/features/deployments/queries";

export const Route = createFileRoute("/_in/deployments/")({
  loader: ({ context: { queries } }) => queries.prefetchInfiniteQuery(deployments()),
  component: Deployments,
});
