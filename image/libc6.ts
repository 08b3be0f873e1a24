/**
 * Debian 12's current libc6. No version is named here: Debian's mirrors drop the old ones.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fail, need, run } from "./tools.ts";

export const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** Where apt's sources have a suite: the folder that has dists/. apt is asked, because they have more than one form. */
export const mirrorOf = (suite: string): string | undefined =>
  new RegExp(`^'(\\S+)/dists/${suite}/InRelease'`, "m").exec(run(["apt-get", "--print-uris", "update"]))?.[1];

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

/** A libc6 that was downloaded, and unpacked into a folder. */
export interface Libc6 {
  version: string;
  folder: string;
}

/** Downloads libc6 into this folder and unpacks it. apt verifies it by Debian's signatures. */
export function libc6<Architecture extends string>(
  folder: string,
  architectures: readonly Architecture[],
): Record<Architecture, Libc6> {
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
  run(["apt-get", "-qq", ...options, "download", ...architectures.map((one) => `libc6:${one}`)], folder);

  const unpack = (architecture: Architecture): [Architecture, Libc6] => {
    const file = readdirSync(folder).find((name) => name.endsWith(`_${architecture}.deb`));
    if (file === undefined) return fail(`apt-get has not downloaded libc6:${architecture}`);
    const unpacked = join(folder, architecture);
    run(["dpkg-deb", "--extract", join(folder, file), unpacked]);
    const version = run(["dpkg-deb", "--field", join(folder, file), "Version"]).trim();
    return [architecture, { version, folder: unpacked }];
  };
  return Object.fromEntries(architectures.map(unpack)) as Record<Architecture, Libc6>;
}
