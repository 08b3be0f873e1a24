/**
 * README.md and what it leads to: its links, its table, and its commands, each of which a test runs.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { scripts } from "../package.json" with { type: "json" };
import { must, output } from "./helpers/process.ts";
import { root } from "./helpers/programs.ts";

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

for (const file of [
  "README.md",
  "LIMITS.md",
  "SECURITY.md",
  "CONTRIBUTING.md",
  "docs/how-it-works.md",
  "bench/README.md",
  "image/README.md",
  "examples/README.md",
])
  test(`${file}: links within the repository lead somewhere`, () => {
    const links = [...read(file).matchAll(/\]\(([^):#]*)(?:#([^)]*))?\)/g)];
    const broken = links.filter(([, path = "", anchor]) => {
      const target = path === "" ? file : join(dirname(file), path);
      return !existsSync(join(root, target)) || (anchor !== undefined && !anchors(target).includes(anchor));
    });
    expect(broken.map(([link]) => link)).toEqual([]);
  });

test("CONTRIBUTING.md explains every script of package.json", () => {
  const rows =
    read("CONTRIBUTING.md")
      .match(/^\| `npm .*$/gm)
      ?.join("\n") ?? "";
  const words = new Set(rows.match(/[\w:]+/g));
  expect(Object.keys(scripts).filter((script) => !words.has(script))).toEqual([]);
});

test("README quotes init.ts", () => {
  const quoted = /```ts\n(.*?)```/s.exec(readme)?.[1] ?? "no quote";
  expect(read("init.ts")).toContain(quoted);
});

test("the example of docs/how-it-works.md prints what stands there", () => {
  const [, example = "", printed = ""] =
    /```ts\n(.*?)```.*?```\n(.*?)```/s.exec(read("docs/how-it-works.md")) ?? [];
  expect(example.trimEnd().split("\n").length).toBeLessThanOrEqual(22);
  expect(output([process.execPath, "-e", example], { cwd: root })).toEqual({
    stdout: printed,
    stderr: "",
    exitCode: 0,
    signalCode: null,
  });
});

/** README's commands, and by what in which test each is run. */
const COMMANDS: Record<string, [file: string, by: string]> = {
  "npm ci && npm start": ["tests/start.test.ts", '"npm", "--prefix", root, "start"'],
  "npm cit": [".ci/run", "npm cit"],
  "npm run image -- freestanding": ["tests/image.test.ts", "freestanding"],
  "ctr -n k8s.io images import dist/pause-freestanding.oci.tar": [
    "tests/switch.test.ts",
    'user(rows["containerd 1.x"].load',
  ],
  "skopeo copy oci-archive:dist/pause-freestanding.oci.tar containers-storage:localhost/pause:1.0.0-freestanding":
    ["tests/switch.test.ts", 'user(rows["CRI-O"].load'],
  "podman load -i dist/pause-freestanding.oci.tar": ["tests/switch.test.ts", "user(rows.podman.load"],
  "sh examples/verify --node NAME": ["tests/verify.test.ts", '"--node", "NAME"'],
  "less dist/freestanding/amd64/pause.lst": ["tests/freestanding.test.ts", ".lst"],
  "objdump -d -M intel dist/freestanding/amd64/pause": ["tests/freestanding.test.ts", 'objdump(), "-d"'],
};

describe("README's commands", () => {
  const indented = [...readme.matchAll(/^ {4}((?:npm|less|objdump) .*?)(?: {2,}#.*)?$/gm)].map(
    ([, line]) => line ?? "",
  );
  const inline = [...readme.matchAll(/`((?:npm run|ctr|skopeo|podman|sh) .*?)`/g)].map(
    ([, line]) => line ?? "",
  );

  test("are those that the tests run", () => {
    const commands = new Set([...indented, ...inline]);
    expect([...commands].toSorted()).toEqual(Object.keys(COMMANDS).toSorted());
  });

  for (const [command, [file, by]] of Object.entries(COMMANDS))
    test(`${command}: ${file}`, () => {
      // Here everything is found: this table has it.
      expect(file).not.toBe("tests/readme.test.ts");
      expect(read(file)).toContain(by);
    });
});

test("the listing can be read, and ends where the file's texts do", () => {
  expect(must("tail", "-n", "2", join(root, "dist/freestanding/amd64/pause.lst"))).toContain("Shutting down");
});
