/**
 * Debian's kernels in qemu-system, without KVM and without a privilege. What one booted with and what it printed
 * stays in dist/kernels/NAME: vmlinuz, initramfs.cpio, console, and run, which boots it again.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { writeFloor } from "../../bench/floor.ts";
import { glibcOf, type HostedArchitecture, hosted } from "../../image/contents.ts";
import { type Architecture, architectures } from "../helpers/architectures.ts";
import { rootFileSystem, unpacked, withProgramsOf } from "../helpers/debian.ts";
import { must } from "../helpers/process.ts";
import { compile, dist, root } from "../helpers/programs.ts";

/** Of Debian, but for what arm64-64k.config made: Debian has none with such pages. */
type Suite = "bookworm" | "trixie" | "sid" | "own";

export interface Kernel {
  readonly architecture: Architecture;
  readonly suite: Suite;
  /** The end of the name of Debian's package. */
  readonly flavour: string;
  /** The size of a page. */
  readonly kibibytes: number;
  /** Whether the hosted build is run there too. */
  readonly runsHosted: boolean;
}

const own = join(dist, "vmlinuz-arm64-64k");

type Row = [architecture: string, suite: Suite, flavour: string, kibibytes: number, runsHosted?: true];

const table: readonly Row[] = [
  ["amd64", "sid", "cloud-amd64", 4, true],
  ["arm64", "sid", "arm64-16k", 16, true],
  ["arm64", "sid", "cloud-arm64", 4, true],
  ["ppc64le", "sid", "powerpc64le-64k", 64],
  ["s390x", "sid", "s390x", 4],
  ["arm", "sid", "armmp", 4],
  ["riscv64", "sid", "riscv64", 4],
  ["loong64", "sid", "loong64", 16],
  ["amd64", "trixie", "cloud-amd64", 4],
  ["amd64", "bookworm", "cloud-amd64", 4],
  ["arm64", "bookworm", "cloud-arm64", 4],
  ...(existsSync(own) ? [["arm64", "own", "arm64-64k", 64, true] satisfies Row] : []),
];

export const kernels: readonly Kernel[] = table.map(
  ([name, suite, flavour, kibibytes, runsHosted = false]) => {
    const architecture = architectures.find((one) => one.name === name);
    if (architecture === undefined) throw new Error(`no architecture ${name}`);
    return { architecture, suite, flavour, kibibytes, runsHosted };
  },
);

/** Debian's name of an architecture, which qemu-system with which machine, and the kernel's console. */
const machines: Readonly<Record<string, readonly [debian: string, machine: string, console: string]>> = {
  amd64: ["amd64", "x86_64 -M q35 -cpu max -m 2048", "ttyS0"],
  arm: ["armhf", "arm -M virt,highmem=off -cpu cortex-a15 -m 512", "ttyAMA0"],
  // cortex-a72, for one, has no pages of 16 KiB, and hangs without a word.
  arm64: ["arm64", "aarch64 -M virt -cpu neoverse-n1 -m 2048", "ttyAMA0"],
  // Without its firmware there is nothing where the kernel looks for a keyboard.
  loong64: ["loong64", "loongarch64 -M virt -m 1024", "ttyS0 initcall_blacklist=i8042_init"],
  ppc64le: ["ppc64el", "ppc64 -M pseries -cpu power9 -m 2048", "hvc0"],
  riscv64: ["riscv64", "riscv64 -M virt -m 512", "ttyS0"],
  s390x: ["s390x", "s390x -M s390-ccw-virtio -m 512", "ttysclp0"],
};

const machineOf = ({ architecture: { name } }: Kernel) => {
  const [debian = "", machine = "", console = ""] = machines[name] ?? [];
  return { debian, machine, console };
};

/** dist/kernels/NAME. */
export const folderOf = ({ suite, flavour }: Kernel) => join(dist, "kernels", `${suite}-${flavour}`);

/** The path of the only file in a folder whose name is like this. */
const find = (folder: string, name: string) => must("find", folder, "-type", "f", "-name", name).trim();

/** What it takes of Debian, in dist/debian from then on: folders with the kernel and with musl, and qemu's root. */
export function fetched(kernel: Kernel): { image: string; musl: string; qemu: string | undefined } {
  const { architecture, suite, flavour } = kernel;
  const { debian } = machineOf(kernel);
  // Of sid there are packages without the modules, which are not needed here.
  const name = `linux-${suite === "sid" ? "binary" : "image"}-[0-9].*[0-9]-${flavour}`;
  return {
    image: suite === "own" ? own : find(unpacked(suite, name, debian), "vmlinu[xz]*"),
    musl: unpacked("sid", "musl-dev", debian),
    // Debian 12's does not boot it.
    qemu: architecture.name === "loong64" ? rootFileSystem("trixie", ["qemu-system-misc"]) : undefined,
  };
}

/** A kernel as qemu takes it. Of the "EFI zboot" ones it takes only what gzip packed. */
function unzipped(image: Buffer): Buffer {
  // drivers/firmware/efi/libstub/zboot-header.S
  if (image.toString("latin1", 4, 8) !== "zimg" || image.toString("latin1", 24, 28) !== "zstd") return image;
  const offset = image.readUInt32LE(8);
  return Buffer.from(Bun.zstdDecompressSync(image.subarray(offset, offset + image.readUInt32LE(12))));
}

/** A compiler for the musl of this architecture: the specs with which musl-gcc runs gcc, for where it was unpacked. */
function muslCompiler(kernel: Kernel): readonly string[] {
  const { musl } = fetched(kernel);
  const path = join(folderOf(kernel), "musl-gcc.specs");
  const specs = readFileSync(find(musl, "musl-gcc.specs"), "utf8");
  writeFileSync(path, specs.replaceAll("/usr/", `${musl}/usr/`));
  return [...kernel.architecture.compiler(), `-specs=${path}`];
}

/** The hosted build, and what it links. */
function addHosted(folder: string, { name, compiler }: Architecture): void {
  const architecture = name as HostedArchitecture;
  const options = [`--target=${hosted[architecture].target}`, "--outfile", join(folder, "hosted")];
  must("npm", "--prefix", root, "run", "-s", "build:hosted", "--", ...options);
  for (const path of glibcOf(architecture)) {
    mkdirSync(join(folder, dirname(path)), { recursive: true });
    copyFileSync(must(...compiler(), `-print-file-name=${basename(path)}`).trim(), join(folder, path));
  }
  must("chmod", "-R", "a+rx", folder);
}

/** Makes the initramfs, and returns its path. /pause is the freestanding build. */
function initramfs(kernel: Kernel): string {
  const { name, compiler } = kernel.architecture;
  const folder = join(folderOf(kernel), "initramfs");
  for (const directory of ["dev", "proc", "sbin"]) mkdirSync(join(folder, directory), { recursive: true });
  copyFileSync(join(dist, "freestanding", name, "pause"), join(folder, "pause"));
  compile("reference", compiler, join(folder, "reference"));
  compile("reference", () => muslCompiler(kernel), join(folder, "musl"));
  compile("orphans", compiler, join(folder, "orphans"));
  compile("../kernels/harness", compiler, join(folder, "sbin/modprobe"));
  writeFloor(name, folder);
  if (kernel.runsHosted) addHosted(folder, kernel.architecture);
  must("sh", "-c", 'cd "$0" && find . | cpio --quiet -o -H newc -R 0:0 >"$0.cpio"', folder);
  rmSync(folder, { recursive: true });
  return `${folder}.cpio`;
}

/** What a program did in one case: its name, how that went, and what was written to both outputs. */
export type Line = readonly [name: string, what: string, stdout: string, stderr: string];

export interface Report {
  /** By the program: pause (the freestanding build), reference, musl, floor, hosted. */
  readonly of: (program: string) => readonly Line[];
  /** All that was on the console. */
  readonly console: string;
}

/** What the harness said when this kernel ran last. */
export function reportOf(kernel: Kernel): Report {
  const console = readFileSync(join(folderOf(kernel), "console"), "latin1").replaceAll("\r", "");
  const lines = [...console.matchAll(/^\|(\w+)\|(.*?)\|(.*?)\|(.*?)\|(.*?)\|$/gm)];
  const text = (escaped = "") => escaped.replaceAll("\\n", "\n");
  return {
    console,
    of: (program) =>
      lines.flatMap(([, of, name = "", what = "", stdout, stderr]) =>
        of === program ? [[name, what, text(stdout), text(stderr)] as const] : [],
      ),
  };
}

/** Several times what the slowest takes on two idle cores. */
const LIMIT_SECONDS = 400;

/**
 * Boots a kernel with all of it, and waits for its end.
 *
 * @throws with the path of what it printed, if the harness did not come to its end within the limit
 */
export async function boot(kernel: Kernel): Promise<Report> {
  const folder = folderOf(kernel);
  const { machine, console } = machineOf(kernel);
  const { image, qemu } = fetched(kernel);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "vmlinuz"), unzipped(readFileSync(image)));
  const words = [
    ...`qemu-system-${machine} -smp 1 -nographic -no-reboot -nodefaults`.split(" "),
    ..."-serial stdio -monitor none -net none".split(" "),
    ...["-kernel", join(folder, "vmlinuz"), "-initrd", initramfs(kernel), "-append"],
    `console=${console} panic=-1 quiet rdinit=/pause sysctl.net.core.default_qdisc=harness`,
  ];
  const command = qemu === undefined ? words : withProgramsOf(qemu, ...words);
  const quoted = command.map((word) => `'${word.replaceAll("'", `'\\''`)}'`);
  writeFileSync(join(folder, "run"), `exec ${quoted.join(" ")} 2>&1\n`);
  const emulator = Bun.spawn(["setpriv", "--pdeathsig", "KILL", "sh", join(folder, "run")], {
    stdio: ["ignore", Bun.file(join(folder, "console")), "inherit"],
    timeout: LIMIT_SECONDS * 1000,
    killSignal: "SIGKILL",
  });
  await emulator.exited;
  const report = reportOf(kernel);
  if (!report.of("pause").some(([name]) => name === "end")) {
    const limit = emulator.signalCode === "SIGKILL" ? `, after ${LIMIT_SECONDS} s` : "";
    const failure = /^\|\w+\|failed\|.*$/m.exec(report.console)?.[0] ?? "";
    throw new Error(
      `not at its end${limit}: ${failure} ${folder}/console has all of it, "sh ${folder}/run" boots it again`,
    );
  }
  return report;
}
