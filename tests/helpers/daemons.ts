/**
 * Daemons, and of them a registry of images on this machine's loopback: Debian's docker-registry.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Place } from "./places.ts";
import { until } from "./process.ts";

/**
 * Starts a daemon, and waits until it serves. It goes with its scope.
 *
 * @param log what it writes to its standard error; a new file
 * @throws what it wrote, if it ends before.
 */
export async function startDaemon(
  command: readonly string[],
  log: string,
  serves: () => boolean | Promise<boolean>,
): Promise<AsyncDisposableStack> {
  writeFileSync(log, "");
  const daemon = Bun.spawn([...command], { stdio: ["ignore", "ignore", Bun.file(log)] });
  await using stack = new AsyncDisposableStack();
  stack.defer(async () => {
    daemon.kill("SIGTERM");
    await daemon.exited;
  });
  const hasEnded = () => daemon.exitCode !== null || daemon.signalCode !== null;
  await until(`${log}: it serves`, async () => hasEnded() || (await serves()), daemon);
  if (hasEnded()) throw new Error(readFileSync(log, "utf8"));
  return stack.move();
}

export interface Registry extends AsyncDisposable {
  /** HOST:PORT. It has no TLS; docker and cosign take that from loopback, others have to be told. */
  readonly name: string;
}

/** Starts one that keeps its images in this folder, or only has them: it takes no new ones then. */
export async function startRegistry(folder: string, isReadOnly = false): Promise<Registry> {
  const maintenance = `maintenance: { readonly: { enabled: ${isReadOnly} } }`;
  const storage = `{ filesystem: { rootdirectory: ${folder}/registry }, ${maintenance} }`;
  mkdirSync(folder, { recursive: true });
  const configuration = join(folder, "registry.yml");
  writeFileSync(configuration, `version: 0.1\nstorage: ${storage}\nhttp: { addr: 127.0.0.1:0 }\n`);
  const log = join(folder, "registry.log");
  let name = "";
  const daemon = await startDaemon(["docker-registry", "serve", configuration], log, () => {
    name = /listening on (127\.0\.0\.1:\d+)"/.exec(readFileSync(log, "utf8"))?.[1] ?? "";
    return name !== "";
  });
  return Object.assign(daemon, { name });
}

/** Tells skopeo and podman of a place that these registries have no TLS. */
export function allowInsecure(place: Place, ...registries: readonly Registry[]): void {
  const folder = join(place.folder, "registries.conf.d");
  mkdirSync(folder);
  const tables = registries.map(({ name }) => `[[registry]]\nlocation = "${name}"\ninsecure = true\n`);
  writeFileSync(join(folder, "test.conf"), tables.join(""));
  place.bind(folder, "/etc/containers/registries.conf.d");
}
