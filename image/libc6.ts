/**
 * Debian 12's current libc6. No version is named here: Debian's mirrors drop the old ones.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fail, need, run } from "./tools.ts";

export const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
export const DEBIAN = "http://deb.debian.org";

/** Debian 12's own sources, for machines that have none. */
const SOURCES = ["debian bookworm", "debian bookworm-updates", "debian-security bookworm-security"]
  .map((source) => `deb [signed-by=${KEYRING}] ${DEBIAN}/${source} main\n`)
  .join("");

/** Of all that the sources have, Debian 12's only. */
const PREFERENCES = ["bookworm", "bookworm-updates", "bookworm-security"]
  .map((suite) => `Package: libc6:any\nPin: release o=Debian,n=${suite}\nPin-Priority: 990\n\n`)
  .concat("Package: libc6:any\nPin: release o=*\nPin-Priority: -1\n")
  .join("");

/** A libc6 that was downloaded, and unpacked into a folder. */
export interface Libc6 {
  version: string;
  folder: string;
}

/**
 * Downloads libc6 into this folder and unpacks it. apt verifies it by Debian's signatures: on Debian 12 from the
 * machine's own sources, elsewhere from Debian's.
 */
export function libc6<Architecture extends string>(
  folder: string,
  architectures: readonly Architecture[],
): Record<Architecture, Libc6> {
  need(["apt-get", "dpkg-deb"], 'it takes a Debian or Ubuntu; "npm run image -- freestanding" works here');
  const release = readFileSync("/etc/os-release", "utf8");
  const isDebian12 = /^ID=debian$/m.test(release) && /^VERSION_CODENAME=bookworm$/m.test(release);
  if (!isDebian12) need([KEYRING], "apt-get install debian-archive-keyring");

  const sources = join(folder, "sources.list");
  const preferences = join(folder, "preferences");
  for (const name of ["lists/partial", "cache/archives/partial"])
    mkdirSync(join(folder, name), { recursive: true });
  writeFileSync(sources, SOURCES);
  writeFileSync(preferences, PREFERENCES);
  // Package lists and downloads of its own, so that the machine's foreign architectures stay as they are. They lie
  // in a folder that apt's own user cannot enter.
  const options = [
    `APT::Architecture=${architectures[0]}`,
    `APT::Architectures=${architectures.join(",")}`,
    "APT::Sandbox::User=root",
    `Dir::State::lists=${join(folder, "lists")}`,
    `Dir::Cache=${join(folder, "cache")}`,
    `Dir::Etc::preferences=${preferences}`,
    "Dir::Etc::preferencesparts=/dev/null",
    ...(isDebian12 ? [] : [`Dir::Etc::sourcelist=${sources}`, "Dir::Etc::sourceparts=/dev/null"]),
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
