import { Button, Group, Stack, Text } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";

import { commands, keyForPushing } from "@/features/models/pushing";
import { Copied } from "@/ui/copied";
import { Failure } from "@/ui/failure";

/** The command that pushes, ready to be run: with a key that is made for it when somebody asks, and told this once. */
export function Command({ name, file }: { name: string; file: string }) {
  const queries = useQueryClient();
  const made = useMutation({
    mutationFn: () => keyForPushing("pushing from a terminal"),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["keys"] }),
  });
  if (!made.isSuccess) {
    return (
      <Stack gap="sm">
        <Text size="sm">A key is made for it, which may push models and ask them for predictions, for 30 days. You can revoke it at any time.</Text>
        {made.isError ? <Failure error={made.error} /> : null}
        <Group>
          <Button variant="default" loading={made.isPending} onClick={() => made.mutate()}>
            Show me the command
          </Button>
        </Group>
      </Stack>
    );
  }
  const { ours, plain } = commands(name, file, window.location.origin, made.data.secret);
  return (
    <Stack gap="sm">
      <Text size="sm" role="status">
        The key is in these commands, and is shown this once.
      </Text>
      <Copied label="the command" text={ours} />
      <Text size="sm">Or without installing anything:</Text>
      <Copied label="the request" text={plain} />
    </Stack>
  );
}
