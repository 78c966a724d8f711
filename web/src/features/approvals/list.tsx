import { Badge, Button, Group, Select, Text, Textarea } from "@mantine/core";
import { useInfiniteQuery, useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { type Approval, approvals, approve, changed, refuse, STATES } from "@/features/approvals/queries";
import { exactly } from "@/lib/values";
import { Confirm } from "@/ui/confirm";
import { Empty, Heading, PagesOf } from "@/ui/pages";
import { Listing } from "@/ui/table";
import { When } from "@/ui/when";

type State = Approval["state"];
type Answer = { to: Approval; what: "approve" | "refuse" };

const COLOURS: Record<State, string> = { pending: "yellow", approved: "blue", refused: "red", used: "green", expired: "gray" };
const MOST = 1000;

/** What people have asked for that needs a second person. */
export function Approvals({ state, onState }: { state: State | undefined; onState: (state: State | undefined) => void }) {
  const list = useInfiniteQuery(approvals(state));
  const [answer, setAnswer] = useState<Answer | null>(null);
  return (
    <>
      <Heading title="Approvals" about="What was asked for that needs a second person, and that you may do, too." />
      <Select
        label="State"
        placeholder="any"
        clearable
        clearButtonProps={{ "aria-label": "Any state" }}
        mb="md"
        maw={240}
        data={[...STATES]}
        value={state ?? null}
        onChange={(said) => onState(STATES.find((one) => one === said))}
      />
      <PagesOf
        list={list}
        empty={
          <Empty title="Nothing waits for a second person">
            <Text size="sm">Where the settings ask for two people to promote, to delete or to override, what one of them asks for is here.</Text>
          </Empty>
        }
      >
        {(items) => (
          <Listing
            label="Approvals"
            least={760}
            items={items}
            keyOf={(one) => one.id}
            columns={[
              { title: "What", cell: (one) => <What of={one} /> },
              { title: "State", cell: (one) => <Badge color={COLOURS[one.state]} variant="dot" tt="none">{one.state}</Badge> },
              { title: "Asked by", cell: (one) => one.asked_by_name || one.asked_by },
              { title: "Asked", cell: (one) => <When at={one.asked_at} /> },
              { title: "Good until", cell: (one) => exactly(one.until) },
              { title: "Answer", cell: (one) => <Answers to={one} choose={(what) => setAnswer({ to: one, what })} /> },
            ]}
          />
        )}
      </PagesOf>
      {answer === null ? null : <Ask {...answer} close={() => setAnswer(null)} />}
    </>
  );
}

function What({ of }: { of: Approval }) {
  const refused = of.refused_by;
  return (
    <>
      <Text fw={600}>{of.summary}</Text>
      <Text size="sm" c="dimmed">
        {of.subject}
        {of.approved_by.map((one) => `, approved by ${one.name || one.user}`)}
        {refused === null ? "" : `, refused by ${refused.name || refused.user}: ${of.reason}`}
      </Text>
    </>
  );
}

function Answers({ to, choose }: { to: Approval; choose: (what: Answer["what"]) => void }) {
  if (to.state !== "pending" && to.state !== "approved") {
    return null;
  }
  return (
    <Group gap="xs" wrap="nowrap">
      {to.state === "pending" ? (
        <Button size="compact-sm" aria-label={`Approve: ${to.summary}`} onClick={() => choose("approve")}>
          Approve
        </Button>
      ) : null}
      <Button size="compact-sm" variant="default" aria-label={`Refuse: ${to.summary}`} onClick={() => choose("refuse")}>
        Refuse
      </Button>
    </Group>
  );
}

function Ask({ to, what, close }: Answer & { close: () => void }) {
  const [reason, setReason] = useState("");
  const queries = useQueryClient();
  const told = useMutation({
    mutationFn: () => (what === "approve" ? approve(to.id) : refuse(to.id, reason.trim())),
    onSuccess: async () => {
      await changed(queries);
      close();
    },
  });
  return (
    <Confirm
      opened
      close={close}
      title={what === "approve" ? "Approve what was asked?" : "Refuse what was asked?"}
      action={what === "approve" ? "Approve" : "Refuse"}
      busy={told.isPending}
      error={told.error}
      run={told.mutate}
    >
      <Text fw={600}>{to.summary}</Text>
      <Text size="sm">
        {what === "approve"
          ? `${to.asked_by_name || to.asked_by} may then do this once, until ${exactly(to.until)}, as long as nothing about it changes.`
          : "It cannot be done with this request any more."}
      </Text>
      {what === "approve" ? null : (
        <Textarea label="Why" required maxLength={MOST} value={reason} onChange={(event) => setReason(event.currentTarget.value)} autosize minRows={2} />
      )}
    </Confirm>
  );
}
