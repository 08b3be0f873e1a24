/**
 * What is read and not run: README and what it leads to, and that a test runs each of its commands; init.ts; workflows.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Pod } from "kubernetes-models/v1/Pod";
import { images } from "../../image/contents.ts";
import { sha256 } from "../../image/layout.ts";
import { scripts } from "../../package.json" with { type: "json" };
import { ended } from "../helpers/expect.ts";
import { must, output } from "../helpers/process.ts";
import { root } from "../helpers/programs.ts";

const read = (file: string) => readFileSync(join(root, file), "utf8");
const readme = read("README.md");

/** What GitHub makes of the headings of a file, outside of its code blocks. */
const anchors = (file: string): string[] =>
  [
    ...read(file)
      .replaceAll(/^```.*?^```$/gms, "")
      .matchAll(/^#+ (.*)$/gm),
  ].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
      .replaceAll(" ", "-"),
  );

test("README has at most 110 lines", () => {
  expect(readme.trimEnd().split("\n").length).toBeLessThanOrEqual(110);
});

for (const file of ["*.md", "*/*.md"].flatMap((glob) => [...new Bun.Glob(glob).scanSync(root)]))
  test(`${file}: links within the repository lead somewhere, and the tests that it names are there`, () => {
    const links = [...read(file).matchAll(/\]\(([^):#]*)(?:#([^)]*))?\)/g)];
    const broken = links.filter(([, path = "", anchor]) => {
      const target = path === "" ? file : join(dirname(file), path);
      return !existsSync(join(root, target)) || (anchor !== undefined && !anchors(target).includes(anchor));
    });
    const tests = read(file).match(/\btests\/[\w./-]+\.(?:ts|c)\b/g) ?? [];
    const missing = tests.filter((path) => !existsSync(join(root, path)));
    expect([...broken.map(([link]) => link), ...missing]).toEqual([]);
  });

test("CONTRIBUTING.md explains every script of package.json", () => {
  const rows =
    read("CONTRIBUTING.md")
      .match(/^\| `npm .*$/gm)
      ?.join("\n") ?? "";
  const words = new Set(rows.match(/[\w:]+/g));
  expect(Object.keys(scripts).filter((script) => !words.has(script))).toEqual([]);
});

test("examples/README shows what verify says of this build", () => {
  const executable = readFileSync(join(root, "dist/freestanding/amd64/pause"));
  const shown = /build \((\d+) bytes\).*?bill of materials: (\w+)$/ms.exec(read("examples/README.md"));
  expect(shown?.slice(1)).toEqual([String(executable.length), sha256(executable)]);
});

test("CONTRIBUTING.md's single tests are there", () => {
  for (const [, file = "", name = ""] of read("CONTRIBUTING.md").matchAll(/bun test (\S+) -t (\S+)/g))
    expect(read(file)).toMatch(new RegExp(`test\\(.*${name}`));
});

test("README quotes init.ts", () => {
  const quoted = /```ts\n(.*?)```/s.exec(readme)?.[1] ?? "no quote";
  expect(read("init.ts")).toContain(quoted);
});

test("the example of docs/how-it-works.md prints what stands there", () => {
  const [, example = "", printed = ""] =
    /```ts\n(.*?)```.*?```\n(.*?)```/s.exec(read("docs/how-it-works.md")) ?? [];
  expect(example.trimEnd().split("\n").length).toBeLessThanOrEqual(22);
  expect(output([process.execPath, "-e", example], { cwd: root })).toEqual(ended({ stdout: printed }));
});

/** README's commands, and by what in which test each is run. */
const COMMANDS: Record<string, [file: string, by: string]> = {
  "npm ci && npm start": ["tests/processes/npm.test.ts", '"npm", "--prefix", root, "start"'],
  "npm cit": [".ci/run", "npm cit"],
  "npm run image -- freestanding": ["tests/containers/image.test.ts", 'clone.build("freestanding"'],
  "ctr -n k8s.io images import dist/pause-freestanding.oci.tar": [
    "tests/containers/switch.test.ts",
    'user(rows["containerd 1.x"].load',
  ],
  "skopeo copy oci-archive:dist/pause-freestanding.oci.tar containers-storage:localhost/pause:1.0.0-freestanding":
    ["tests/containers/switch.test.ts", 'user(rows["CRI-O"].load'],
  "docker load -i dist/pause-freestanding.oci.tar": ["tests/containers/docker.test.ts", 'follow("Docker")'],
  "podman load -i dist/pause-freestanding.oci.tar": [
    "tests/containers/switch.test.ts",
    "user(rows.podman.load",
  ],
  "sh examples/verify --node NAME": ["tests/containers/verify.test.ts", '"--node", "NAME"'],
  "objdump -d -M intel dist/freestanding/amd64/pause": ["tests/units/elf.test.ts", '"-d", executable'],
};

describe("README's commands", () => {
  const indented = [...readme.matchAll(/^ {4}(npm .*?)(?: {2,}#.*)?$/gm)].map(([, line]) => line ?? "");
  const inline = [...readme.matchAll(/`((?:npm run|ctr|skopeo|podman|docker|sh|objdump) .*?)`/g)].map(
    ([, line]) => line ?? "",
  );

  test("are those that the tests run", () => {
    const commands = new Set([...indented, ...inline]);
    expect([...commands].toSorted()).toEqual(Object.keys(COMMANDS).toSorted());
  });

  for (const [command, [file, by]] of Object.entries(COMMANDS))
    test(`${command}: ${file}`, () => {
      // Here everything is found: this table has it.
      expect(file).not.toBe("tests/units/documents.test.ts");
      expect(read(file)).toContain(by);
    });
});

test("the listing can be read, and ends where the file's texts do", () => {
  expect(must("tail", "-n", "2", join(root, "dist/freestanding/amd64/pause.lst"))).toContain("Shutting down");
});

test("init.ts has at most 45 lines that are not empty: pause.c has 54", () => {
  expect(read("init.ts").match(/^.*\S/gm)?.length).toBeLessThanOrEqual(45);
});

describe("the workflows", () => {
  const folder = join(root, ".github/workflows");
  for (const file of readdirSync(folder)) {
    const text = readFileSync(join(folder, file), "utf8");

    test(`${file}: each action is pinned by its commit, and its version is told`, () => {
      const uses = [...text.matchAll(/uses: (.*)/g)].map(([, action]) => action ?? "");
      expect(uses).not.toEqual([]);
      for (const action of uses) expect(action).toMatch(/^[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
    });

    test(`${file}: may do nothing but what each job says`, () => {
      const { permissions, jobs } = Bun.YAML.parse(text) as {
        permissions: object;
        jobs: Record<string, { permissions?: object }>;
      };
      const granted = Object.fromEntries(
        Object.entries(jobs).map(([name, job]) => [name, job.permissions ?? permissions]),
      );
      const read = { contents: "read" };
      expect(granted).toEqual(
        file === "ci.yml"
          ? { test: read }
          : { build: read, publish: { contents: "write", "id-token": "write", packages: "write" } },
      );
    });
  }
});

test("README and the files to which it leads name one image, and load its archive", () => {
  const { reference, archive } = images.freestanding;
  const files = readme.match(/examples\/[\w./-]+\.(toml|conf)/g) ?? [];
  expect(files.length).toBe(4);
  for (const file of ["README.md", "examples/README.md", ...files])
    expect([file, ...new Set(read(file).match(/localhost\/pause[\w.:-]*/g))]).toEqual([file, reference]);
  expect([...new Set(readme.match(/dist\/[\w-]+\.oci\.tar/g))]).toEqual([`dist/${archive}`]);
});

test("the example of a pod is valid, shares its PID namespace, and runs with imported images", () => {
  const manifest = new Pod(Bun.YAML.parse(read("examples/pod.yaml")) as ConstructorParameters<typeof Pod>[0]);
  manifest.validate();
  expect(manifest.spec?.shareProcessNamespace).toBe(true);
  // Kubernetes always pulls an image without a tag, or with "latest", unless this is said.
  for (const { image, imagePullPolicy } of manifest.spec?.containers ?? [])
    if (!/:(?!latest$)/.test(image ?? "")) expect([image, imagePullPolicy]).toEqual([image, "IfNotPresent"]);
});
