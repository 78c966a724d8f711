import { Anchor, Button, Checkbox, Collapse, FileInput, Group, Paper, Progress, Select, Stack, Text, Textarea, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { type FormEvent, useRef, useState } from "react";

import { fresh } from "@/api/upload";
import { Command } from "@/features/models/command";
import { hand, nameFor, type Push, push, workspaces } from "@/features/models/pushing";
import type { Version } from "@/features/models/queries";
import { bytes } from "@/lib/values";
import { DropPlace } from "@/ui/drop";
import { Failure } from "@/ui/failure";
import { Heading } from "@/ui/pages";
import { Section } from "@/ui/section";

const NAME = "[a-z0-9][a-z0-9._\\-]{0,62}";

/** Push a model: choose or drop its file, name it, and see it go. `pushed` is called with the version that it became. */
export function PushOne({ name, pushed }: { name: string; pushed: (version: Version) => void }) {
  const [file, setFile] = useState(hand.file);
  return (
    <Stack gap="lg">
      <Heading
        title="Push a model"
        about="A file that scikit-learn, ONNX, PyTorch, XGBoost, LightGBM or CatBoost has written, or a folder of MLflow, OpenVINO or your own Python in a ZIP."
      />
      {file === null ? (
        <DropPlace action="Choose a file" onFile={setFile}>
          <Text fw={600}>Which model?</Text>
        </DropPlace>
      ) : (
        <Form
          key={`${file.name} ${file.lastModified} ${file.size}`}
          file={file}
          name={name}
          pushed={(version) => {
            hand.file = null;
            pushed(version);
          }}
          another={() => setFile(null)}
        />
      )}
      <Section title="Or from a terminal">
        <Command name={name || "churn"} file={file?.name ?? "churn.joblib"} />
      </Section>
    </Stack>
  );
}

interface Filled {
  file: File;
  name: string;
  pushed: (version: Version) => void;
  another: () => void;
}

function Form({ file, name, pushed, another }: Filled) {
  const queries = useQueryClient();
  const places = useQuery(workspaces());
  const [share, setShare] = useState(0);
  const [more, { toggle }] = useDisclosure(false);
  const [files, setFiles] = useState<Pick<Push, "sample" | "labels" | "hooks">>({ sample: null, labels: null, hooks: null });
  const going = useRef(new AbortController());
  const sent = useMutation({
    mutationFn: ({ one, once }: { one: Push; once: string }) => {
      going.current = new AbortController();
      setShare(0);
      return push(one, once, setShare, going.current.signal);
    },
    onSuccess: async (version) => {
      await queries.invalidateQueries({ queryKey: ["models"] });
      pushed(version);
    },
  });
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const said = (field: string) => String(form.get(field) ?? "").trim();
    const one: Push = {
      ...files,
      file,
      name: said("name"),
      format: said("format"),
      description: said("description"),
      asItIs: form.has("as-it-is"),
      workspace: said("workspace"),
      newWorkspace: said("new-workspace"),
    };
    sent.mutate({ one, once: fresh() });
  };
  const cancel = () => {
    going.current.abort();
    sent.reset();
  };
  const found = places.data?.items ?? [];
  return (
    <form onSubmit={submit}>
      <Stack maw={640}>
        <Paper withBorder p="md">
          <Group justify="space-between" wrap="nowrap">
            <Text fw={600} style={{ overflowWrap: "anywhere" }}>
              {file.name}{" "}
              <Text span c="dimmed" fw={400}>
                {bytes(file.size)}
              </Text>
            </Text>
            <Button size="compact-sm" variant="default" onClick={another} disabled={sent.isPending} style={{ flexShrink: 0 }}>
              Another file
            </Button>
          </Group>
        </Paper>
        <TextInput
          name="name"
          label="Name"
          description="A version of the model of this name; where there is none, it is made. Small letters, digits, dots and dashes."
          defaultValue={name || nameFor(file.name)}
          pattern={NAME}
          title="1 to 63 small letters, digits, dots, dashes and underscores; a letter or a digit first"
          autoComplete="off"
          required
          data-autofocus
        />
        {places.isSuccess && found.length === 0 ? (
          <TextInput
            name="new-workspace"
            label="New workspace"
            description="Models lie in workspaces, and there is none yet that you may use. It is made now."
            defaultValue="main"
            pattern={NAME}
            required
          />
        ) : null}
        {found.length > 1 ? (
          <Select
            name="workspace"
            label="Workspace"
            description="Where a new model is made"
            placeholder="Choose, if the model is new"
            data={found.map((one) => one.name)}
            clearable
            searchable
          />
        ) : null}
        <Group>
          <Button size="compact-sm" variant="default" onClick={toggle} aria-expanded={more}>
            {more ? "Less to say" : "Say more of it"}
          </Button>
        </Group>
        <Collapse expanded={more}>
          <Stack>
            <Textarea name="description" label="Description" description="What there is to know about this version, as Markdown" autosize minRows={3} maxLength={10_000} />
            <OneFile label="Sample" description="A few rows as the model takes them (CSV or JSON), or a picture" value={files.sample} onChange={(sample) => setFiles({ ...files, sample })} />
            <OneFile label="Labels" description="Names of the classes, one a line" value={files.labels} onChange={(labels) => setFiles({ ...files, labels })} />
            <OneFile label="Hooks" description="Python with preprocess(inputs), postprocess(outputs) or both" accept=".py" value={files.hooks} onChange={(hooks) => setFiles({ ...files, hooks })} />
            <TextInput name="format" label="Format" description="Where the file's suffix does not tell it: onnx, joblib, mlflow …" autoComplete="off" />
            <Checkbox name="as-it-is" label="Serve the file as it is, even where a faster form of it agrees" />
          </Stack>
        </Collapse>
        {sent.isError ? <Failure error={sent.error} again={() => sent.mutate(sent.variables)} /> : null}
        {sent.isPending ? (
          <Going share={share} size={file.size} cancel={cancel} />
        ) : (
          <Group>
            <Button type="submit">Push</Button>
            <Anchor size="sm" underline="always" renderRoot={(props) => <Link to="/models" {...props} />}>
              Back to the models
            </Anchor>
          </Group>
        )}
      </Stack>
    </form>
  );
}

interface Attached {
  label: string;
  description: string;
  accept?: string;
  value: File | null;
  onChange: (file: File | null) => void;
}

function OneFile(props: Attached) {
  return <FileInput {...props} placeholder="None" clearable styles={{ placeholder: { color: "var(--mantine-color-dimmed)" } }} />;
}

function Going({ share, size, cancel }: { share: number; size: number; cancel: () => void }) {
  const percent = Math.floor(share * 100);
  return (
    <Stack gap="xs">
      <Group justify="space-between" wrap="nowrap">
        <Text size="sm" role="status">
          {share === 0 ? "Asking whether it will be taken" : share < 1 ? "Uploading" : "All is sent, and is being stored"}
        </Text>
        <Text size="sm" c="dimmed" style={{ fontVariantNumeric: "tabular-nums" }}>
          {bytes(share * size)} of {bytes(size)}
        </Text>
      </Group>
      <Progress value={percent} aria-label="How much has been sent" size="lg" animated={share === 1} />
      <Group>
        <Button variant="default" size="compact-sm" onClick={cancel}>
          Cancel
        </Button>
      </Group>
    </Stack>
  );
}
