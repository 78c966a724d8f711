import { Anchor, Button, Code, CopyButton, Divider, PasswordInput, Select, Stack, Text, TextInput, Title } from "@mantine/core";
import { useMutation, useQuery } from "@tanstack/react-query";
import { type FormEvent, type ReactNode, useState } from "react";

import { session } from "@/api/session";
import { logIn, providers, setUp } from "@/features/session/queries";
import { Failure } from "@/ui/failure";

const HERE = "";

/** Log in: with a password, or through a provider of identities. `went` is called once somebody is in. */
export function Login({ to, refused, went }: { to: string; refused: string | undefined; went: () => void }) {
  const found = useQuery(providers());
  const directories = (found.data?.items ?? []).filter((one) => one.kind === "ldap");
  const others = (found.data?.items ?? []).filter((one) => one.kind === "oidc");
  const [directory, setDirectory] = useState(HERE);
  const entry = useMutation({
    mutationFn: (form: FormData) =>
      logIn({ name: text(form, "name"), password: text(form, "password") }, directory === HERE ? null : directory),
    onSuccess: went,
  });
  const here = directory === HERE;
  return (
    <Door title="Log in" onSubmit={entry.mutate}>
      {refused === undefined ? null : (
        <Text c="red" role="alert">
          You could not be logged in there: <Code>{refused}</Code>.
        </Text>
      )}
      {entry.isError ? <Failure error={entry.error} /> : null}
      {directories.length === 0 ? null : (
        <Select
          label="Known by"
          allowDeselect={false}
          data={[{ value: HERE, label: "this installation" }, ...directories.map((one) => ({ value: one.name, label: one.title }))]}
          value={directory}
          onChange={(value) => setDirectory(value ?? HERE)}
        />
      )}
      <TextInput
        name="name"
        label={here ? "E-mail" : "Name"}
        type={here ? "email" : "text"}
        autoComplete="username"
        required
        data-autofocus
      />
      <PasswordInput name="password" label="Password" autoComplete="current-password" required />
      <Button type="submit" loading={entry.isPending}>
        Log in
      </Button>
      {others.length === 0 ? null : <Divider label="or" />}
      {others.map((one) => (
        <Button
          key={one.name}
          component="a"
          variant="default"
          href={`${one.login}?${new URLSearchParams({ page: to }).toString()}`}
          onClick={() => session.expect()}
        >
          {one.title}
        </Button>
      ))}
    </Door>
  );
}

/** Make the first administrator. */
export function SetUp({ went }: { went: () => void }) {
  const made = useMutation({
    mutationFn: (form: FormData) =>
      setUp({ token: text(form, "token").trim(), name: text(form, "name"), email: text(form, "email"), password: text(form, "password") }),
  });
  if (made.isSuccess) {
    return <Key secret={made.data} went={went} />;
  }
  return (
    <Door title="Set up this installation" onSubmit={made.mutate}>
      <Text>
        <Code>modelkeep serve</Code> has printed a token that is good once; it is in the file <Code>setup-token</Code> of its data
        directory, too. With it you become the first administrator.
      </Text>
      {made.isError ? <Failure error={made.error} /> : null}
      <PasswordInput name="token" label="Token" autoComplete="off" required data-autofocus />
      <TextInput name="name" label="Name" description="Small letters, digits and dashes" defaultValue="admin" required />
      <TextInput name="email" label="E-mail" type="email" autoComplete="username" required />
      <PasswordInput name="password" label="Password" autoComplete="new-password" required minLength={1} />
      <Button type="submit" loading={made.isPending}>
        Set up
      </Button>
    </Door>
  );
}

function Key({ secret, went }: { secret: string; went: () => void }) {
  return (
    <Stack maw={520} mx="auto" mt="xl">
      <Title order={1}>You are the administrator</Title>
      <Text>This is your API key, for programs and the command line. It is shown this once; the console does without it.</Text>
      <Code block>{secret}</Code>
      <CopyButton value={secret}>
        {({ copied, copy }) => (
          <Button variant="default" onClick={copy}>
            {copied ? "Copied" : "Copy the key"}
          </Button>
        )}
      </CopyButton>
      <Button onClick={went}>Go on</Button>
    </Stack>
  );
}

function Door({ title, onSubmit, children }: { title: string; onSubmit: (form: FormData) => void; children: ReactNode }) {
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    onSubmit(new FormData(event.currentTarget));
  };
  return (
    <form onSubmit={submit}>
      <Stack maw={420} mx="auto" mt="xl">
        <Title order={1}>{title}</Title>
        {children}
        <Text size="xs" c="dimmed">
          All that can be done here can be done with the command <Code>modelkeep</Code>, and with{" "}
          <Anchor size="xs" underline="always" href="/docs">
            the API
          </Anchor>
          .
        </Text>
      </Stack>
    </form>
  );
}

function text(form: FormData, name: string): string {
  const value = form.get(name);
  return typeof value === "string" ? value : "";
}
