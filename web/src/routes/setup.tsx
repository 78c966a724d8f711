import { createFileRoute, redirect, useNavigate } from "@tanstack/react-router";
import { useQueryClient } from "@tanstack/react-query";

import { SetUp } from "@/features/session/doors";
import { setUpState } from "@/features/session/queries";

export const Route = createFileRoute("/setup")({
  beforeLoad: async ({ context: { queries } }) => {
    if (!(await queries.fetchQuery({ ...setUpState(), staleTime: 0 })).needed) {
      throw redirect({ to: "/" });
    }
  },
  component: Page,
});

function Page() {
  const navigate = useNavigate();
  const queries = useQueryClient();
  const went = async () => {
    await queries.invalidateQueries(setUpState());
    await navigate({ to: "/" });
  };
  return <SetUp went={() => void went()} />;
}
