/**
 * examples/verify without a cluster: its arguments, the pods that it makes, and what it says of a PID 1. kubectl is a
 * stand-in, and what it runs in a pod runs in a real PID namespace. What a cluster does was seen by hand.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Pod as PodManifest } from "kubernetes-models/v1/Pod";
import { sha256 } from "../../image/layout.ts";
import { version } from "../../package.json" with { type: "json" };
import { ended, needing } from "../helpers/expect.ts";
import { NAMESPACES, Pod, UNPRIVILEGED } from "../helpers/pod.ts";
import { must, output, until } from "../helpers/process.ts";
import { freestanding, hosted, reference, root } from "../helpers/programs.ts";
import { CC, ROOT } from "../helpers/tools.ts";

const script = join(root, "examples/verify");
const verify = (args: readonly string[], env?: Record<string, string>) =>
  output(["/bin/sh", script, ...args], env && { env });
const USAGE =
  "usage: sh examples/verify [--node NAME | --node all] [--image IMAGE] [--namespace NAME] [--context NAME]\n";

test("other arguments end it with one line and exit code 2", () => {
  for (const args of [["x"], ["--context"], ["--context="], ["--namespace", "a", "--node"]])
    expect(verify(args)).toEqual(ended({ stderr: USAGE, exitCode: 2 }));
});

test("--help says what it takes, which options there are and what the exit codes mean", () => {
  const { stdout, ...rest } = verify(["--namespace", "a", "--help"]);
  expect(rest).toMatchObject({ stderr: "", exitCode: 0 });
  expect(stdout).toStartWith(USAGE);
  const options = ["--node NAME", "--image IMAGE", "--namespace NAME", "--context NAME"];
  for (const words of [...options, "Exit code: 0 if", "3 if"]) expect(stdout).toContain(words);
});

test("without kubectl it says so", () => {
  const stderr = "kubectl is not installed: this needs it.\n";
  for (const args of [[], ["--context", "a", "--namespace=b"], ["--context=a b", "--image", "c"]])
    expect(verify(args, { PATH: "/nonexistent" })).toEqual(ended({ stderr, exitCode: 1 }));
});

/**
 * A cluster of two nodes with this Pod Security level, whose containers are one real PID namespace: commands of theirs
 * are run by the file `enter`. What is asked of it is in `log`, its pods are files.
 */
const KUBECTL = `#!/bin/sh
cd "$STATE"
echo "$*" | head -n 1 >>log
while :; do case $1 in --context=* | --namespace=*) shift ;; *) break ;; esac; done
no() { echo "Error from server ($1): $2" >&2; exit 1; }
case $1,$2 in
  create,*)
    cat >manifest
    name=$(sed -n "s/^  name: //p" manifest)
    case $LEVEL in
      none) no Forbidden "pods is forbidden: User \\"x\\" cannot create resource \\"pods\\"" ;;
      baseline) ! grep -q SYS_PTRACE manifest || no Forbidden "violates PodSecurity \\"baseline:latest\\": SYS_PTRACE" ;;
      restricted) grep -q runAsNonRoot manifest ||
        no Forbidden "violates PodSecurity \\"restricted:latest\\": $(grep -o SYS_PTRACE manifest || echo runAsNonRoot)" ;;
    esac
    mv manifest "$name.yaml" ;;
  wait,*) [ ! -e unready ] ;;
  get,pod) sed -n 's/^  nodeName: "\\(.*\\)"/\\1/p' "$3.yaml" ;;
  get,nodes) echo "one two" ;;
  get,node) case $3 in one | two) echo containerd://2.1.9 ;; *) no NotFound "nodes \\"$3\\" not found" ;; esac ;;
  get,events) echo "Failed to pull image" ;;
  exec,*) shift 5; . ./enter ;;
  delete,*) [ -e "$3.yaml" ] && mv "$3.yaml" "$3.deleted" ;;
esac
`;

type Level = "privileged" | "baseline" | "restricted" | "none";

/** A cluster and its pods. */
class Cluster implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "pause-verify-"));
  readonly env: Record<string, string>;

  /** @param enter the command line that runs a container's command */
  constructor(level: Level, enter: readonly string[] = ["false"]) {
    writeFileSync(join(this.folder, "kubectl"), KUBECTL, { mode: 0o755 });
    const quoted = enter.map((word) => `'${word}'`).join(" ");
    writeFileSync(join(this.folder, "enter"), `exec ${quoted} "$@"`);
    this.env = { PATH: `${this.folder}:${process.env.PATH}`, STATE: this.folder, LEVEL: level };
  }

  verify(...args: readonly string[]) {
    return verify(args, this.env);
  }

  get log(): string[] {
    return readFileSync(join(this.folder, "log"), "utf8").trimEnd().split("\n");
  }

  /** The manifests of its pods that were deleted, which all have to be. */
  get deleted(): PodManifest[] {
    const files = readdirSync(this.folder).toSorted();
    expect(files.filter((file) => file.endsWith(".yaml"))).toEqual([]);
    return files
      .filter((file) => file.endsWith(".deleted"))
      .map((file) => {
        const pod = new PodManifest(Bun.YAML.parse(readFileSync(join(this.folder, file), "utf8")) as object);
        pod.validate();
        return pod;
      });
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true });
  }
}

// In the pod's containers, the shell and tools that busybox's image has.
const BUSYBOX = { "/bin/busybox": "busybox-static" };
const busybox = needing(BUSYBOX, NAMESPACES);
const applets = join(tmpdir(), `pause-applets-${process.pid}`);
beforeAll(() => {
  mkdirSync(applets, { mode: 0o755 });
  if (!busybox.skip) must("/bin/busybox", "--install", "-s", applets);
});
afterAll(() => rmSync(applets, { recursive: true }));

/** A cluster whose containers are beside a PID 1, by way of another command if one is given; a probe times out again and again. */
function around(pod: Pod, level: Level, [by, ...options]: readonly string[] = []): Cluster {
  const container = pod.inside("env", `PATH=${applets}`, ...(by ? [Bun.which(by) ?? by, ...options] : []));
  Bun.spawn([...container, "sh", "-c", "while :; do (sleep 20 &); sleep 3; done"], {
    stdio: ["ignore", "ignore", "ignore"],
  });
  return new Cluster(level, container);
}

busybox.describe("in a cluster that allows everything", () => {
  for (const program of [hosted, freestanding])
    test(`of /pause it says that it is ours and reaps: ${program.name}`, async () => {
      await using pod = await Pod.atRest(program);
      using cluster = around(pod, "privileged");
      const image = "registry/tools@sha256:0";
      const { stdout, ...rest } = cluster.verify("--node", "one", "--image", image);
      expect(rest).toMatchObject({ stderr: "", exitCode: 0 });
      expect(stdout).toMatch(/^Pod pause-verify-\S+ on node one \(containerd:\/\/2.1.9\):$/m);
      expect(stdout).toContain(`ok    PID 1 is ours: init.ts ${version}, the ${program.name} build (`);
      expect(stdout).toContain(`bill of materials: ${sha256(readFileSync(program.executable))}\n`);
      expect(stdout.match(/^ok {4}/gm)?.length).toBe(5);
      expect(stdout).not.toMatch(/FAIL|\?/);
      expect(stdout).toEndWith("All is well.\n");
      const [made] = cluster.deleted;
      expect(made?.spec?.nodeName).toBe("one");
      expect(made?.spec?.shareProcessNamespace).toBe(true);
      for (const container of made?.spec?.containers ?? [])
        expect(container).toMatchObject({ image, imagePullPolicy: "IfNotPresent" });
    });

  test("of another PID 1 it says what is wrong", async () => {
    await using pod = await Pod.start(["sleep", "infinity"]);
    using cluster = around(pod, "privileged");
    const { stdout, exitCode } = cluster.verify();
    expect(stdout).toContain("FAIL  PID 1 is not ours, but sleep infinity (");
    expect(stdout).toContain("but catches 0000000000000000.");
    expect(stdout).toMatch(
      /Of 300 orphans 300 became its children. After they died at once 30. zombies are left./,
    );
    expect(stdout.match(/^FAIL {2}/gm)?.length).toBe(5);
    expect(stdout).toEndWith("Not all is well.\n");
    expect(exitCode).toBe(1);
  });

  test("--node all looks at one node after the other, and ends with what it saw", async () => {
    await using pod = await Pod.atRest(freestanding);
    using cluster = around(pod, "privileged");
    const { stdout, ...rest } = cluster.verify("--node", "all", "--namespace", "a", "--context=b");
    expect(rest).toMatchObject({ stderr: "", exitCode: 0 });
    expect(stdout).toEndWith(
      "All is well on: one two\nAll that can be seen is well on: no node\nNot all is well on: no node\n",
    );
    expect(cluster.deleted.map(({ spec }) => spec?.nodeName)).toEqual(["one", "two"]);
    // The first pod has gone before the second comes.
    const verbs = cluster.log.filter((line) => /create|delete/.test(line)).map((line) => line.split(" ")[2]);
    expect(verbs).toEqual(["create", "delete", "create", "delete"]);
    for (const line of cluster.log) expect(line).toStartWith("--context=b --namespace=a ");
  });
});

/** What runs a container as each level allows: "restricted" as another user than PID 1. */
const baseline = ["setpriv", "--bounding-set=-sys_ptrace,-sys_admin"];
const restricted = UNPRIVILEGED.map((word) => word.replace("65535", "65534"));

needing(ROOT, BUSYBOX).describe("where a container may not look into PID 1", () => {
  for (const [level, by, refusals] of [
    ["baseline", baseline, ["SYS_PTRACE"]],
    ["restricted", restricted, ["SYS_PTRACE", "runAsNonRoot"]],
  ] as const)
    test(`Pod Security "${level}": all that can be seen is well, and that is exit code 3`, async () => {
      await using pod = await Pod.atRest(freestanding, UNPRIVILEGED);
      using cluster = around(pod, level, by);
      const { stdout, stderr, exitCode } = cluster.verify();
      const said = [...stderr.matchAll(/violates PodSecurity ".*?": (\w+)/g)].map(([, what]) => what);
      expect(said).toEqual([...refusals]);
      expect(stdout).toContain(
        `?     PID 1 is ${freestanding.executable}, as user 65535. Whose it is cannot be seen`,
      );
      expect(stdout.match(/^ok {4}/gm)?.length).toBe(4);
      expect(stdout).toEndWith("All that can be seen is well.\n");
      expect(exitCode).toBe(3);
      expect(cluster.deleted.length).toBe(1);
    });

  needing(CC).test("the C program as the same user can be asked: that it is not ours is seen", async () => {
    await using pod = await Pod.atRest(reference, restricted);
    using cluster = around(pod, "restricted", restricted);
    const { stdout, exitCode } = cluster.verify();
    expect(stdout).toContain(`FAIL  PID 1 is not ours, but pause.c ${version} (`);
    expect(exitCode).toBe(1);
  });
});

describe("what ends it with 1, and leaves no pod", () => {
  test("no pod can be made: each reason once", () => {
    using cluster = new Cluster("none");
    const refusal =
      'Error from server (Forbidden): pods is forbidden: User "x" cannot create resource "pods"';
    const stderr = `The cluster refuses a pod that may look at PID 1: ${refusal}\nNo pod can be made.\n`;
    expect(cluster.verify()).toEqual(ended({ stderr, exitCode: 1 }));
    expect(cluster.deleted).toEqual([]);
  });

  test("no such node", () => {
    using cluster = new Cluster("privileged");
    const stderr = 'Error from server (NotFound): nodes "NAME" not found\n';
    expect(cluster.verify("--node", "NAME")).toEqual(ended({ stderr, exitCode: 1 }));
    expect(cluster.log).toEqual(["get node NAME"]);
  });

  test("a pod that does not become ready, on one node or on all", () => {
    using cluster = new Cluster("privileged");
    writeFileSync(join(cluster.folder, "unready"), "");
    const stderr =
      "The pod was not ready within two minutes. The cluster says of it:\nFailed to pull image\n";
    expect(cluster.verify()).toMatchObject({ stderr, exitCode: 1 });
    const { stdout, exitCode } = cluster.verify("--node", "all");
    expect(stdout).toEndWith("Not all is well on: one two\n");
    expect(exitCode).toBe(1);
    expect(cluster.deleted.length).toBe(3);
  });

  test("a signal", async () => {
    const wait = '[ "$1" = ps ] || { touch running; while [ -e running ]; do sleep 0.05; done; }';
    using cluster = new Cluster("privileged", ["sh", "-c", wait, "sh"]);
    await using child = Bun.spawn(["sh", script], {
      env: cluster.env,
      stdio: ["ignore", "ignore", "inherit"],
    });
    await until("the examination", () => existsSync(join(cluster.folder, "running")), child);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(143);
    expect(cluster.deleted.length).toBe(1);
  });
});
