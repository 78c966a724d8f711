import { createFileRoute } from "@tanstack/react-router";

import { OneDeployment } from "@/features/deployments/one";
import { deployment, revisions } from "@/features/deployments/queries";

export const Route = createFileRoute("/_in/deployments/$name")({
  loader: ({ context: { queries }, params: { name } }) =>
    Promise.all([queries.prefetchQuery(deployment(name)), queries.prefetchInfiniteQuery(revisions(name))]),
  component: () => <OneDeployment name={Route.useParams().name} />,
});
