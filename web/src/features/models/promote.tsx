import { Button, Text, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useState } from "react";

import { type Model, usePromote } from "@/features/models/queries";
import { Confirm } from "@/ui/confirm";

/** Have a model answer with this version, asked once more: callers get its answers from then on. */
export function Promote({ model, number }: { model: Model; number: number }) {
  const [opened, { open, close }] = useDisclosure(false);
  const [reason, setReason] = useState("");
  const promoted = usePromote(model.name, number);
  const from = model.serving_version;
  return (
    <>
      <Button
        size="xs"
        onClick={() => {
          promoted.reset();
          open();
        }}
      >
        Promote
      </Button>
      <Confirm
        opened={opened}
        close={close}
        title={`Promote version ${number} of ${model.name}?`}
        action={`Promote version ${number}`}
        busy={promoted.isPending}
        error={promoted.error}
        run={() => promoted.mutate(reason, { onSuccess: close })}
      >
        <Text size="sm">
          Whoever asks {model.name} gets the answers of version {number}
          {from === null ? "" : `, and no more those of version ${from}`}. It is loaded first, so that nobody waits, and it can be rolled back.
        </Text>
        <TextInput label="Why" description="Stands in the history" value={reason} onChange={(event) => setReason(event.currentTarget.value)} maxLength={1000} />
      </Confirm>
    </>
  );
}
