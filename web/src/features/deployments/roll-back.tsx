import { Text, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { Bar } from "@/features/deployments/bar";
import { changed, type Deployment, goBack, type Revision } from "@/features/deployments/queries";
import { Confirm } from "@/ui/confirm";

const MOST = 1000;

interface Asked {
  of: Deployment;
  /** The revision to go back to; null is what answered before. */
  to: Revision | null;
  opened: boolean;
  close: () => void;
}

/** Go back, once it was said what that changes. */
export function RollBack({ of, to, opened, close }: Asked) {
  const [reason, setReason] = useState("");
  const queries = useQueryClient();
  const back = useMutation({
    mutationFn: () => goBack(of.name, to === null ? null : to.revision, of.revision, reason.trim()),
    onSuccess: async () => {
      await changed(queries);
      close();
    },
  });
  const left = () => {
    back.reset();
    close();
  };
  return (
    <Confirm
      opened={opened}
      close={left}
      title={to === null ? `Roll ${of.name} back?` : `Go back to revision ${to.revision} of ${of.name}?`}
      action="Roll back"
      danger
      busy={back.isPending}
      error={back.error}
      run={back.mutate}
    >
      <Text size="sm">Now:</Text>
      <Bar promoted={of.version} split={of.traffic.split} />
      <Text size="sm">Then:</Text>
      {to === null ? <Text>what answered before the newest version came in</Text> : <Bar promoted={to.version} split={to.traffic.split} />}
      <Text size="sm">
        {of.trial === null ? "Requests that are under way are answered by whoever has them." : "The rollout that is on ends. Requests that are under way are answered by whoever has them."}
        {to === null ? "" : " Its settings come back, too."}
      </Text>
      <TextInput label="Why" description="It stands in the history." maxLength={MOST} value={reason} onChange={(event) => setReason(event.currentTarget.value)} />
    </Confirm>
  );
}
