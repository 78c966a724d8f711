import { Code, Skeleton, Stack, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";

import { me, setUpState } from "@/features/users/queries";
import { Failure } from "@/ui/failure";

/** The first page: whether this installation is set up, and who is logged in. */
export function Welcome() {
  const state = useQuery(setUpState());
  if (state.isError) {
    return <Failure error={state.error} again={() => void state.refetch()} />;
  }
  if (state.isPending) {
    return <Waiting />;
  }
  return state.data.needed ? <SetUpNeeded /> : <Caller />;
}

function SetUpNeeded() {
  return (
    <Stack>
      <Title order={1}>This installation waits for its set-up</Title>
      <Text>
        <Code>modelkeep serve</Code> has printed a token that is good once. Make yourself its first administrator with it:
      </Text>
      <Code block>modelkeep setup --url {window.location.origin}</Code>
    </Stack>
  );
}

function Caller() {
  const caller = useQuery(me());
  if (caller.isError) {
    return caller.error.code === "unauthenticated" ? <Stranger /> : <Failure error={caller.error} again={() => void caller.refetch()} />;
  }
  if (caller.isPending) {
    return <Waiting />;
  }
  const { name, email } = caller.data.user;
  return (
    <Stack>
      <Title order={1}>{name}</Title>
      <Text>You are logged in{email ? ` as ${email}` : ""}.</Text>
    </Stack>
  );
}

function Stranger() {
  return (
    <Stack>
      <Title order={1}>Nobody is logged in</Title>
      <Text>
        Log in at the terminal with <Code>modelkeep login --url {window.location.origin}</Code>.
      </Text>
    </Stack>
  );
}

function Waiting() {
  return (
    <Stack aria-busy="true" aria-label="Loading">
      <Skeleton height={36} width="60%" />
      <Skeleton height={20} />
    </Stack>
  );
}
