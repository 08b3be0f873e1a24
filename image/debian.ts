/**
 * Debian 12's current packages. No version is named here: Debian's mirrors drop the old ones.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fail, need, run } from "./tools.ts";

export const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** Where apt's sources have a suite: the folder that has dists/. apt is asked, because they have more than one form. */
export function mirrorOf(suite: string): string | undefined {
  const uris = Bun.spawnSync(["apt-get", "--print-uris", "update"], { stderr: "inherit" }).stdout.toString();
  return new RegExp(`^'(\\S+)/dists/${suite}/InRelease'`, "m").exec(uris)?.[1];
}

/** Debian 12's sources, from where this machine's apt gets Debian. */
function sources(): string {
  const release = readFileSync("/etc/os-release", "utf8");
  const field = (name: string) => new RegExp(`^${name}=(.*)$`, "m").exec(release)?.[1];
  const isDebian = field("ID") === "debian";
  /** A mirror of another Debian has this one too. */
  const mirror = (suffix: string) =>
    mirrorOf(`bookworm${suffix}`) ??
    (isDebian ? mirrorOf(`${field("VERSION_CODENAME")}${suffix}`) : undefined);
  const debian = mirror("");
  if (debian === undefined)
    return fail(
      'apt has no source of Debian 12: add bookworm, or "npm run image -- freestanding", which needs none',
    );
  const security = mirror("-security");
  return [
    `${debian} bookworm`,
    `${debian} bookworm-updates`,
    ...(security ? [`${security} bookworm-security`] : []),
  ]
    .map((source) => `deb [signed-by=${KEYRING}] ${source} main\n`)
    .join("");
}

/** A package that was downloaded, and unpacked into a folder. */
export interface DebianPackage {
  name: string;
  version: string;
  /** The name of the source package. */
  source: string;
  /** The name of the file, and its SHA-256. */
  file: string;
  sha256: string;
  /** What dpkg knows of it: the fields of its control file (deb-control(5)). */
  control: string;
  folder: string;
}

/** Downloads packages into this folder and unpacks them. apt verifies them by Debian's signatures. */
export function debianPackages<Architecture extends string>(
  folder: string,
  architectures: readonly Architecture[],
  names: readonly string[],
): Record<Architecture, DebianPackage[]> {
  need(["apt-get", "dpkg-deb"], 'it takes a Debian or Ubuntu; "npm run image -- freestanding" works here');
  need([KEYRING], "apt-get install debian-archive-keyring");
  const list = join(folder, "sources.list");
  for (const name of ["lists/partial", "cache/archives/partial"])
    mkdirSync(join(folder, name), { recursive: true });
  writeFileSync(list, sources());
  // Package lists and downloads of its own, so that the machine's foreign architectures stay as they are. They lie
  // in a folder that apt's own user cannot enter.
  const options = [
    `APT::Architecture=${architectures[0]}`,
    `APT::Architectures=${architectures.join(",")}`,
    "APT::Sandbox::User=root",
    `Dir::State::lists=${join(folder, "lists")}`,
    `Dir::Cache=${join(folder, "cache")}`,
    `Dir::Etc::sourcelist=${list}`,
    "Dir::Etc::sourceparts=/dev/null",
    "Dir::Etc::preferences=/dev/null",
    "Dir::Etc::preferencesparts=/dev/null",
  ].flatMap((option) => ["-o", option]);
  run(["apt-get", "-qq", ...options, "update"]);

  const unpack = (architecture: Architecture, name: string): DebianPackage => {
    // One by one, so that there is no doubt which file is whose: a version has more than names of files may.
    const there = join(folder, `${name}-${architecture}`);
    mkdirSync(there);
    run(["apt-get", "-qq", ...options, "download", `${name}:${architecture}`], there);
    const [file] = readdirSync(there);
    if (file === undefined) return fail(`apt-get has not downloaded ${name}:${architecture}`);
    const deb = join(there, file);
    run(["dpkg-deb", "--extract", deb, join(there, "root")]);
    const control = run(["dpkg-deb", "--field", deb]);
    const field = (field: string) => new RegExp(`^${field}: (\\S+)`, "m").exec(control)?.[1];
    return {
      name,
      version: field("Version") ?? "",
      source: field("Source") ?? name,
      file,
      sha256: createHash("sha256").update(readFileSync(deb)).digest("hex"),
      control,
      folder: join(there, "root"),
    };
  };
  return Object.fromEntries(
    architectures.map((architecture) => [architecture, names.map((name) => unpack(architecture, name))]),
  ) as Record<Architecture, DebianPackage[]>;
}
