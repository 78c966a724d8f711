import { Button, Group, Paper, Select, SimpleGrid, TextInput } from "@mantine/core";
import type { FormEvent } from "react";

import { OUTCOMES, WORDS, type Wanted, wanted } from "@/features/predictions/wanted";
import { fromField, toField } from "@/lib/moments";

const LABELS: Record<(typeof WORDS)[number], string> = {
  id: "Prediction's id",
  request_id: "Request's id",
  deployment: "Deployment",
  version: "Version",
  key: "Key or session",
  user: "Person",
};

/** What to look for: by any id, place, outcome, and time. */
export function Asking({ of, onWanted }: { of: Wanted; onWanted: (wanted: Wanted) => void }) {
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const said = Object.fromEntries(new FormData(event.currentTarget));
    onWanted(wanted({ ...said, since: fromField(String(said["since"] ?? "")), until: fromField(String(said["until"] ?? "")) }));
  };
  return (
    <Paper withBorder p="md" mb="md">
      <form onSubmit={submit} role="search" aria-label="Predictions" key={JSON.stringify(of)}>
        <SimpleGrid cols={{ base: 1, xs: 2, md: 3 }}>
          {WORDS.map((word) => (
            <TextInput key={word} name={word} label={LABELS[word]} placeholder="any" maxLength={200} defaultValue={of[word] ?? ""} />
          ))}
          <Select
            name="outcome"
            label="Outcome"
            placeholder="any"
            clearable
            clearButtonProps={{ "aria-label": "Any outcome" }}
            data={[...OUTCOMES]}
            defaultValue={of.outcome ?? null}
          />
          <TextInput name="since" type="datetime-local" label="From" defaultValue={toField(of.since)} />
          <TextInput name="until" type="datetime-local" label="Before" defaultValue={toField(of.until)} />
        </SimpleGrid>
        <Group justify="flex-end" mt="md">
          <Button variant="default" onClick={() => onWanted({})}>
            All of them
          </Button>
          <Button type="submit">Search</Button>
        </Group>
      </form>
    </Paper>
  );
}
