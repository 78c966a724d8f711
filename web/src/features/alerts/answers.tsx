import { Button, Group, Modal, NumberInput, Stack, Text, Textarea } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";

import { acknowledge, type Alert, changed, resolve } from "@/features/alerts/queries";
import { Failure } from "@/ui/failure";

const MOST = 1000;
const A_WEEK = 10_080;
const USUAL = 240;
type Answer = "acknowledge" | "resolve";

/** What one can say to an alert that is not over. */
export function Answers({ to }: { to: Alert }) {
  const [asked, ask] = useState<Answer | null>(null);
  const queries = useQueryClient();
  const answer = useMutation({
    mutationFn: ({ note, minutes }: { note: string; minutes: number }) =>
      asked === "resolve" ? resolve(to.id, note) : acknowledge(to.id, { for_minutes: minutes, note }),
    onSuccess: async () => {
      await changed(queries);
      ask(null);
    },
  });
  if (to.state === "resolved") {
    return null;
  }
  const begin = (what: Answer) => {
    answer.reset();
    ask(what);
  };
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    answer.mutate({ note: String(form.get("note") ?? "").trim(), minutes: Number(form.get("minutes") ?? USUAL) });
  };
  return (
    <Group>
      <Button onClick={() => begin("acknowledge")}>I look at it</Button>
      <Button variant="default" onClick={() => begin("resolve")}>
        It is over
      </Button>
      <Modal
        opened={asked !== null}
        onClose={() => ask(null)}
        title={asked === "resolve" ? "Say that it is over" : "Say that you look at it"}
      >
        <form onSubmit={submit}>
          <Stack>
            <Text size="sm">
              {asked === "resolve" ? "It opens again as another alert where the same is seen once more." : "Nobody else is called meanwhile; after that it fires again."}
            </Text>
            {asked === "resolve" ? null : (
              <NumberInput label="For how many minutes" name="minutes" min={1} max={A_WEEK} defaultValue={USUAL} allowDecimal={false} required />
            )}
            <Textarea label={asked === "resolve" ? "Why" : "Note"} name="note" maxLength={MOST} required={asked === "resolve"} autosize minRows={2} data-autofocus />
            {answer.error === null ? null : <Failure error={answer.error} />}
            <Group justify="flex-end">
              <Button variant="default" onClick={() => ask(null)}>
                Cancel
              </Button>
              <Button type="submit" loading={answer.isPending}>
                {asked === "resolve" ? "It is over" : "I look at it"}
              </Button>
            </Group>
          </Stack>
        </form>
      </Modal>
    </Group>
  );
}
