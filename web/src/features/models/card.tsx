import { Button, Group, Stack, Text, Textarea } from "@mantine/core";
import { lazy, Suspense, useState } from "react";

import { useDescribe, type Version } from "@/features/models/queries";
import { Failure } from "@/ui/failure";
import { Empty, Waiting } from "@/ui/pages";

const Written = lazy(() => import("@/ui/markdown")); // much, for what few open

const LONGEST = 10_000;

/** What people say of a version, and a way to say it better. */
export function Card({ of }: { of: Version }) {
  const [draft, setDraft] = useState<string | null>(null);
  const described = useDescribe(of.model, of.number);
  if (draft !== null) {
    return (
      <Stack>
        <Textarea
          label="Model card"
          description="Markdown: what it is for, what it was trained on, where it fails. At most 10,000 characters."
          value={draft}
          onChange={(event) => setDraft(event.currentTarget.value)}
          maxLength={LONGEST}
          autosize
          minRows={10}
          autoFocus
        />
        {described.isError ? <Failure error={described.error} /> : null}
        <Group>
          <Button loading={described.isPending} onClick={() => described.mutate(draft, { onSuccess: () => setDraft(null) })}>
            Save
          </Button>
          <Button variant="default" onClick={() => setDraft(null)}>
            Cancel
          </Button>
        </Group>
      </Stack>
    );
  }
  return (
    <Stack>
      {of.description === "" ? (
        <Empty title="Nothing is said of it yet">
          <Text size="sm">What is it for, what was it trained on, and where does it fail?</Text>
        </Empty>
      ) : (
        <Suspense fallback={<Waiting rows={4} />}>
          <Written text={of.description} />
        </Suspense>
      )}
      <Group>
        <Button variant="default" onClick={() => setDraft(of.description)}>
          {of.description === "" ? "Write a card" : "Edit"}
        </Button>
      </Group>
    </Stack>
  );
}
