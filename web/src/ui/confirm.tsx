import { Button, Group, Modal, Stack } from "@mantine/core";
import type { ReactNode } from "react";

import type { Problem } from "@/api/problem";
import { Failure } from "@/ui/failure";

interface Confirmed {
  opened: boolean;
  close: () => void;
  /** The question. */
  title: string;
  /** The word on the button that does it. */
  action: string;
  danger?: true;
  busy: boolean;
  error: Problem | null;
  run: () => void;
  /** What will happen. */
  children: ReactNode;
}

/** Asked before something is done that people would not want to have done by mistake: it says what will happen. */
export function Confirm({ opened, close, title, action, danger, busy, error, run, children }: Confirmed) {
  return (
    <Modal opened={opened} onClose={close} title={title}>
      <Stack>
        {children}
        {error === null ? null : <Failure error={error} />}
        <Group justify="flex-end">
          <Button variant="default" onClick={close} data-autofocus>
            Cancel
          </Button>
          <Button color={danger ? "red" : "blue"} loading={busy} onClick={run}>
            {action}
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}
