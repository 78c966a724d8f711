import { Alert, Button, Code, Group, Text } from "@mantine/core";

import { Problem } from "@/api/problem";

/** What went wrong and, where that can help, a way to try again. */
export function Failure({ error, again }: { error: Error; again?: () => void }) {
  const problem = error instanceof Problem ? error : null;
  return (
    <Alert role="alert" color="red" variant="light" title={problem?.title ?? "The console itself failed"}>
      <Text size="sm">{error.message}</Text>
      <Group mt="sm" justify="space-between">
        {again === undefined ? null : (
          <Button size="xs" variant="default" onClick={again}>
            Try again
          </Button>
        )}
        {problem?.requestId ? (
          <Text size="xs" c="dimmed">
            Request <Code>{problem.requestId}</Code>
          </Text>
        ) : null}
      </Group>
    </Alert>
  );
}
