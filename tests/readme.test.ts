/**
 * README.md and what it leads to: its links, its table, and its commands, each of which a test runs.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { must, output } from "./helpers/process.ts";
import { root } from "./helpers/programs.ts";
import { needs } from "./helpers/tools.ts";

const read = (file: string) => readFileSync(join(root, file), "utf8");
const readme = read("README.md");

test("README has at most 120 lines", () => {
  expect(readme.trimEnd().split("\n").length).toBeLessThanOrEqual(120);
});

for (const file of [
  "README.md",
  "LIMITS.md",
  "SECURITY.md",
  "bench/README.md",
  "image/README.md",
  "examples/README.md",
])
  test(`${file}: links within the repository lead somewhere`, () => {
    const links = [...read(file).matchAll(/\]\(([^):#]+)(#[^)]*)?\)/g)].map(([, path]) => path ?? "");
    expect(links.filter((path) => !existsSync(join(root, dirname(file), path)))).toEqual([]);
  });

test("README quotes init.ts", () => {
  const quoted = /```ts\n(.*?)```/s.exec(readme)?.[1] ?? "no quote";
  expect(read("init.ts")).toContain(quoted);
});

/** README's commands, and by what in which test each is run. */
const COMMANDS: Record<string, [file: string, by: string]> = {
  "npm ci && npm start": ["tests/readme.test.ts", "npm start shows"],
  "npm cit": [".ci/run", "npm cit"],
  "npm run image": ["tests/helpers/images.ts", '"run", "-s", "image"'],
  "npm run image -- freestanding": ["tests/image.test.ts", "freestanding"],
  "ctr -n k8s.io images import dist/pause-freestanding.oci.tar": [
    "tests/runtimes.test.ts",
    '"images", "import"',
  ],
  "skopeo copy oci-archive:dist/pause-freestanding.oci.tar containers-storage:localhost/pause:1.0.0-freestanding":
    ["tests/registry.test.ts", "containers-storage:"],
  "podman load -i dist/pause-freestanding.oci.tar": ["tests/runtimes.test.ts", 'podman("load"'],
  "sh examples/verify": ["tests/verify.test.ts", "examples/verify"],
  "less dist/freestanding/amd64/pause.lst": ["tests/freestanding.test.ts", ".lst"],
  "objdump -d -M intel dist/freestanding/amd64/pause": ["tests/freestanding.test.ts", '"objdump", "-d"'],
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
      expect(read(file)).toContain(by);
    });
});

const namespaces = needs({ unshare: "util-linux", nsenter: "util-linux" });
test.skipIf(namespaces.skip)(
  namespaces.name("npm start shows both builds reaping, and what it proved"),
  () => {
    const { stdout, exitCode } = output(["npm", "--prefix", root, "start"]);
    expect([exitCode, stdout]).toEqual([0, stdout]);
    for (const words of ["300 zombies", "freestanding pause", "hosted pause", "both builds reap all 300"])
      expect(stdout).toContain(words);
  },
);

test("the listing can be read, and ends where the file's texts do", () => {
  expect(must("tail", "-n", "2", join(root, "dist/freestanding/amd64/pause.lst"))).toContain("init.ts");
});
